// stop(): everybody is told, what does not end in time is cut, and nothing is left.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { test } from 'node:test';
import { channelCount, connectionCount, send, stats, subscribe } from 'wsbroker';
import { connect, listen, request, serve, throwsCode } from './helpers/serving.mjs';
import { deferred, eventually, Inbox, within } from './helpers/waiting.mjs';

test('every socket gets the close code and reason, and its close event comes', async (t) => {
  const closes = new Inbox();
  const server = serve(t, { handleSocketClose: (_id, _token, code, reason) => closes.push([code, reason]) });
  const clients = await Promise.all([1, 2, 3].map(() => connect(t, server)));
  const summary = await within(server.stop({ code: 4002, reason: 'neu gestartet' }), 'the stop');
  assert.deepEqual(summary, { closed: 3, forced: 0 });
  for (const client of clients) assert.deepEqual(await client.closed, { code: 4002, reason: 'neu gestartet' });
  assert.deepEqual(await closes.take(3), Array(3).fill([4002, 'neu gestartet']));
  assert.equal(connectionCount(), 0);
});

test('without options the code is 1001', async (t) => {
  const server = serve(t);
  const client = await connect(t, server);
  await server.stop();
  assert.deepEqual(await client.closed, { code: 1001, reason: '' });
});

test('afterwards the port is free', async (t) => {
  const server = serve(t, { handleHttpRequest: () => ({ body: 'first' }) });
  const { port } = server.address;
  assert.equal((await request(server)).body, 'first');
  await server.stop();
  await assert.rejects(fetch(`http://127.0.0.1:${port}/`));
  const second = listen({ bind: `127.0.0.1:${port}` });
  assert.equal((await request(second)).body, 'first');
  await second.stop();
  assert.equal(stats().listeners, 0);
});

test('a second stop gives the same promise', async (t) => {
  const server = serve(t);
  const first = server.stop();
  assert.equal(server.stop({ timeout: 1 }), first);
  assert.deepEqual(await first, { closed: 0, forced: 0 });
  assert.equal(server.stop(), first);
});

test('wrong options are refused, and the server goes on', async (t) => {
  const server = serve(t, { handleHttpRequest: () => ({ body: 'still here' }) });
  const wrong = [null, 7, { timeout: -1 }, { timeout: '1' }, { timeout: 2 ** 31 }, { code: 1005 }, { reason: 7 }];
  const spreads = [{ spread: -1 }, { spread: '1' }, { spread: 10_001 }, { spread: 101, timeout: 100 }];
  for (const options of [...wrong, ...spreads, { reason: 'é'.repeat(62) }, { timeOut: 1 }]) {
    throwsCode(() => server.stop(options), 'WSB_INVALID_ARGUMENT');
  }
  assert.equal((await request(server)).body, 'still here');
});

test('a request that is being handled is still answered', async (t) => {
  const asked = deferred();
  const answer = deferred();
  const server = serve(t, {
    handleHttpRequest() {
      asked.resolve();
      return answer.promise;
    },
  });
  const response = request(server);
  await within(asked.promise, 'the request');
  const stopped = server.stop();
  answer.resolve({ body: 'in time' });
  assert.equal((await response).body, 'in time');
  await within(stopped, 'the stop');
});

test('idle connections do not hold it up', async (t) => {
  const server = serve(t);
  const idle = net.connect(server.address).on('error', () => {}); // it may be reset
  t.after(() => idle.destroy());
  await once(idle, 'connect');
  const started = performance.now();
  await within(server.stop({ timeout: 10_000 }), 'the stop');
  assert.ok(performance.now() - started < 9000, 'it did not wait for the timeout');
});

test('a client that answers no close frame is cut after the timeout, and counted', async (t) => {
  const closes = new Inbox();
  const server = serve(t, { handleSocketClose: (_id, _token, code) => closes.push(code) }, { closeTimeout: 60_000 });
  const deaf = await connect(t, server);
  const polite = await connect(t, server);
  deaf.pause();
  assert.deepEqual(await within(server.stop({ timeout: 200 }), 'the stop'), { closed: 1, forced: 1 });
  assert.equal((await polite.closed).code, 1001);
  assert.equal((await closes.take(2)).length, 2);
  assert.equal(connectionCount(), 0);
});

