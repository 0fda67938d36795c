// `handlerTimeout`: a handler that hangs costs its socket, and nothing else.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { createConnection } from 'node:net';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { close, connectionCount, registerWorkerThread, send, stats, WsBrokerError } from 'wsbroker';
import { connect, listen, serve } from './helpers/serving.mjs';
import { startThreads } from './helpers/threads.mjs';
import { deferred, eventually, Inbox, within } from './helpers/waiting.mjs';

const { Deadlines } = createRequire(import.meta.url)('../lib/deadlines.cjs');

const hang = () => new Promise(() => {});

/** A worker whose message handler does what `behave` says; `errors` and `closes` have what came of it. */
function watched(behave, more = {}) {
  const errors = new Inbox();
  const closes = new Inbox();
  const handlers = {
    errors,
    closes,
    handleSocketMessage: behave,
    handleSocketClose: (socketId, _token, code, reason) => void closes.push({ socketId, code, reason }),
    handleError: (error, context) => void errors.push({ error, context }),
    ...more,
  };
  return handlers;
}

function grown() {
  const before = stats().dropped;
  return (name) => stats().dropped[name] - before[name];
}

test('a handler that hangs: 1011, an error, the close event, and what waited is counted', async (t) => {
  const opened = new Inbox();
  const handled = new Inbox();
  const handlers = watched(
    (data) => {
      handled.push(data);
      return data === 'hang' ? hang() : undefined;
    },
    { handleSocketOpen: (socketId) => void opened.push(socketId) },
  );
  const server = serve(t, handlers, { handlerTimeout: 100 });
  const count = grown();
  const client = await connect(t, server);
  const socketId = await opened.next();
  for (const data of ['before', 'hang', 'behind it', 'and more', 'and more']) client.send(data);
  const expected = { code: 1011, reason: 'handler timed out' };
  assert.deepEqual(await within(client.closed, 'the close'), expected);
  const { error, context } = await handlers.errors.next();
  assert.ok(error instanceof WsBrokerError);
  assert.equal(error.code, 'WSB_HANDLER_TIMEOUT');
  assert.equal(error.message, 'handleSocketMessage did not settle within handlerTimeout, 100 ms');
  assert.deepEqual(context, { handler: 'handleSocketMessage', socketId });
  assert.deepEqual(await handlers.closes.next(), { socketId, ...expected });
  assert.deepEqual(await handled.take(2), ['before', 'hang']);
  assert.equal(handled.length, 0);
  assert.deepEqual(['handlerTimeouts', 'handlerTimeoutMessages'].map(count), [1, 3]);
  assert.equal(handlers.errors.length + handlers.closes.length, 0, 'told once');
});

test('messages that come while the socket is being closed are counted too', async (t) => {
  const handled = new Inbox();
  const handlers = watched((data) => {
    handled.push(data);
    return hang();
  });
  const server = serve(t, handlers, { handlerTimeout: 50, closeTimeout: 200 });
  const count = grown();
  const client = await connect(t, server);
  const before = stats().messagesIn;
  // Until the broker says goodbye, and beyond: whatever it still reads belongs to nobody.
  const timer = setInterval(() => client.send('again'), 1);
  t.after(() => clearInterval(timer));
  assert.equal((await handlers.closes.next()).code, 1011);
  clearInterval(timer);
  assert.equal(handled.length, 1);
  assert.equal(count('handlerTimeoutMessages'), stats().messagesIn - before - 1, 'each is handled or counted');
});

test('a promise that settles later does no harm, and its error is told', async (t) => {
  const late = deferred();
  const handlers = watched(() => late.promise);
  const server = serve(t, handlers, { handlerTimeout: 50 });
  const client = await connect(t, server);
  client.send('hang');
  await handlers.closes.next();
  await handlers.errors.next();
  late.reject(new Error('much too late'));
  assert.equal((await handlers.errors.next()).error.message, 'much too late');
  // The worker is as good as ever.
  const other = await connect(t, server);
  other.close(4000);
  assert.equal((await handlers.closes.next()).code, 4000);
});

