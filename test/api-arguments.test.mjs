// Every argument is checked at the door: what is wrong is named in an error, what is unknown is no error.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import vm from 'node:vm';
import * as wsbroker from 'wsbroker';
import { connect, serve, throwsCode } from './helpers/serving.mjs';
import { deferred } from './helpers/waiting.mjs';

/** The functions by name. */
const api = { ...wsbroker };

const UNKNOWN = Number.MAX_SAFE_INTEGER;

/** Every call with arguments that are right, by name: what to put into each place, and what comes back. */
const CALLS = {
  send: { arguments: [UNKNOWN, 'data'], kinds: ['socketId', 'data'], answer: false },
  sendToChannel: { arguments: ['room', 'data', { except: 7 }], kinds: ['channel', 'data'], answer: 0 },
  broadcast: { arguments: ['data'], kinds: ['data'], answer: 0 },
  subscribe: { arguments: [UNKNOWN, 'room'], kinds: ['socketId', 'channel'], answer: false },
  unsubscribe: { arguments: [UNKNOWN, 'room'], kinds: ['socketId', 'channel'], answer: false },
  copySubscriptions: { arguments: ['room', 'hall'], kinds: ['from', 'to'], answer: 0 },
  setToken: { arguments: [UNKNOWN, Buffer.from('token')], kinds: ['socketId', 'token'], answer: false },
  getToken: { arguments: [UNKNOWN], kinds: ['socketId'], answer: undefined },
  setMessageRoute: { arguments: [UNKNOWN, { relay: 'room', echo: true }], kinds: ['socketId', 'route'], answer: false },
  close: { arguments: [UNKNOWN, 1000, 'bye'], kinds: ['socketId', 'code', 'reason'], answer: false },
  subscriberCount: { arguments: ['room'], kinds: ['channel'], answer: 0 },
  subscribers: { arguments: ['room'], kinds: ['channel'], answer: [] },
  channels: { arguments: [UNKNOWN], kinds: ['socketId'], answer: [] },
  channelCount: { arguments: [], kinds: [], answer: 0 },
  connectionCount: { arguments: [], kinds: [], answer: 0 },
  connections: { arguments: [], kinds: [], answer: [] },
  bufferedAmount: { arguments: [UNKNOWN], kinds: ['socketId'], answer: 0 },
  ban: { arguments: ['192.0.2.1', 0.001], kinds: ['address', 'seconds'], answer: 0 },
  unban: { arguments: ['192.0.2.2'], kinds: ['address'], answer: false },
};

const NO_DATA = [null, 7, 7n, true, {}, [], Symbol('data'), () => {}, new Map(), [1, 2, 3], Promise.resolve('data')];
const NO_NAME = [...NO_DATA, undefined, '', new Uint8Array(0), 'x'.repeat(513), 'é'.repeat(257), Buffer.alloc(1 << 20)];

/** What is wrong in a place of this kind. */
const WRONG = {
  socketId: [undefined, null, '1', 1n, true, {}, [1], Number.NaN, 1.5, 0, -1, -0, 2 ** 53, Number.POSITIVE_INFINITY],
  data: [undefined, ...NO_DATA],
  channel: NO_NAME,
  from: NO_NAME,
  to: NO_NAME,
  token: NO_DATA,
  route: [undefined, null, 7, true, '', 'relay', 'Echo', [], () => {}],
  code: [null, '1000', 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 1000.5, Number.NaN, 65_536 + 1000, -1],
  address: [
    undefined,
    null,
    7,
    {},
    '',
    'localhost',
    '192.0.2.0/33',
    '::/129',
    '192.0.2',
    '::1%eth0',
    'a'.repeat(1 << 20),
  ],
  seconds: [null, '60', {}, 0, -1, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 31],
  reason: [null, 7, {}, Buffer.from('bye'), 'x'.repeat(124), 'é'.repeat(62)],
};

for (const [name, { arguments: right, kinds, answer }] of Object.entries(CALLS)) {
  test(`${name} answers ${JSON.stringify(answer)} for what does not exist`, () => {
    assert.deepEqual(api[name](...right), answer);
  });

  for (const [index, kind] of kinds.entries()) {
    test(`${name} refuses a wrong ${kind}, naming it, what came and what is expected`, () => {
      for (const wrong of WRONG[kind]) {
        const error = throwsCode(() => api[name](...right.with(index, wrong)), 'WSB_INVALID_ARGUMENT');
        assert.match(error.message, new RegExp(`^${kind}: expected .+, got .+`));
        assert.ok(error.message.length < 200, 'a huge argument does not make a huge message');
      }
    });
  }
}

test('sendToChannel refuses a wrong except and a misspelt option', () => {
  for (const except of WRONG.socketId.filter((value) => value !== undefined)) {
    const error = throwsCode(() => wsbroker.sendToChannel('room', 'data', { except }), 'WSB_INVALID_ARGUMENT');
    assert.match(error.message, /^options\.except: expected a socket id/);
  }
  for (const options of [null, 7, 'except', [7]]) {
    throwsCode(() => wsbroker.sendToChannel('room', 'data', options), 'WSB_INVALID_ARGUMENT');
  }
  const misspelt = throwsCode(() => wsbroker.sendToChannel('room', 'data', { exept: 7 }), 'WSB_INVALID_ARGUMENT');
  assert.match(misspelt.message, /there is no "exept".*did you mean 'except'\?/);
});

