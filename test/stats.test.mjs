// stats(): what happened, in numbers that add up.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { close, send, sendToChannel, stats, subscribe } from 'wsbroker';
import { connect, listen, request, serve } from './helpers/serving.mjs';
import { deferred, eventually, Inbox } from './helpers/waiting.mjs';

test('a plain object of numbers, all of them', (t) => {
  serve(t);
  const numbers = stats();
  const { dropped, limited, workers, ...rest } = numbers;
  assert.deepEqual(Object.keys(rest).sort(), [
    'acceptErrors',
    'bytesIn',
    'bytesOut',
    'channels',
    'closed',
    'connections',
    'ioThreads',
    'listeners',
    'messagesIn',
    'messagesOut',
    'opened',
    'pausedSockets',
    'pendingRequests',
    'requests',
    'subscriptions',
  ]);
  assert.deepEqual(Object.keys(dropped).sort(), [
    'channelLimit',
    'handlerTimeoutMessages',
    'handlerTimeouts',
    'heartbeatTimeouts',
    'lateResponses',
    'notSubscribed',
    'overRate',
    'overRateCloses',
    'queueFull',
    'slowConsumer',
    'slowRequests',
    'socketClosed',
    'timedOutRequests',
    'unansweredRequests',
    'unreadResponses',
    'violations',
    'workerEnded',
    'workerEndedEvents',
  ]);
  assert.deepEqual(Object.keys(limited).sort(), [
    'banned',
    'connections',
    'connectionsPerIp',
    'contradictions',
    'handshakes',
    'origins',
    'proxyProtocol',
    'requestsPerIp',
    'upgradesPerIp',
  ]);
  for (const value of [rest, dropped, limited].flatMap(Object.values)) assert.ok(Number.isSafeInteger(value));
  assert.deepEqual(
    workers.map(({ id, ...worker }) => worker),
    [{ queuedEvents: 0, queuedBytes: 0, inHandEvents: 0, events: 0, full: false }],
  );
  assert.equal(Object.getPrototypeOf(numbers), Object.prototype);
  assert.deepEqual(JSON.parse(JSON.stringify(numbers)), numbers);
});

test('everything is counted', async (t) => {
  const ids = new Inbox();
  const seen = new Inbox();
  const open = deferred();
  const server = serve(t, {
    handleHttpRequest: () => open.promise,
    handleSocketOpen: (socketId) => ids.push(socketId),
    handleSocketMessage: (data) => seen.push(data),
  });
  const before = stats();
  const clients = [await connect(t, server), await connect(t, server)];
  const [one, two] = await ids.take(2);
  subscribe(one, 'a');
  subscribe(one, 'b');
  subscribe(two, 'a');
  clients[0].send('12345');
  clients[1].send(Buffer.alloc(10));
  await seen.take(2);
  send(one, 'hello');
  sendToChannel('a', 'hello');
  for (const client of clients) await client.inbox.next();
  await clients[0].inbox.next();
  const answer = request(server);

  await eventually(() => {
    const now = stats();
    assert.deepEqual([now.connections, now.channels, now.subscriptions, now.listeners], [2, 2, 3, 1]);
    assert.equal(now.pendingRequests, 1);
    const grown = (name) => now[name] - before[name];
    assert.deepEqual(['opened', 'closed', 'requests', 'messagesIn', 'messagesOut'].map(grown), [2, 0, 1, 2, 3]);
    // A client's frame has a head of 2 bytes and a mask of 4, a server's a head of 2 alone.
    assert.deepEqual(['bytesIn', 'bytesOut'].map(grown), [5 + 10 + 2 * 6, 3 * (5 + 2)]);
    assert.equal(now.workers[0].events - before.workers[0].events, 5);
  });
  open.resolve();
  await answer;
  close(one);
  clients[1].close();
  await eventually(() => {
    const now = stats();
    assert.deepEqual([now.connections, now.channels, now.subscriptions, now.pendingRequests], [0, 0, 0, 0]);
    assert.equal(now.closed - before.closed, 2);
  });
  const second = listen();
  assert.equal(stats().listeners, 2);
  await second.stop();
  assert.equal(stats().listeners, 1);
});

test('a client that breaks the protocol is counted', async (t) => {
  const server = serve(t, {}, { maxMessageSize: 10 });
  const before = stats().dropped.violations;
  const client = await connect(t, server);
  client.send('x'.repeat(11));
  await client.closed;
  await eventually(() => assert.equal(stats().dropped.violations, before + 1));
});

test('what waits for a busy worker is seen', async (t) => {
  let numbers;
  const handled = deferred();
  const server = serve(t, {
    handleSocketMessage() {
      numbers ??= stats().workers[0];
      handled.resolve();
    },
  });
  const client = await connect(t, server);
  client.send('look');
  await handled.promise;
  assert.ok(numbers.inHandEvents >= 1);
});
