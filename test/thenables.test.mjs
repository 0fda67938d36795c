// What handlers return that has a `then`: each is awaited, told of when it fails, and settles once, whatever it does.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { send } from 'wsbroker';
import { connect, refusal, request, serve, stillServes } from './helpers/serving.mjs';
import { deferred, eventually, Inbox } from './helpers/waiting.mjs';

/** A native promise that is settled, but has a `then` of its own. */
function withThen(then) {
  const promise = Promise.resolve({ body: 'not by way of its then' });
  // biome-ignore lint/suspicious/noThenProperty: what is tested
  promise.then = then;
  return promise;
}

function thenable(then) {
  return { then };
}

/** A promise that begins when somebody asks for it. */
class Lazy extends Promise {
  #begin;
  constructor(begin) {
    super(() => {});
    this.#begin = begin;
  }
  // biome-ignore lint/suspicious/noThenProperty: what is tested
  then(...callbacks) {
    return new Promise(this.#begin).then(...callbacks);
  }
  static get [Symbol.species]() {
    return Promise;
  }
}

const broken = () => {
  throw new Error('broken then');
};

/** What fails when it is asked for its result. */
const FAILING = {
  'a native promise whose own then throws': () => withThen(broken),
  'an object whose then throws': () => thenable(broken),
  'a then that is a getter that throws': () =>
    Object.defineProperty({}, 'then', {
      get: broken,
    }),
  'a native promise with such a getter': () => Object.defineProperty(Promise.resolve(), 'then', { get: broken }),
  'a native promise whose constructor throws': () =>
    Object.defineProperty(Promise.resolve(), 'constructor', { get: broken }),
  'the then of a promise on something else': () => thenable(Promise.prototype.then),
  'a function that rejects': () =>
    Object.assign(
      () => {},
      thenable((_resolve, reject) => reject(new Error('no'))),
    ),
  'a lazy promise that rejects': () => new Lazy((_resolve, reject) => reject(new Error('no'))),
};

for (const [what, make] of Object.entries(FAILING)) {
  test(`${what}: an error of its handler, and the events behind it come`, async (t) => {
    const errors = new Inbox();
    const server = serve(t, {
      handleHttpRequest: ({ path }) => (path === '/broken' ? make() : { body: 'fine' }),
      handleSocketUpgrade: ({ path }) => (path === '/broken' ? make() : undefined),
      handleSocketMessage(data, socketId) {
        if (data === 'broken') return make();
        send(socketId, data);
      },
      handleSocketClose: (_socketId, _token, code) => (code === 4000 ? make() : undefined),
      handleError: (error, { handler }) => errors.push(`${handler} ${error instanceof Error}`),
    });
    const bystander = await connect(t, server);
    const client = await connect(t, server);
    // Many at a time, so that one batch has what is good behind what is broken.
    for (let n = 0; n < 10; n += 1) {
      client.send('broken');
      client.send(`good ${n}`);
    }
    for (let n = 0; n < 10; n += 1) assert.equal(await client.inbox.next(), `good ${n}`);
    assert.deepEqual(new Set(await errors.take(10)), new Set(['handleSocketMessage true']));
    assert.equal((await request(server, '/broken')).status, 500);
    assert.equal(await errors.next(), 'handleHttpRequest true');
    assert.equal((await refusal(t, server, { path: '/broken' })).status, 500);
    assert.equal(await errors.next(), 'handleSocketUpgrade true');
    client.close(4000);
    assert.equal(await errors.next(), 'handleSocketClose true');
    await stillServes(t, server, bystander);
    assert.equal(errors.length, 0);
  });
}

const later = (resolve, value) => setImmediate(() => setImmediate(resolve, value));

/** What is done later. */
const SETTLING = {
  'an object with a then': (value) => thenable((resolve) => later(resolve, value)),
  'a function with a then': (value) =>
    Object.assign(
      () => {},
      thenable((resolve) => later(resolve, value)),
    ),
  'a lazy promise': (value) => new Lazy((resolve) => later(resolve, value)),
  'a then that calls back twice': (value) =>
    thenable((resolve, reject) => {
      later(resolve, value);
      later(resolve, { body: 'twice' });
      later(reject, new Error('thrice'));
    }),
  'a native promise whose own then calls back twice': (value) =>
    withThen((resolve) => {
      later(resolve, value);
      later(resolve, { body: 'twice' });
    }),
  'a thenable of a thenable': (value) => thenable((resolve) => resolve(thenable((inner) => later(inner, value)))),
};

for (const [what, make] of Object.entries(SETTLING)) {
  test(`${what}: is awaited, and the handlers of its socket run one at a time`, async (t) => {
    let running = 0;
    let most = 0;
    const server = serve(t, {
      handleHttpRequest: () => make({ body: 'later' }),
      handleSocketMessage(data, socketId) {
        running += 1;
        most = Math.max(most, running);
        return thenOf(make(undefined), () => {
          running -= 1;
          send(socketId, data);
        });
      },
      handleError: assert.ifError,
    });
    assert.equal((await request(server)).body, 'later');
    const client = await connect(t, server);
    for (let n = 0; n < 20; n += 1) client.send(String(n));
    for (let n = 0; n < 20; n += 1) assert.equal(await client.inbox.next(), String(n));
    assert.equal(most, 1);
  });
}

/** The same promise, which runs something when it calls back for the first time. */
function thenOf(promise, before) {
  let isFirst = true;
  const then = promise.then;
  // biome-ignore lint/suspicious/noThenProperty: what is tested
  promise.then = (resolve, reject) => {
    const told = (value) => {
      if (isFirst) before();
      isFirst = false;
      resolve(value);
    };
    return then.call(promise, told, reject);
  };
  return promise;
}

test('a then that calls back twice never lets two handlers of a socket run at once', async (t) => {
  const doors = [];
  let running = 0;
  let most = 0;
  const server = serve(t, {
    handleSocketMessage(data, socketId) {
      running += 1;
      most = Math.max(most, running);
      const door = deferred();
      doors.push(door);
      const promise = door.promise.then(() => {
        running -= 1;
        send(socketId, data);
      });
      const { then } = promise;
      // biome-ignore lint/suspicious/noThenProperty: what is tested
      promise.then = (resolve, reject) =>
        then.call(
          promise,
          () => {
            resolve();
            resolve();
          },
          reject,
        );
      return promise;
    },
  });
  const client = await connect(t, server);
  for (const data of ['1', '2', '3', '4']) client.send(data);
  for (const data of ['1', '2', '3', '4']) {
    await eventually(() => assert.equal(doors.length, Number(data)));
    doors.at(-1).resolve();
    assert.equal(await client.inbox.next(), data);
  }
  assert.equal(most, 1);
});

test('a handleError whose promise is broken is no end of anything', async (t) => {
  t.mock.method(console, 'error', () => {});
  const server = serve(t, {
    handleSocketMessage(data, socketId) {
      send(socketId, data);
      if (data === 'bad') throw new Error('on purpose');
    },
    handleError: () => withThen(broken),
  });
  const client = await connect(t, server);
  for (const data of ['bad', 'good']) {
    client.send(data);
    assert.equal(await client.inbox.next(), data);
  }
});