test('names of 1 and of 512 bytes are channel names, whatever they are made of', () => {
  for (const name of ['x', 'x'.repeat(512), 'é'.repeat(256), '𝄞'.repeat(128), Buffer.alloc(512), new Uint8Array(1)]) {
    assert.equal(wsbroker.subscriberCount(name), 0);
  }
});

test('every close code that may be sent is taken', () => {
  for (const code of [1000, 1001, 1002, 1003, 1007, 1010, 1014, 3000, 3999, 4000, 4999]) {
    assert.equal(wsbroker.close(UNKNOWN, code, 'é'.repeat(61)), false);
  }
});

test('a message of the text says what came', () => {
  const got = (value) => throwsCode(() => wsbroker.send(value, ''), 'WSB_INVALID_ARGUMENT').message.split(', got ')[1];
  assert.equal(got(Number.NaN), 'NaN');
  assert.equal(got('1'), '"1"');
  assert.equal(got(1n), '1n');
  assert.equal(got(undefined), 'undefined');
  assert.equal(got(null), 'null');
  assert.equal(got(new Map()), 'an instance of Map');
  assert.equal(got(Object.create(null)), 'an object');
  assert.equal(got([1]), 'an array of length 1');
  assert.equal(got(Buffer.alloc(9)), 'a Buffer of 9 bytes');
  assert.equal(got(Symbol('s')), 'Symbol(s)');
  assert.equal(
    got(function named() {}),
    'the function named',
  );
});

test('strings and every view of bytes can be sent and come out as they went in', async (t) => {
  const opened = deferred();
  const server = serve(t, { handleSocketOpen: opened.resolve });
  const client = await connect(t, server);
  const id = await opened.promise;

  const bytes = Uint8Array.of(0, 1, 2, 250, 251, 252, 253, 254);
  const shared = new Uint8Array(new SharedArrayBuffer(8));
  shared.set(bytes);
  const inside = new Uint8Array(16);
  inside.set(bytes, 4);
  const binary = [
    Buffer.from(bytes),
    bytes,
    bytes.buffer,
    new DataView(bytes.buffer),
    new Uint8ClampedArray(bytes),
    new Float64Array(bytes.buffer),
    new BigUint64Array(bytes.buffer),
    new Uint16Array(inside.buffer, 4, 4),
    inside.subarray(4, 12),
    shared,
    new DataView(shared.buffer),
    vm.runInNewContext('Uint8Array.of(0, 1, 2, 250, 251, 252, 253, 254)'),
    vm.runInNewContext('Uint8Array.of(0, 1, 2, 250, 251, 252, 253, 254).buffer'),
  ];
  for (const data of binary) assert.equal(wsbroker.send(id, data), true);
  for (const received of await client.inbox.take(binary.length)) assert.deepEqual(received, Buffer.from(bytes));

  const long = 'ab€𝄞'.repeat(5000);
  const texts = ['', 'plain', 'é€𝄞', 'x'.repeat(4095), 'x'.repeat(4096), '€'.repeat(1365), '€'.repeat(1366), long];
  for (const text of texts) assert.equal(wsbroker.send(id, text), true);
  assert.deepEqual(await client.inbox.take(texts.length), texts);

  assert.equal(wsbroker.send(id, 'a lone \ud800 surrogate'), true);
  assert.equal(await client.inbox.next(), 'a lone \ufffd surrogate');
  for (const empty of [Buffer.alloc(0), new ArrayBuffer(0)]) assert.equal(wsbroker.send(id, empty), true);
  assert.deepEqual(await client.inbox.take(2), [Buffer.alloc(0), Buffer.alloc(0)]);
});

test('registerWorkerThread refuses what is no object of handlers', () => {
  for (const worker of [undefined, null, 7, 'worker', [], () => {}]) {
    const error = throwsCode(() => wsbroker.registerWorkerThread(worker), 'WSB_INVALID_ARGUMENT');
    assert.match(error.message, /^worker: expected an object, got /);
  }
  for (const handler of ['handleHttpRequest', 'handleSocketMessage', 'handleError']) {
    for (const value of [null, 'function', {}]) {
      const error = throwsCode(() => wsbroker.registerWorkerThread({ [handler]: value }), 'WSB_INVALID_ARGUMENT');
      assert.match(error.message, new RegExp(`^worker\\.${handler}: expected a function, got `));
    }
  }
  assert.deepEqual(wsbroker.stats().workers, [], 'nothing is registered by a refused call');
});

test('arguments that throw when they are looked at are refused like others', () => {
  const transferred = new ArrayBuffer(8);
  structuredClone(transferred, { transfer: [transferred] });
  const view = new DataView(new ArrayBuffer(8));
  structuredClone(view.buffer, { transfer: [view.buffer] });
  const trap = () => {
    throw new Error('trapped');
  };
  const proxy = new Proxy({}, { getPrototypeOf: trap, get: trap });
  for (const data of [transferred, view, proxy]) throwsCode(() => api.send(1, data), 'WSB_INVALID_ARGUMENT');
  throwsCode(() => api.send(proxy, 'hello'), 'WSB_INVALID_ARGUMENT');
});
