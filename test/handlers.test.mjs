// How handlers are called: as methods, in order, with what, and what becomes of their errors.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { registerWorkerThread, send, stats } from 'wsbroker';
import { connect, request, serve, throwsCode } from './helpers/serving.mjs';
import { deferred, Inbox, within } from './helpers/waiting.mjs';

test('handlers are methods of the registered object', async (t) => {
  class Counter {
    #calls = new Inbox();
    get calls() {
      return this.#calls;
    }
    handleHttpRequest() {
      this.#calls.push('request');
    }
    async handleSocketUpgrade() {
      this.#calls.push('upgrade');
      return true;
    }
    handleSocketOpen() {
      this.#calls.push('open');
    }
    handleSocketMessage() {
      this.#calls.push('message');
    }
    handleSocketClose() {
      this.#calls.push('close');
      throw new Error('on purpose');
    }
    handleError(error) {
      this.#calls.push(`error ${error.message}`);
    }
  }
  const worker = new Counter();
  const server = serve(t, worker);
  await request(server);
  const client = await connect(t, server);
  client.send('hello');
  client.close();
  const expected = ['request', 'upgrade', 'open', 'message', 'close', 'error on purpose'];
  assert.deepEqual(await worker.calls.take(expected.length), expected);
});

test('a socket opens, says things and closes, each told once and in this order', async (t) => {
  const events = new Inbox();
  const server = serve(t, {
    handleSocketOpen: (...args) => events.push(['open', ...args]),
    handleSocketMessage: (...args) => events.push(['message', ...args]),
    handleSocketClose: (...args) => events.push(['close', ...args]),
  });
  const client = await connect(t, server, { path: '/room?x=1' });
  client.send('text');
  client.send('ünïcödé €𝄞');
  client.send('');
  client.send(Buffer.from([1, 2, 3]));
  client.close(4001, 'färewell');

  const [[, socketId, opened, token], ...rest] = await events.take(6);
  assert.ok(Number.isSafeInteger(socketId) && socketId > 0);
  assert.equal(opened.url, '/room?x=1');
  assert.equal(token, undefined);
  assert.deepEqual(rest, [
    ['message', 'text', socketId, undefined],
    ['message', 'ünïcödé €𝄞', socketId, undefined],
    ['message', '', socketId, undefined],
    ['message', Buffer.from([1, 2, 3]), socketId, undefined],
    ['close', socketId, undefined, 4001, 'färewell'],
  ]);
  assert.equal(events.length, 0);
});

test('a client that closes without a code, and one that vanishes', async (t) => {
  const closes = new Inbox();
  const server = serve(t, { handleSocketClose: (_id, _token, code, reason) => closes.push([code, reason]) });
  (await connect(t, server)).close();
  assert.deepEqual(await closes.next(), [1005, '']);
  (await connect(t, server)).terminate();
  assert.deepEqual(await closes.next(), [1006, '']);
});

test('no handler is needed', async (t) => {
  const server = serve(t, {});
  const client = await connect(t, server);
  client.send('to nobody');
  client.close(1000);
  assert.deepEqual(await client.closed, { code: 1000, reason: '' });
});

test('a thread is not brought open events that it has no handler for', async (t) => {
  for (const handleSocketOpen of [undefined, () => {}]) {
    await t.test(handleSocketOpen === undefined ? 'without' : 'with', async (t) => {
      const server = serve(t, { handleSocketOpen, handleSocketMessage: (data, id) => send(id, data) });
      const client = await connect(t, server);
      client.send('hello');
      assert.equal(await client.inbox.next(), 'hello');
      assert.equal(stats().workers[0].events, handleSocketOpen === undefined ? 1 : 2);
    });
  }
});

test('a handler may be replaced while the server runs', async (t) => {
  const handlers = { handleSocketMessage: (_data, socketId) => send(socketId, 'first') };
  const client = await connect(t, serve(t, handlers));
  client.send('?');
  assert.equal(await client.inbox.next(), 'first');
  handlers.handleSocketMessage = (_data, socketId) => send(socketId, 'second');
  client.send('?');
  assert.equal(await client.inbox.next(), 'second');
});

test('data that is kept stays what it was', async (t) => {
  const kept = [];
  const done = deferred();
  const server = serve(t, {
    handleSocketMessage(data) {
      kept.push(data);
      if (kept.length === 2000) done.resolve();
    },
  });
  const client = await connect(t, server);
  for (let n = 0; n < 2000; n += 1) client.send(Buffer.from(`message ${n}`));
  await within(done.promise, 'all messages');
  globalThis.gc?.();
  for (const [n, data] of kept.entries()) assert.equal(data.toString(), `message ${n}`);
});

