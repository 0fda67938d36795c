// Upgrades and the calls on one socket.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import {
  broadcast,
  bufferedAmount,
  channels,
  close,
  connectionCount,
  connections,
  getToken,
  send,
  stats,
  subscriberCount,
} from 'wsbroker';
import { connect, open, refusal, request, serve } from './helpers/serving.mjs';
import { deferred, eventually, Inbox, within } from './helpers/waiting.mjs';

/** Serves with these handlers and gives, beside the server, the ids in the order the sockets opened. */
function serveWithIds(t, handlers = {}, options) {
  const ids = new Inbox();
  const server = serve(t, { ...handlers, handleSocketOpen: (socketId) => ids.push(socketId) }, options);
  return { server, ids };
}

test('an upgrade without a handler is accepted, on any path', async (t) => {
  const { server, ids } = serveWithIds(t);
  await connect(t, server, { path: '/' });
  await connect(t, server, { path: '/any/where?at=all' });
  const [first, second] = await ids.take(2);
  assert.ok(second > first);
});

test('every way to accept, now or later', async (t) => {
  const acceptances = { '/nothing': undefined, '/null': null, '/true': true, '/empty': {} };
  const { server, ids } = serveWithIds(t, {
    handleSocketUpgrade: ({ path, query }) =>
      query === 'later' ? Promise.resolve(acceptances[path]) : acceptances[path],
  });
  for (const path of Object.keys(acceptances)) {
    await connect(t, server, { path });
    await connect(t, server, { path: `${path}?later` });
  }
  assert.equal(new Set(await ids.take(8)).size, 8);
});

test('what an acceptance brings is in place before the first message', async (t) => {
  const acceptance = {
    token: 'ünï',
    channels: ['room', Buffer.from('hall'), 'room'],
    protocol: 'chat.v2',
    headers: { 'x-server': 'mine', 'set-cookie': ['a=1', 'b=2'] },
  };
  const seen = new Inbox();
  const server = serve(t, {
    handleSocketUpgrade: (incoming) => {
      seen.push(incoming.headers['sec-websocket-protocol']);
      return acceptance;
    },
    handleSocketOpen: (socketId, incoming, token) => {
      seen.push([incoming.path, token.toString(), channels(socketId).map(String).sort()]);
    },
    handleSocketMessage: (data, socketId, token) => {
      seen.push([data, token.toString(), getToken(socketId).toString(), subscriberCount('room')]);
    },
  });
  const client = await connect(t, server, { path: '/in', protocols: ['chat.v1', 'chat.v2'] });
  client.send('first');
  assert.equal(client.protocol, 'chat.v2');
  assert.deepEqual(await seen.take(3), [
    'chat.v1,chat.v2',
    ['/in', 'ünï', ['hall', 'room']],
    ['first', 'ünï', 'ünï', 1],
  ]);
});

test('a protocol that the client did not offer is left out', async (t) => {
  const server = serve(t, { handleSocketUpgrade: () => ({ protocol: 'other' }) });
  const client = await connect(t, server);
  assert.equal(client.protocol, '');
});

test('the headers of an acceptance are sent', async (t) => {
  const server = serve(t, { handleSocketUpgrade: () => ({ headers: { 'x-one': 1, 'Set-Cookie': ['a=1', 'b=2'] } }) });
  const client = open(t, server);
  const [response] = await within(once(client, 'upgrade'), 'the 101');
  assert.equal(response.headers['x-one'], '1');
  assert.deepEqual(response.headers['set-cookie'], ['a=1', 'b=2']);
});

test('every way to refuse', async (t) => {
  const decisions = {
    '/false': false,
    '/status': { status: 404 },
    '/full': { status: 401, headers: { 'www-authenticate': 'Bearer' }, body: 'who are you?' },
    '/both': { status: 403, token: Buffer.from('no'), channels: ['room'] },
  };
  const server = serve(t, {
    handleSocketUpgrade: ({ path, query }) => (query === 'later' ? Promise.resolve(decisions[path]) : decisions[path]),
  });
  for (const later of ['', '?later']) {
    assert.equal((await refusal(t, server, { path: `/false${later}` })).status, 403);
    assert.equal((await refusal(t, server, { path: `/status${later}` })).status, 404);
    const full = await refusal(t, server, { path: `/full${later}` });
    assert.deepEqual([full.status, full.headers['www-authenticate'], full.body], [401, 'Bearer', 'who are you?']);
    assert.equal((await refusal(t, server, { path: `/both${later}` })).status, 403);
  }
  assert.equal(connectionCount(), 0);
});

