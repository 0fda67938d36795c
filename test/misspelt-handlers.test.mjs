// What an application misspells is told: a handler that nobody would call, a field that nobody reads.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { registerWorkerThread, stats } from 'wsbroker';
import { connect, refusal, request, serve, throwsCode } from './helpers/serving.mjs';
import { Inbox } from './helpers/waiting.mjs';

const noop = () => {};

test('a misspelt handler is refused, with the name that was meant', () => {
  const meant = {
    handleSocketMesage: 'handleSocketMessage',
    handleSocketmessage: 'handleSocketMessage',
    handlesocketclose: 'handleSocketClose',
    handleHTTPRequest: 'handleHttpRequest',
    handleSocketUpgrades: 'handleSocketUpgrade',
    handelSocketOpen: 'handleSocketOpen',
    handleErrors: 'handleError',
  };
  for (const [name, right] of Object.entries(meant)) {
    const others = { handleSocketDrain: noop, [name]: noop };
    const error = throwsCode(() => registerWorkerThread(others), 'WSB_INVALID_ARGUMENT');
    assert.match(error.message, new RegExp(`^worker: there is no "${name}"; .*did you mean '${right}'\\?$`));
  }
  class Chat {
    handleSocketOpen() {}
    handleSocketMesage() {}
  }
  class Sub extends Chat {}
  for (const worker of [new Chat(), new Sub(), Object.create(new Chat())]) {
    throwsCode(() => registerWorkerThread(worker), 'WSB_INVALID_ARGUMENT');
  }
  assert.deepEqual(stats().workers, [], 'nothing is registered by a refused call');
});

test('an object without any handler is refused when it has what was meant as one', () => {
  for (const name of ['handleMessage', 'handleRequest', 'onMessage', 'onSocketClose']) {
    const error = throwsCode(() => registerWorkerThread({ [name]: noop }), 'WSB_INVALID_ARGUMENT');
    assert.match(error.message, new RegExp(`^worker: there is no "${name}"; expected handleHttpRequest, `));
  }
});

test('an application may have what it likes beside its handlers', () => {
  class Chat {
    rooms = new Map();
    handleTimeout = 5000;
    handleSocketMesage = undefined;
    #secret = 1;
    get handleOfEverything() {
      throw new Error('nobody asks for it');
    }
    handleSocketMessage(data) {
      return this.handleMessage(data);
    }
    handleMessage() {
      return this.#secret;
    }
    handleMessages() {}
    handleSocketMessages() {}
    handleJoin() {}
    handleLogin() {}
    handleSocketPing() {}
    handleSocketUpdate() {}
    onMessage() {}
    on() {}
    static handleSocketClos() {}
  }
  const workers = [
    {},
    { once: noop, handler: noop, on: noop },
    new Chat(),
    Object.assign(Object.create(null), { a: 1 }),
  ];
  for (const worker of workers) registerWorkerThread(worker).unregister();
});

test('a field of an answer that nobody reads is told once, and the answer is sent', async (t) => {
  const errors = new Inbox();
  const server = serve(t, {
    handleHttpRequest: () => ({ sttatus: 404, body: 'hello', contentType: 'text/html' }),
    handleError: (error, { handler, request: failed }) => errors.push([error.code, handler, failed.url, error.message]),
  });
  for (let count = 0; count < 3; count += 1) {
    const { status, body } = await request(server, `/${count}`);
    assert.deepEqual([status, body], [200, 'hello']);
  }
  const told = await errors.take(2);
  for (const [code, handler, url] of told) {
    assert.deepEqual([code, handler, url], ['WSB_INVALID_ARGUMENT', 'handleHttpRequest', '/0']);
  }
  const [[, , , first], [, , , second]] = told;
  assert.equal(
    first,
    'what handleHttpRequest returned was sent without "sttatus": there is no "sttatus"; expected status, headers, body; ' +
      "did you mean 'status'?",
  );
  assert.match(second, /without "contentType"/);
  assert.equal(errors.length, 0, 'each is told once');
});

test('what a refusal has of an acceptance is told, and it refuses', async (t) => {
  const errors = new Inbox();
  const server = serve(t, {
    handleSocketUpgrade: ({ path }) =>
      path === '/in' ? { tokn: 'me' } : { status: 401, channels: ['lobby'], token: 'me' },
    handleHttpRequest: () => ({ channels: [] }),
    handleError: (error, { handler }) => errors.push([handler, error.message]),
  });
  for (let count = 0; count < 2; count += 1) assert.equal((await refusal(t, server)).status, 401);
  const [[handler, channels], [, token]] = await errors.take(2);
  assert.equal(handler, 'handleSocketUpgrade');
  assert.match(channels, /^what handleSocketUpgrade returned was sent without "channels"/);
  assert.match(token, /^what handleSocketUpgrade returned was sent without "token"/);

  // Each handler for itself.
  await request(server);
  assert.match((await errors.next())[1], /^what handleHttpRequest returned was sent without "channels"/);

  // A misspelt token would let somebody in without it.
  assert.equal((await refusal(t, server, { path: '/in' })).status, 500);
  assert.match((await errors.next())[1], /^decision: there is no "tokn".*did you mean 'token'\?$/);
  assert.equal(errors.length, 0);
});

test('an answer of a class is one, whatever its class has', async (t) => {
  const errors = [];
  class Page {
    status = 201;
    body = 'page';
    send() {}
    get length() {
      return 4;
    }
  }
  function Old() {
    this.body = 'old';
  }
  Old.prototype.send = noop;
  const server = serve(t, {
    handleHttpRequest: ({ path }) => (path === '/old' ? new Old() : new Page()),
    handleError: (error) => errors.push(error),
  });
  assert.equal((await request(server)).body, 'page');
  assert.equal((await request(server, '/old')).body, 'old');
  await connect(t, server);
  assert.deepEqual(errors, []);
});

test('an application that makes field names of what comes is not told for ever', async (t) => {
  const errors = [];
  const server = serve(t, {
    handleHttpRequest: ({ query }) => ({ [query]: 1 }),
    handleError: (error) => errors.push(error),
  });
  for (let count = 0; count < 100; count += 1) await request(server, `/?${count}`);
  assert.equal(errors.length, 64);
});
