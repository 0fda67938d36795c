// Arguments that say something else than they are: bytes with other memory, getters that change their mind, proxies that throw.
// What is taken is what was checked, and what cannot be is refused by name.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  broadcast,
  getToken,
  registerWorkerThread,
  send,
  sendToChannel,
  setMessageRoute,
  setToken,
  start,
  subscribe,
} from 'wsbroker';
import { connect, listen, refusal, request, serve, throwsCode } from './helpers/serving.mjs';
import { deferred, Inbox } from './helpers/waiting.mjs';

/** A client, its socket, and what it is sent. */
async function opened(t) {
  const id = deferred();
  const client = await connect(t, serve(t, { handleSocketOpen: id.resolve }));
  return { client, id: await id.promise };
}

/** The same views with properties of their own over those of their kind. */
const LIES = {
  'a property': (view, name, value) => Object.defineProperty(view, name, { value }),
  'a getter': (view, name, value) => Object.defineProperty(view, name, { get: () => value }),
  'a subclass': (view, name, value) => {
    const prototype = Object.create(Object.getPrototypeOf(view), { [name]: { get: () => value } });
    return Object.setPrototypeOf(view, prototype);
  },
};

const foreign = new TextEncoder().encode('what nobody is to see').buffer;

for (const [how, lie] of Object.entries(LIES)) {
  test(`bytes are those of the view, whatever ${how} says of it`, async (t) => {
    const { client, id } = await opened(t);
    const wrong = { buffer: foreign, byteOffset: 1, byteLength: 21, length: 21 };
    for (const [name, value] of Object.entries(wrong)) {
      const views = [
        Uint8Array.of(1, 2, 3, 4),
        Buffer.from([1, 2, 3, 4]),
        new Int8Array([1, 2, 3, 4]),
        new DataView(Uint8Array.of(1, 2, 3, 4).buffer),
        Uint8Array.of(0, 1, 2, 3, 4, 5).subarray(1, 5),
        Uint8Array.of(1, 2, 3, 4).buffer,
      ];
      for (const view of views) {
        assert.equal(send(id, lie(view, name, value)), true);
        assert.deepEqual(await client.inbox.next(), Buffer.from([1, 2, 3, 4]), name);
      }
    }
  });

  test(`a channel name and a token have the length of their bytes, whatever ${how} says of it`, async (t) => {
    const { id } = await opened(t);
    for (const name of ['length', 'byteLength']) {
      throwsCode(() => subscribe(id, lie(Buffer.alloc(0), name, 5)), 'WSB_INVALID_ARGUMENT');
      throwsCode(() => subscribe(id, lie(Buffer.alloc(513), name, 5)), 'WSB_INVALID_ARGUMENT');
      throwsCode(() => setToken(id, lie(Buffer.alloc(65_537), name, 5)), 'WSB_INVALID_ARGUMENT');
      assert.equal(setToken(id, lie(Buffer.from('token'), name, 65_537)), true);
      assert.equal(String(getToken(id)), 'token');
    }
  });

  test(`shared memory is copied before it is read, whatever ${how} says of it`, async (t) => {
    const { client, id } = await opened(t);
    const shared = new Uint8Array(new SharedArrayBuffer(4)).fill(7);
    lie(shared, 'buffer', new ArrayBuffer(4));
    const disguised = Object.setPrototypeOf(new SharedArrayBuffer(4), ArrayBuffer.prototype);
    // What Rust reads must be no memory that another thread writes to. The copy is seen by who gets the argument.
    const { bytesOf } = await import('../lib/bytes.cjs');
    for (const data of [shared, disguised, new Uint8Array(disguised), new DataView(disguised)]) {
      const { buffer } = new Uint8Array(bytesOf(data).buffer);
      assert.equal(Object.prototype.toString.call(buffer), '[object ArrayBuffer]');
      assert.notEqual(bytesOf(data).buffer, disguised);
    }
    send(id, shared);
    assert.deepEqual(await client.inbox.next(), Buffer.alloc(4, 7));
    send(id, disguised);
    assert.deepEqual(await client.inbox.next(), Buffer.alloc(4));
  });
}

test('what is transferred, or no longer within its buffer, is refused and told so', () => {
  const transferred = (value, buffer = value) => {
    structuredClone(buffer, { transfer: [buffer] });
    return value;
  };
  const cut = (Kind) => {
    const buffer = new ArrayBuffer(16, { maxByteLength: 32 });
    const view = new Kind(buffer, 8, 1);
    buffer.resize(4);
    return view;
  };
  const views = [Uint8Array, DataView, Float64Array].map((Kind) => new Kind(new ArrayBuffer(8)));
  const gone = [
    transferred(new ArrayBuffer(8)),
    ...views.map((view) => transferred(view, view.buffer)),
    ...[Uint8Array, DataView, Float64Array].map(cut),
  ];
  for (const data of gone) {
    for (const call of [() => send(1, data), () => broadcast(data), () => sendToChannel('room', data)]) {
      assert.match(
        throwsCode(call, 'WSB_INVALID_ARGUMENT').message,
        /^data: .+ whose memory was transferred or cut off/,
      );
    }
    const error = throwsCode(() => subscribe(1, data), 'WSB_INVALID_ARGUMENT');
    assert.match(error.message, /^channel: .+ whose memory was transferred or cut off/);
    throwsCode(() => setToken(1, data), 'WSB_INVALID_ARGUMENT');
  }
});