test('one that settles in time, and one that blocks, are left alone', async (t) => {
  const done = new Inbox();
  const handlers = watched(async (data) => {
    if (data === 'block') {
      const until = performance.now() + 400;
      while (performance.now() < until);
    } else {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    done.push(data);
  });
  const server = serve(t, handlers, { handlerTimeout: 250 });
  const clients = [await connect(t, server), await connect(t, server)];
  // While the second one blocks the thread, the promise of the first cannot settle: that is not its fault.
  clients[0].send('settle');
  await eventually(() => assert.equal(stats().workers[0].queuedEvents, 0));
  clients[1].send('block');
  assert.deepEqual((await done.take(2)).sort(), ['block', 'settle']);
  for (const client of clients) assert.equal(client.readyState, client.OPEN);
  assert.equal(handlers.errors.length, 0);
});

/** What answers each message on its connections after 50 ms, in another thread. */
async function database(t) {
  const service = `
    const { createServer } = require('node:net');
    const { parentPort } = require('node:worker_threads');
    const server = createServer((socket) => socket.on('data', () => setTimeout(() => socket.write('row'), 50)));
    server.listen(0, '127.0.0.1', () => parentPort.postMessage(server.address().port));`;
  const thread = new Worker(service, { eval: true });
  t.after(() => thread.terminate());
  const [port] = await within(once(thread, 'message'), 'the database');
  const socket = createConnection(port, '127.0.0.1');
  t.after(() => socket.destroy());
  await within(once(socket, 'connect'), 'the database');
  return async () => {
    socket.write('query');
    await once(socket, 'data');
  };
}

function block(ms) {
  const until = performance.now() + ms;
  while (performance.now() < until);
}

test('an answer that came while the thread was blocked beyond the deadline counts', async (t) => {
  const query = await database(t);
  const asked = new Inbox();
  const done = new Inbox();
  const handlers = watched(async (queries) => {
    for (let n = 0; n < Number(queries); n += 1) {
      const answer = query();
      asked.push(n);
      await answer;
    }
    done.push(queries);
  });
  const server = serve(t, handlers, { handlerTimeout: 1000 });
  const client = await connect(t, server);
  for (const queries of ['1', '3']) {
    client.send(queries);
    await asked.next();
    block(1500);
    assert.equal(await Promise.race([done.next(), client.closed]), queries);
    await asked.take(asked.length);
  }
  assert.equal(client.readyState, client.OPEN);
});

test('a handler that hangs in a thread that is always late is given up', async (t) => {
  const handlers = watched(hang);
  const server = serve(t, handlers, { handlerTimeout: 250 });
  const client = await connect(t, server);
  client.send('hang');
  let isOver = false;
  t.after(() => {
    isOver = true;
  });
  const lag = () => {
    block(150);
    if (!isOver) setImmediate(lag);
  };
  lag();
  assert.equal((await handlers.errors.next()).error.code, 'WSB_HANDLER_TIMEOUT');
  assert.equal((await handlers.closes.next()).code, 1011);
});

test('an open handler that hangs: no message is handled', async (t) => {
  const handled = new Inbox();
  const handlers = watched((data) => void handled.push(data), { handleSocketOpen: hang });
  const server = serve(t, handlers, { handlerTimeout: 50 });
  const client = await connect(t, server);
  client.send('hello?');
  assert.equal((await within(client.closed, 'the close')).code, 1011);
  assert.equal((await handlers.errors.next()).context.handler, 'handleSocketOpen');
  assert.equal((await handlers.closes.next()).code, 1011);
  assert.equal(handled.length, 0);
});

test('a drain handler that hangs', async (t) => {
  const opened = new Inbox();
  const handlers = watched(undefined, {
    handleSocketOpen: (socketId) => void opened.push(socketId),
    handleSocketDrain: hang,
  });
  const server = serve(t, handlers, { handlerTimeout: 50, maxBackpressure: 1 << 20 });
  const client = await connect(t, server);
  const socketId = await opened.next();
  for (let n = 0; n < 6; n += 1) send(socketId, Buffer.alloc(150_000));
  assert.equal((await handlers.errors.next()).context.handler, 'handleSocketDrain');
  assert.equal((await within(client.closed, 'the close')).code, 1011);
});

test('of a close handler that hangs it is told, and the worker can leave all the same', async (t) => {
  const handlers = watched(() => {}, { handleSocketClose: hang });
  const registration = registerWorkerThread(handlers);
  const server = listen({ handlerTimeout: 50 });
  t.after(() => registration.unregister());
  t.after(() => server.stop());
  const count = grown();
  const client = await connect(t, server);
  client.close();
  assert.deepEqual((await handlers.errors.next()).context.handler, 'handleSocketClose');
  assert.equal(count('handlerTimeouts'), 1);
  assert.equal(count('handlerTimeoutMessages'), 0);
  await server.stop();
  registration.unregister();
  await eventually(() => assert.deepEqual(stats().workers, []));
});

test('a client that left meanwhile: its close event comes with its own code', async (t) => {
  const began = deferred();
  const handlers = watched(() => {
    began.resolve();
    return hang();
  });
  const server = serve(t, handlers, { handlerTimeout: 300 });
  const client = await connect(t, server);
  client.send('hang');
  await began.promise;
  client.close(4001, 'tired of waiting');
  assert.deepEqual(await handlers.closes.next().then(({ code, reason }) => [code, reason]), [4001, 'tired of waiting']);
  assert.equal((await handlers.errors.next()).error.code, 'WSB_HANDLER_TIMEOUT');
});

test('a socket that was closed by its own handler, which then hangs', async (t) => {
  const handlers = watched((_data, socketId) => {
    close(socketId, 4002);
    return hang();
  });
  const server = serve(t, handlers, { handlerTimeout: 100 });
  const client = await connect(t, server);
  client.send('hang');
  assert.equal((await within(client.closed, 'the close')).code, 4002);
  assert.equal((await handlers.closes.next()).code, 4002);
});

test('each server has its own time, and without one a handler may take for ever', async (t) => {
  const handlers = watched(() => hang());
  const patient = serve(t, handlers);
  const quick = listen({ handlerTimeout: 50 });
  const slow = listen({ handlerTimeout: 200 });
  const clients = [await connect(t, patient), await connect(t, slow), await connect(t, quick)];
  for (const client of clients) client.send('hang');
  const told = (await handlers.errors.take(2)).map(({ error }) => error.message.match(/(\d+) ms/)[1]);
  assert.deepEqual(told.sort(), ['200', '50']);
  // An error is told before the close event comes.
  await handlers.closes.take(2);
  assert.equal(clients[0].readyState, clients[0].OPEN);
  assert.equal(connectionCount(), 1);
  clients[0].terminate();
  await patient.stop({ timeout: 0 });
  // Its close event waits behind the promise: nobody but a timeout can take it from there.
  assert.equal(handlers.closes.length, 0);
});

test('many at once, on four threads: each socket is told of exactly once', async (t) => {
  const threads = await startThreads(t, 4);
  const server = listen({ handlerTimeout: 200 });
  const count = grown();
  const clients = [];
  for (let n = 0; n < 40; n += 1) clients.push(await connect(t, server));
  for (const client of clients) {
    client.send('hang');
    client.send('who');
  }
  for (const client of clients) assert.equal((await within(client.closed, 'the close')).code, 1011);
  for (const thread of threads) {
    await thread.told('close', 10);
    const closes = thread.of('close');
    assert.equal(new Set(closes.map(([socketId]) => socketId)).size, 10);
    for (const [, code] of closes) assert.equal(code, 1011);
  }
  assert.deepEqual(['handlerTimeouts', 'handlerTimeoutMessages'].map(count), [40, 40]);
});

test('a worker that unregistered lets go of a socket whose handler hangs', async (t) => {
  const began = deferred();
  const handlers = watched((_data, socketId) => {
    began.resolve(socketId);
    return hang();
  });
  const registration = registerWorkerThread(handlers);
  t.after(() => registration.unregister());
  const [thread] = await startThreads(t, 1);
  const server = listen({ handlerTimeout: 1000 });
  // One for the main thread, which hangs, and one for the other, which answers.
  const clients = [await connect(t, server), await connect(t, server)];
  for (const client of clients) client.send('who');
  const socketId = await began.promise;
  registration.unregister();
  const { code } = await within(Promise.race(clients.map(({ closed }) => closed)), 'the close');
  assert.equal(code, 1011);
  assert.equal((await handlers.errors.next()).error.code, 'WSB_HANDLER_TIMEOUT');
  assert.deepEqual(await thread.told('close'), [socketId, 1011]);
  assert.equal(handlers.closes.length, 0, 'the other thread was told of it');
});

/** Looks as often as it is due, and says when something was taken: [[time, ids], …]. */
function watch(deadlines, from, until) {
  const taken = [];
  for (let now = from; now <= until; now += Math.max(deadlines.wait(now) ?? until, 1)) {
    const ids = deadlines.look(now);
    if (ids.length > 0) taken.push([now, ids]);
  }
  return taken;
}

test('deadlines come in their order, whatever the times that they were set with', () => {
  const deadlines = new Deadlines();
  assert.equal(deadlines.wait(0), undefined);
  deadlines.set(1, 100, 0);
  deadlines.set(2, 50, 10);
  deadlines.set(3, 100, 20);
  deadlines.set(4, 50, 30);
  deadlines.clear(4, 50);
  // A millisecond more, for whatever has arrived.
  assert.deepEqual(watch(deadlines, 30, 110), [
    [61, [2]],
    [101, [1]],
  ]);
  // Busy again after it was done: the later deadline counts, in its place.
  deadlines.set(1, 100, 115);
  assert.deepEqual(watch(deadlines, 115, 1000), [
    [121, [3]],
    [216, [1]],
  ]);
  assert.equal(deadlines.wait(1000), undefined);
});

test('time in which nobody was busy, and time in which the thread did not run, is not held against a handler', () => {
  const deadlines = new Deadlines();
  deadlines.set(1, 500, 1_000_000);
  assert.deepEqual(deadlines.look(1_000_020), []);
  // A tenth of a second of the next ten is counted.
  assert.deepEqual(deadlines.look(1_010_020), []);
  assert.deepEqual(watch(deadlines, 1_010_020, 1_020_000), [[1_010_401, [1]]]);
});

test('a deadline that has passed decides at the next look', () => {
  const deadlines = new Deadlines();
  deadlines.set(1, 50, 0);
  deadlines.set(2, 50, 0);
  assert.deepEqual(deadlines.look(10_000), []);
  assert.equal(deadlines.wait(10_000), 0);
  deadlines.clear(1, 50); // its answer had come
  assert.deepEqual(deadlines.look(10_001), [2]);
});

test('in a thread that always comes late handlers end all the same', () => {
  const deadlines = new Deadlines();
  deadlines.set(1, 1000, 0);
  let looks = 0;
  while (deadlines.look(looks * 5000).length === 0) looks += 1;
  assert.equal(looks, 11);
});