test('errors of handlers go to handleError, and everything goes on', async (t) => {
  const errors = new Inbox();
  const thrown = { open: new Error('open'), message: 'no Error at all', rejected: new TypeError('later') };
  const server = serve(t, {
    handleSocketOpen() {
      throw thrown.open;
    },
    async handleSocketMessage(data, socketId) {
      send(socketId, data);
      if (data === 'reject') throw thrown.rejected;
    },
    handleSocketClose() {
      throw thrown.message;
    },
    handleError: (error, context) => errors.push([error, context]),
  });
  const client = await connect(t, server);
  const [open, { socketId, ...openContext }] = await errors.next();
  assert.equal(open, thrown.open);
  assert.deepEqual(openContext, { handler: 'handleSocketOpen' });

  client.send('reject');
  client.send('still here');
  assert.deepEqual(await client.inbox.take(2), ['reject', 'still here']);
  assert.deepEqual(await errors.next(), [thrown.rejected, { handler: 'handleSocketMessage', socketId }]);
  client.close();
  assert.deepEqual(await errors.next(), [thrown.message, { handler: 'handleSocketClose', socketId }]);
});

test('an error of a request is told with the request', async (t) => {
  const errors = new Inbox();
  const server = serve(t, {
    handleHttpRequest() {
      throw new RangeError('out of range');
    },
    handleError: (...args) => errors.push(args),
  });
  assert.equal((await request(server, '/where')).status, 500);
  const [error, context] = await errors.next();
  assert.equal(error.message, 'out of range');
  assert.equal(context.handler, 'handleHttpRequest');
  assert.equal(context.request.path, '/where');
});

test('a thread registers once', (t) => {
  const registration = registerWorkerThread({});
  t.after(() => registration.unregister());
  const error = throwsCode(() => registerWorkerThread({}), 'WSB_ALREADY_REGISTERED');
  assert.match(error.message, /unregister\(\)/);
  registration.unregister();
  registration.unregister();
  registerWorkerThread({}).unregister();
});

test('a promise that is no native one, and one that lies about being one', async (t) => {
  const thenable = (value) => ({
    // biome-ignore lint/suspicious/noThenProperty: what is tested
    then: (resolve) => setImmediate(resolve, value),
  });
  const server = serve(t, {
    handleHttpRequest: ({ path }) => (path === '/thenable' ? thenable({ body: 'later' }) : trap),
    handleSocketMessage: (data, socketId) => thenable(send(socketId, data)),
  });
  const trap = {
    // biome-ignore lint/suspicious/noThenProperty: what is tested
    get then() {
      throw new Error('trap');
    },
  };
  assert.equal((await request(server, '/thenable')).body, 'later');
  assert.equal((await request(server, '/trap')).status, 500);
  const client = await connect(t, server);
  client.send('1');
  client.send('2');
  assert.deepEqual(await client.inbox.take(2), ['1', '2']);
});

test('timers and requests of the application run while messages pour in', async (t) => {
  let handled = 0;
  const server = serve(t, {
    handleSocketMessage() {
      handled += 1;
    },
    handleHttpRequest: () => ({ body: String(handled) }),
  });
  const client = await connect(t, server);
  let pouring = true;
  const pour = () => {
    for (let n = 0; n < 500; n += 1) client.send('drop');
    if (pouring) setImmediate(pour);
  };
  pour();
  for (let n = 0; n < 3; n += 1) {
    await within(new Promise((resolve) => setTimeout(resolve, 1)), 'a timer');
    assert.equal((await request(server)).status, 200);
  }
  pouring = false;
});

test('without handleError an error goes to stderr with its stack, and so does an error of handleError', async () => {
  const program = `
    import { registerWorkerThread, start } from 'wsbroker';
    const fails = { handleHttpRequest({ path }) { throw new Error('broken ' + path); } };
    let registration = registerWorkerThread(fails);
    const server = start({ bind: '127.0.0.1:0' });
    const url = 'http://127.0.0.1:' + server.address.port;
    console.log((await fetch(url + '/first')).status);
    registration.unregister();
    registerWorkerThread({ ...fails, handleError() { throw new Error('twice'); } });
    console.log((await fetch(url + '/second')).status);
    registration = undefined;
    server.stop();
  `;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', program], { cwd: import.meta.dirname });
  const [stdout, stderr] = await within(Promise.all([text(child.stdout), text(child.stderr)]), 'the program ends');
  assert.equal(stdout, '500\n500\n', stderr);
  assert.match(stderr, /wsbroker: handleHttpRequest failed: Error: broken \/first\n\s+at .*handleHttpRequest/);
  assert.match(stderr, /wsbroker: handleHttpRequest failed: Error: broken \/second\n\s+at /);
  assert.match(stderr, /wsbroker: handleError failed as well: Error: twice\n\s+at /);
});