test('buffers that can change their size are sent as they are now', async (t) => {
  const { client, id } = await opened(t);
  const resizable = new ArrayBuffer(4, { maxByteLength: 16 });
  const growable = new SharedArrayBuffer(4, { maxByteLength: 16 });
  const views = [resizable, growable].flatMap((buffer) => [buffer, new Uint8Array(buffer), new DataView(buffer)]);
  const sent = async () => {
    for (const view of views) send(id, view);
    const messages = await client.inbox.take(views.length);
    return messages.map(({ length }) => length);
  };
  assert.deepEqual(await sent(), [4, 4, 4, 4, 4, 4]);
  resizable.resize(8);
  growable.grow(8);
  assert.deepEqual(await sent(), [8, 8, 8, 8, 8, 8]);
  resizable.resize(0);
  assert.deepEqual(await sent(), [0, 0, 0, 8, 8, 8]);
});

test('what only says that it is a buffer is none', () => {
  const names = ['ArrayBuffer', 'SharedArrayBuffer', 'Uint8Array', 'DataView'];
  for (const name of names) {
    const liar = { [Symbol.toStringTag]: name, byteLength: 3, byteOffset: 0, buffer: foreign, length: 3, 0: 1 };
    throwsCode(() => send(1, liar), 'WSB_INVALID_ARGUMENT');
    const heir = Object.create(globalThis[name].prototype);
    throwsCode(() => send(1, heir), 'WSB_INVALID_ARGUMENT');
  }
  for (const target of [new Uint8Array(3), new ArrayBuffer(3)]) {
    throwsCode(() => send(1, new Proxy(target, {})), 'WSB_INVALID_ARGUMENT');
  }
});

/** An object whose properties give one value when they are read first, and another from then on. */
function fickle(properties) {
  const object = {};
  for (const [name, [first, later]] of Object.entries(properties)) {
    let reads = 0;
    const get = () => {
      reads += 1;
      return reads === 1 ? first : later;
    };
    Object.defineProperty(object, name, { enumerable: true, get });
  }
  return object;
}

const OTHER = Symbol('what comes later');

test('options are read once each', async (t) => {
  const registration = registerWorkerThread({});
  t.after(() => registration.unregister());
  const options = {
    bind: '127.0.0.1:0',
    maxMessageSize: 1000,
    minBodyRate: 100,
    protocols: ['a', 'b'],
    origins: ['http://localhost'],
    compression: fickle({
      threshold: [1, OTHER],
      level: [1, OTHER],
      memory: ['shared', OTHER],
      windowBits: [9, OTHER],
    }),
    heartbeat: fickle({ interval: [1000, OTHER], timeout: [2000, OTHER] }),
    slowConsumer: 'drop',
    handlerTimeout: 1000,
    limits: fickle({
      connections: [10, OTHER],
      requestsPerIp: [fickle({ capacity: [1, OTHER], interval: [1, OTHER] }), OTHER],
      messagesPerSocket: [fickle({ capacity: [1, OTHER], interval: [1, OTHER], onExceed: ['drop', OTHER] }), OTHER],
    }),
    trustProxy: ['192.0.2.1'],
    proxyProtocol: false,
  };
  const server = start(
    fickle(Object.fromEntries(Object.entries(options).map(([name, value]) => [name, [value, OTHER]]))),
  );
  await server.stop(fickle({ timeout: [100, OTHER], spread: [0, OTHER], code: [1000, OTHER], reason: ['bye', OTHER] }));
  assert.equal(sendToChannel('room', 'data', fickle({ except: [1, OTHER] })), 0);
  assert.equal(setMessageRoute(1, fickle({ relay: ['room', OTHER], echo: [true, OTHER] })), false);
});

test('what handlers return is read once', async (t) => {
  const errors = [];
  const server = serve(t, {
    handleHttpRequest: () => fickle({ status: [201, OTHER], headers: [{ 'x-a': 'b' }, OTHER], body: ['body', OTHER] }),
    handleSocketUpgrade: ({ path }) =>
      path === '/in'
        ? fickle({ token: ['t', OTHER], channels: [['a'], OTHER], route: ['echo', OTHER], headers: [{}, OTHER] })
        : fickle({ status: [402, undefined], headers: [{}, OTHER], body: ['body', OTHER] }),
    handleError: (error) => errors.push(error),
  });
  const { status, body } = await request(server);
  assert.deepEqual([status, body], [201, 'body']);
  assert.equal((await refusal(t, server)).status, 402);
  const client = await connect(t, server, { path: '/in' });
  client.send('echo');
  assert.equal(await client.inbox.next(), 'echo');
  assert.deepEqual(errors, []);
});