test('a decision that makes no sense, and an error, let nobody in: 500', async (t) => {
  const decisions = [
    ['/string', 'yes', /^decision: expected a boolean.*got "yes"/],
    ['/number', 1, /^decision: /],
    ['/array', [], /^decision: /],
    ['/misspelt', { tokens: Buffer.from('t') }, /^decision: there is no "tokens".*did you mean 'token'\?/],
    ['/body', { body: 'no status' }, /^decision: there is no "body"/],
    ['/status', { status: 101 }, /^decision\.status: /],
    ['/token', { token: 7 }, /^decision\.token: /],
    ['/null-token', { token: null }, /^decision\.token: /],
    ['/channels', { channels: 'room' }, /^decision\.channels: expected an array/],
    ['/channel', { channels: ['room', ''] }, /^decision\.channels\[1\]: expected a channel name/],
    ['/no-channel', { channels: Array(1) }, /^decision\.channels\[0\]: expected .* got undefined/],
    ['/protocol', { protocol: 'a, b' }, /^decision\.protocol: /],
    ['/header', { headers: { 'x-evil': 'a\nb' } }, /^decision\.headers\["x-evil"\]: /],
    ['/refusal-header', { status: 403, headers: { 'x-evil': 'a\nb' } }, /^decision\.headers\["x-evil"\]: /],
  ];
  const errors = new Inbox();
  const server = serve(t, {
    handleSocketUpgrade({ path, query }) {
      if (path === '/throw') throw new Error('on purpose');
      const decision = decisions.find(([of]) => of === path)[1];
      return query === 'later' ? Promise.resolve(decision) : decision;
    },
    handleError: (error, { handler, request }) => errors.push([handler, request.path, error]),
  });
  for (const [path, , expected] of decisions) {
    for (const later of ['', '?later']) {
      assert.equal((await refusal(t, server, { path: path + later })).status, 500, path);
      const [handler, of, error] = await errors.next();
      assert.deepEqual([handler, of], ['handleSocketUpgrade', path]);
      assert.match(error.message, expected);
    }
  }
  assert.equal((await refusal(t, server, { path: '/throw' })).status, 500);
  assert.equal(connectionCount(), 0);
});

test('a decision that never comes is answered 504', async (t) => {
  const forever = deferred();
  const server = serve(t, { handleSocketUpgrade: () => forever.promise }, { requestTimeout: 50 });
  assert.equal((await refusal(t, server)).status, 504);
  forever.resolve(true);
});

test('a client that gives up before the decision opens no socket', async (t) => {
  const asked = deferred();
  const decision = deferred();
  const opened = new Inbox();
  const server = serve(t, {
    handleSocketUpgrade: (incoming) => {
      asked.resolve(incoming);
      return decision.promise;
    },
    handleSocketOpen: (socketId) => opened.push(socketId),
  });
  const client = open(t, server);
  const incoming = await within(asked.promise, 'the upgrade');
  client.terminate();
  await eventually(() => assert.ok(incoming.signal.aborted));
  decision.resolve({ channels: ['room'] });
  await connect(t, server); // the decision for this one is made after the other's
  assert.deepEqual([await opened.next()], [...connections()]);
  assert.deepEqual([opened.length, connectionCount(), subscriberCount('room')], [0, 1, 1]);
});

test('send answers true while the socket is open, and false from its close on', async (t) => {
  const closed = deferred();
  const { server, ids } = serveWithIds(t, { handleSocketClose: closed.resolve });
  const client = await connect(t, server);
  const id = await ids.next();
  assert.equal(send(id, 'text'), true);
  assert.equal(send(id, Buffer.from('bytes')), true);
  assert.deepEqual(await client.inbox.take(2), ['text', Buffer.from('bytes')]);
  client.close();
  await within(closed.promise, 'the close event');
  assert.equal(send(id, 'too late'), false);
  assert.equal(close(id), false);
  assert.deepEqual(channels(id), []);
});

test('close sends code and reason after what was sent before, and the socket is gone at once', async (t) => {
  const closes = new Inbox();
  const { server, ids } = serveWithIds(t, { handleSocketClose: (...args) => closes.push(args) });
  const client = await connect(t, server);
  const id = await ids.next();
  for (let n = 0; n < 100; n += 1) send(id, `message ${n}`);
  assert.equal(close(id, 4321, 'genug für heute'), true);
  assert.equal(close(id), false);
  assert.equal(send(id, 'too late'), false);
  assert.equal(connectionCount(), 0);
  assert.deepEqual(await client.closed, { code: 4321, reason: 'genug für heute' });
  assert.equal(client.inbox.length, 100);
  assert.deepEqual(await closes.next(), [id, undefined, 4321, 'genug für heute']);
});