test('a handler that never settles is cut after the timeout', async (t) => {
  const asked = deferred();
  const server = serve(t, {
    handleHttpRequest() {
      asked.resolve();
      return new Promise(() => {});
    },
  });
  const response = request(server).catch(() => 'cut');
  await within(asked.promise, 'the request');
  await within(server.stop({ timeout: 100 }), 'the stop');
  const outcome = await response;
  assert.ok(outcome === 'cut' || outcome.status >= 500, 'no answer is made up');
  await eventually(() => assert.equal(stats().pendingRequests, 0));
});

test('the other servers go on', async (t) => {
  const server = serve(t, { handleHttpRequest: () => ({ body: 'ok' }) });
  const other = listen();
  const client = await connect(t, server);
  const going = await connect(t, other);
  assert.deepEqual(await other.stop(), { closed: 1, forced: 0 });
  assert.equal((await going.closed).code, 1001);
  assert.equal(client.readyState, client.OPEN);
  assert.equal((await request(server)).body, 'ok');
});

test('a spread closes the sockets one after the other, and until its turn each goes on', async (t) => {
  const closes = new Inbox();
  const server = serve(t, {
    handleSocketMessage(data, socketId) {
      subscribe(socketId, 'late');
      send(socketId, data);
    },
    handleSocketClose: (_id, _token, code) => void closes.push(code),
  });
  const SOCKETS = 10;
  const SPREAD = 1000;
  const clients = [];
  for (let n = 0; n < SOCKETS; n += 1) clients.push(await connect(t, server));
  const began = performance.now();
  const stopped = server.stop({ spread: SPREAD, code: 1012 });
  await assert.rejects(connect(t, server), 'nobody else gets in');
  const told = clients.map((client) => client.closed.then(({ code }) => ({ code, at: performance.now() - began })));
  // As many as there are left talk, and are heard.
  let heard = 0;
  for (let left = clients; left.length > 0; ) {
    for (const client of left) client.send('still here?');
    const answers = left.map((client) => Promise.race([client.inbox.next(), client.closed]));
    heard += (await Promise.all(answers)).filter((answer) => answer === 'still here?').length;
    left = left.filter((client) => client.readyState === client.OPEN);
  }
  assert.ok(heard > SOCKETS, `${heard} answers`);
  const goodbyes = (await Promise.all(told)).sort((a, b) => a.at - b.at);
  goodbyes.forEach(({ code, at }, n) => {
    assert.equal(code, 1012);
    // Never early, but for the fractions of a millisecond that clocks leave out.
    assert.ok(at + 2 >= (SPREAD * n) / SOCKETS - SPREAD / SOCKETS, `goodbye ${n} after ${at} ms`);
  });
  assert.ok(goodbyes.at(-1).at >= SPREAD / 2, 'not all at once');
  assert.deepEqual(await within(stopped, 'the stop'), { closed: SOCKETS, forced: 0 });
  assert.deepEqual(await closes.take(SOCKETS), Array(SOCKETS).fill(1012));
  assert.deepEqual([connectionCount(), channelCount()], [0, 0]);
});

test('a spread does not keep a stop waiting for clients that have left', async (t) => {
  const server = serve(t);
  const clients = await Promise.all([1, 2, 3].map(() => connect(t, server)));
  const stopped = server.stop({ spread: 60_000, timeout: 60_000 });
  for (const client of clients) client.close();
  assert.deepEqual(await within(stopped, 'the stop'), { closed: 3, forced: 0 });
});

test('sockets that came while it was stopping are not left behind', async (t) => {
  const server = serve(t);
  const clients = Array.from({ length: 20 }, () => connect(t, server).catch(() => undefined));
  const summary = await within(server.stop(), 'the stop');
  assert.ok(summary.closed <= 20);
  // Refused, closed or never accepted: whatever became of a client, the broker holds none.
  const opened = (await Promise.all(clients)).filter(Boolean);
  for (const client of opened) await within(client.closed, 'a client that got in is closed');
  await eventually(() => assert.equal(connectionCount(), 0));
});