test('lists have the elements that they had when they were read, however they say they are iterated', async (t) => {
  const registration = registerWorkerThread({});
  t.after(() => registration.unregister());
  const endless = (list) =>
    Object.defineProperty(list, Symbol.iterator, {
      *value() {
        for (;;) yield 'more';
      },
    });
  const options = { protocols: endless(['a']), origins: endless(['http://a']), trustProxy: endless(['192.0.2.1']) };
  await start({ bind: '127.0.0.1:0', ...options }).stop();
  const claims = (length) =>
    new Proxy(['a'], { get: (list, key) => (key === 'length' ? length : Reflect.get(list, key)) });
  const refused = { 2: /^options\.protocols\[1\]: /, Infinity: /^options\.protocols: expected at most/, a: /1 to 64/ };
  for (const [length, message] of Object.entries(refused)) {
    const protocols = claims(length === 'a' ? length : Number(length));
    assert.match(throwsCode(() => listen({ protocols }), 'WSB_INVALID_ARGUMENT').message, message);
  }
});

test('bytes that a getter of the same decision takes away are refused', async (t) => {
  const errors = new Inbox();
  const server = serve(t, {
    handleSocketUpgrade() {
      const token = new Uint8Array(8);
      return {
        token,
        get channels() {
          structuredClone(token.buffer, { transfer: [token.buffer] });
          return [];
        },
      };
    },
    handleHttpRequest() {
      const body = new Uint8Array(8);
      const headers = {
        get 'x-a'() {
          structuredClone(body.buffer, { transfer: [body.buffer] });
          return 'b';
        },
      };
      return { body, headers };
    },
    handleError: (error) => errors.push(error),
  });
  assert.equal((await refusal(t, server)).status, 500);
  assert.match((await errors.next()).message, /^decision\.token: .+ transferred/);
  assert.equal((await request(server)).status, 500);
  assert.match((await errors.next()).message, /^response\.body: .+ transferred/);
});

test('what throws when it is looked at is refused by name, with what it threw', () => {
  const reason = new Error('trapped');
  const trap = () => {
    throw reason;
  };
  const revoked = Proxy.revocable({}, {});
  const revokedList = Proxy.revocable([], {});
  revoked.revoke();
  revokedList.revoke();
  const throwing = (name, value) => Object.defineProperty({ ...value }, name, { get: trap, enumerable: true });
  const options = { bind: '127.0.0.1:0' };
  const refused = [
    [() => start(revoked.proxy), /^options: /],
    [() => start(new Proxy(options, { ownKeys: trap })), /^options: /],
    [() => start(throwing('bind')), /^options\.bind: /],
    [() => start(throwing('maxBodySize', options)), /^options\.maxBodySize: /],
    [() => start({ ...options, protocols: revokedList.proxy }), /^options\.protocols: /],
    [() => start({ ...options, origins: new Proxy([], { get: trap }) }), /^options\.origins: /],
    [() => start({ ...options, trustProxy: revokedList.proxy }), /^options\.trustProxy: /],
    [() => start({ ...options, heartbeat: throwing('timeout') }), /^options\.heartbeat\.timeout: /],
    [() => start({ ...options, compression: throwing('level') }), /^options\.compression\.level: /],
    [() => start({ ...options, limits: throwing('connections') }), /^options\.limits\.connections: /],
    [
      () => start({ ...options, limits: { messagesPerSocket: throwing('onExceed', { capacity: 1, interval: 1 }) } }),
      /^options\.limits\.messagesPerSocket\.onExceed: /,
    ],
    [() => sendToChannel('room', 'data', throwing('except')), /^options\.except: /],
    [() => sendToChannel('room', 'data', revoked.proxy), /^options: /],
    [() => setMessageRoute(1, throwing('relay')), /^route\.relay: /],
    [() => setMessageRoute(1, revoked.proxy), /^route: /],
    [() => registerWorkerThread(revoked.proxy), /^worker: /],
    [() => registerWorkerThread(revokedList.proxy), /^worker: /],
    [() => registerWorkerThread(throwing('handleSocketOpen')), /^worker\.handleSocketOpen: /],
    [() => registerWorkerThread(new Proxy({}, { getPrototypeOf: trap })), /^worker: /],
    [() => send(1, revoked.proxy), /^data: /],
  ];
  for (const [call, message] of refused) assert.match(throwsCode(call, 'WSB_INVALID_ARGUMENT').message, message);
  assert.equal(throwsCode(() => start(throwing('bind')), 'WSB_INVALID_ARGUMENT').cause, reason);
});
