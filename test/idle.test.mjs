// Many sockets on one process that do next to nothing. `npm run memory` prints what they cost.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { broadcast, channelCount, connectionCount, send, stats, subscribe, subscriberCount } from 'wsbroker';
import { IdleClients, tooManySockets } from '../scripts/idle-clients.mjs';
import { serve } from './helpers/serving.mjs';
import { eventually, within } from './helpers/waiting.mjs';

const SOCKETS = 5000;

/**
 * Far above what an idle socket may cost, in bytes. It is there for the mistake of a factor: a read buffer of its own
 * would be 64 KiB.
 */
const MEMORY_PER_SOCKET = 16 << 10;

test('5,000 sockets on one process', { skip: tooManySockets(SOCKETS) }, async (t) => {
  const opens = new Map();
  const closes = new Map();
  const count = (counts, id) => counts.set(id, (counts.get(id) ?? 0) + 1);
  const server = serve(t, {
    handleSocketOpen(socketId) {
      count(opens, socketId);
      subscribe(socketId, 'everyone');
    },
    handleSocketMessage: (data, socketId) => void send(socketId, data),
    handleSocketClose: (socketId, _token, code) => count(closes, `${socketId} ${code}`),
  });
  const clients = new IdleClients(server.address, SOCKETS);
  t.after(() => clients.end());
  const before = stats();
  const { rss } = process.memoryUsage();

  await within(clients.open(), 'every socket is open and has its echo', 60_000);
  assert.deepEqual([connectionCount(), subscriberCount('everyone'), opens.size], [SOCKETS, SOCKETS, SOCKETS]);
  assert.ok(process.memoryUsage().rss - rss < SOCKETS * MEMORY_PER_SOCKET);

  const received = clients.receive('to all');
  assert.equal(broadcast('to all'), SOCKETS);
  await within(received, 'every socket has the broadcast', 60_000);

  const closed = clients.closed(1001);
  assert.deepEqual(await server.stop({ timeout: 60_000 }), { closed: SOCKETS, forced: 0 });
  await within(closed, 'every socket is closed, and nothing came twice', 60_000);

  await eventually(() => assert.equal(closes.size, SOCKETS));
  const expected = [...opens.keys()].map((socketId) => [`${socketId} 1001`, 1]);
  assert.deepEqual(closes, new Map(expected), 'one close event for each');
  assert.ok([...opens.values()].every((times) => times === 1));
  const grown = (name) => stats()[name] - before[name];
  assert.deepEqual(['opened', 'closed', 'messagesIn', 'messagesOut'].map(grown), [
    SOCKETS,
    SOCKETS,
    SOCKETS,
    2 * SOCKETS,
  ]);
  assert.deepEqual(stats().dropped, before.dropped, 'nothing was dropped');
  assert.deepEqual([connectionCount(), channelCount(), stats().subscriptions], [0, 0, 0]);
});