test('close without more is 1000', async (t) => {
  const { server, ids } = serveWithIds(t);
  const client = await connect(t, server);
  close(await ids.next());
  assert.deepEqual(await client.closed, { code: 1000, reason: '' });
});

test('connections lists what is open, and broadcast reaches it', async (t) => {
  const { server, ids } = serveWithIds(t);
  const clients = await Promise.all(Array.from({ length: 5 }, () => connect(t, server)));
  const opened = await ids.take(5);
  assert.deepEqual([...connections()].sort(), [...opened].sort());
  assert.equal(connectionCount(), 5);
  assert.equal(broadcast('to all'), 5);
  for (const client of clients) assert.equal(await client.inbox.next(), 'to all');
  close(opened[0]);
  assert.equal(broadcast(Buffer.from('to four')), 4);
  assert.deepEqual([...connections()].sort(), opened.slice(1).sort());
});

/** So many messages of 16 KiB are no burst of 16 times 64 KiB. */
const AT_ONCE = 8;

test('a slow reader: bytes wait, a message too many closes it with 1013', async (t) => {
  const closes = new Inbox();
  const { server, ids } = serveWithIds(
    t,
    { handleSocketClose: (_id, _token, code) => closes.push(code) },
    { maxBackpressure: 64 * 1024, closeTimeout: 100 },
  );
  const client = await connect(t, server);
  const id = await ids.next();
  client.pause();
  const before = stats().dropped.slowConsumer;
  const message = Buffer.alloc(16 * 1024);
  // The kernel's buffers take some megabytes first.
  await eventually(() => {
    for (let n = 0; n < AT_ONCE; n += 1) {
      if (!send(id, message)) return;
      assert.ok(bufferedAmount(id) > 0);
    }
    throw new Error('still queued');
  });
  assert.ok(stats().dropped.slowConsumer > before);
  assert.equal(bufferedAmount(id), 0, 'the socket is gone for all calls');
  assert.equal(await closes.next(), 1013);
});

test('a slow reader whose messages are dropped, and the drain that tells when it has caught up', async (t) => {
  const drained = new Inbox();
  const { server, ids } = serveWithIds(
    t,
    { handleSocketDrain: (socketId) => drained.push(socketId) },
    { maxBackpressure: 64 * 1024, slowConsumer: 'drop' },
  );
  const client = await connect(t, server);
  const id = await ids.next();
  client.pause();
  const before = stats().dropped.slowConsumer;
  let queued = 0;
  await eventually(() => {
    for (let n = 0; n < AT_ONCE; n += 1) {
      if (!send(id, Buffer.alloc(16 * 1024, queued % 256))) return;
      queued += 1;
    }
    throw new Error('still queued');
  });
  assert.equal(stats().dropped.slowConsumer, before + 1);
  // While the kernel took some, it had caught up now and then.
  await eventually(() => assert.equal(stats().workers[0].queuedEvents, 0));
  await drained.take(drained.length);
  assert.ok(bufferedAmount(id) > 32 * 1024);
  client.resume();
  assert.equal(await drained.next(), id);
  assert.equal(bufferedAmount(id), 0);
  assert.equal(send(id, 'caught up'), true);
  // Each queued message came once and in order, the dropped one never.
  for (let n = 0; n < queued; n += 1) assert.equal((await client.inbox.next())[0], n % 256);
  assert.equal(await client.inbox.next(), 'caught up');
});

test('a message over the limit closes with 1009', async (t) => {
  const { server } = serveWithIds(t, {}, { maxMessageSize: 100 });
  const client = await connect(t, server);
  client.send('x'.repeat(100));
  client.send('x'.repeat(101));
  assert.equal((await client.closed).code, 1009);
});

test('a socket that vanishes is closed by the heartbeat, with 1006', async (t) => {
  const closes = new Inbox();
  const { server } = serveWithIds(
    t,
    { handleSocketClose: (_id, _token, code) => closes.push(code) },
    { heartbeat: { interval: 50, timeout: 200 } },
  );
  const alive = await connect(t, server);
  const silent = await connect(t, server, { autoPong: false });
  const before = stats().dropped.heartbeatTimeouts;
  assert.equal(await closes.next(), 1006);
  await silent.closed;
  assert.equal(alive.readyState, alive.OPEN);
  assert.equal(stats().dropped.heartbeatTimeouts, before + 1);
});

test('plain requests and sockets live on the same port', async (t) => {
  const { server } = serveWithIds(t, { handleHttpRequest: () => ({ body: 'page' }) });
  const client = await connect(t, server);
  assert.equal((await request(server)).body, 'page');
  assert.equal(client.readyState, client.OPEN);
});
