// Bans: who is kept out by any thread of the process, and what becomes of what is open.

import assert from 'node:assert/strict';
import net from 'node:net';
import { test } from 'node:test';
import { ban, bans, connectionCount, stats, unban } from 'wsbroker';
import { connectRaw } from './helpers/raw.mjs';
import { connect, listen, open, refusal, request, serve } from './helpers/serving.mjs';
import { startThreads } from './helpers/threads.mjs';
import { eventually, within } from './helpers/waiting.mjs';

/** Linux answers on all of 127.0.0.0/8 without being told; elsewhere only 127.0.0.1 is there. */
const ONE_ADDRESS = process.platform !== 'linux' && 'the loopback network has one address here';

/** Bans are the process's: none may be left for the next test. */
function cleanUp(t) {
  t.after(() => {
    for (const { address } of bans()) unban(address);
    assert.deepEqual(bans(), []);
  });
}

/** Connects and waits for the end; nothing may come before it. */
async function isTurnedAway(t, { address }, options = {}) {
  const socket = net.connect({ ...address, ...options });
  t.after(() => socket.destroy());
  socket.on('error', () => {}); // a reset is an end as well
  socket.on('data', (data) => assert.fail(`an answer: ${data}`));
  socket.write('GET / HTTP/1.1\r\nHost: test\r\n\r\n');
  await within(new Promise((resolve) => socket.once('close', resolve)), 'the connection is closed');
}

test('a ban closes the sockets of all threads and keeps their client out', { skip: ONE_ADDRESS }, async (t) => {
  const threads = await startThreads(t, 4);
  cleanUp(t);
  const server = listen();
  const bad = await Promise.all(Array.from({ length: 20 }, () => connect(t, server, { localAddress: '127.0.0.2' })));
  const good = await connect(t, server, { localAddress: '127.0.0.3' });
  const before = stats().limited.banned;

  assert.equal(ban('127.0.0.2'), 20);
  for (const client of bad) assert.deepEqual(await client.closed, { code: 1008, reason: 'banned' });
  assert.equal(connectionCount(), 1);
  await eventually(() => {
    const codes = threads.flatMap((thread) => thread.of('close')).map(([, code]) => code);
    assert.deepEqual(codes, Array(20).fill(1008));
  });
  await isTurnedAway(t, server, { localAddress: '127.0.0.2' });
  await assert.rejects(connect(t, server, { localAddress: '127.0.0.2' }));
  assert.equal(stats().limited.banned, before + 2);
  good.send('who');
  await good.inbox.next();

  assert.equal(unban('127.0.0.2'), true);
  assert.equal(unban('127.0.0.2'), false);
  await connect(t, server, { localAddress: '127.0.0.2' });
});

test('connections that are no sockets are cut', async (t) => {
  cleanUp(t);
  const server = serve(t, { handleHttpRequest: ({ path }) => (path === '/hang' ? new Promise(() => {}) : {}) });
  const idle = await connectRaw(t, server);
  await idle.write('GET / HTTP/1.1\r\nHost: test\r\n\r\n').response();
  const waiting = await connectRaw(t, server);
  waiting.write('GET /hang HTTP/1.1\r\nHost: test\r\n\r\n');
  await eventually(() => assert.equal(stats().pendingRequests, 1));
  assert.equal(ban('127.0.0.0/8'), 0, 'no sockets');
  for (const client of [idle, waiting]) await client.end();
  await eventually(() => assert.equal(stats().pendingRequests, 0));
});

test('a network, and IPv6', async (t) => {
  cleanUp(t);
  const server = serve(t, { handleHttpRequest: () => ({ body: 'ok' }) });
  ban('127.0.0.77/24');
  await isTurnedAway(t, server);
  const six = listen({ bind: '[::1]:0' });
  assert.equal((await request(six)).status, 200);
  ban('::1');
  await isTurnedAway(t, six);
  unban('127.0.0.0/24');
  assert.equal((await request(server)).status, 200);
});

test('a ban ends by itself, and a second one replaces its end', async (t) => {
  cleanUp(t);
  const server = serve(t, { handleHttpRequest: () => ({ body: 'ok' }) });
  ban('127.0.0.1', 3600);
  const [{ expires }] = bans();
  assert.ok(Math.abs(expires - Date.now() - 3_600_000) < 60_000, `${expires}`);
  await isTurnedAway(t, server);
  ban('127.0.0.1', 0.1);
  await eventually(() => assert.deepEqual(bans(), []));
  assert.equal((await request(server)).status, 200);
});

test('bans are listed in their shortest form and in order', (t) => {
  cleanUp(t);
  for (const address of ['2001:DB8:0::/32', '192.0.2.7/24', '192.0.2.7', '::ffff:198.51.100.9', '10.1.2.3/8'])
    ban(address);
  ban('192.0.2.1/24');
  assert.deepEqual(bans(), [
    { address: '10.0.0.0/8', expires: undefined },
    { address: '192.0.2.0/24', expires: undefined },
    { address: '192.0.2.7', expires: undefined },
    { address: '198.51.100.9', expires: undefined },
    { address: '2001:db8::/32', expires: undefined },
  ]);
});

test('behind a trusted proxy the client is banned and not the proxy', async (t) => {
  cleanUp(t);
  const server = serve(t, { handleHttpRequest: () => ({ body: 'ok' }) }, { trustProxy: 1 });
  const from = (client) => ({ headers: { 'x-forwarded-for': `127.0.0.1, ${client}` } });
  const bad = await connect(t, server, from('192.0.2.1'));
  const good = await connect(t, server, from('192.0.2.2'));
  assert.equal(ban('192.0.2.1'), 1);
  assert.deepEqual(await bad.closed, { code: 1008, reason: 'banned' });
  assert.equal((await request(server, '/', from('192.0.2.1'))).status, 403);
  assert.equal((await refusal(t, server, from('192.0.2.1'))).status, 403);
  assert.equal((await request(server, '/', from('192.0.2.2'))).status, 200);
  assert.equal(good.readyState, good.OPEN);
});

test('a handler may ban the client of its own socket', async (t) => {
  cleanUp(t);
  const clients = new Map();
  const closed = [];
  const server = serve(t, {
    handleSocketOpen: (socketId, { remoteAddress }) => void clients.set(socketId, remoteAddress),
    handleSocketMessage: (data, socketId) => void (data === 'bad word' && ban(clients.get(socketId), 60)),
    handleSocketClose: (_socketId, _token, code, reason) => closed.push([code, reason]),
  });
  const client = await connect(t, server);
  client.send('bad word');
  assert.deepEqual(await client.closed, { code: 1008, reason: 'banned' });
  await eventually(() => assert.deepEqual(closed, [[1008, 'banned']]));
  const again = open(t, server);
  assert.equal((await again.closed).code, 1006);
});
