// AsyncLocalStorage: each event is handled in the context of the registration, whatever other handlers have entered.

import assert from 'node:assert/strict';
import { AsyncLocalStorage } from 'node:async_hooks';
import { once } from 'node:events';
import { test } from 'node:test';
import v8 from 'node:v8';
import vm from 'node:vm';
import { send } from 'wsbroker';
import { connect, request, serve } from './helpers/serving.mjs';
import { deferred, Inbox, within } from './helpers/waiting.mjs';

/** Handlers that note in which context they are called, and leave another one behind. */
function handlersThatEnter(storage, seen) {
  let entered = 0;
  const enter = (name) => {
    seen.push([name, storage.getStore()]);
    entered += 1;
    storage.enterWith(`entered by ${name} ${entered}`);
  };
  return {
    handleHttpRequest({ path }) {
      enter('request');
      if (path === '/throw') throw new Error('on purpose');
      return { body: 'ok' };
    },
    handleSocketUpgrade: () => enter('upgrade'),
    handleSocketOpen: () => enter('open'),
    handleSocketMessage(data, socketId) {
      enter('message');
      send(socketId, data);
    },
    handleSocketClose: () => enter('close'),
    handleError: () => enter('error'),
  };
}

/** Everything that can happen, several times and in one batch too; waits until all of it has. */
async function doEverything(t, server) {
  const clients = [];
  for (let n = 0; n < 3; n += 1) clients.push(await connect(t, server, { origin: 'http://there.example' }));
  for (const client of clients) for (let n = 0; n < 50; n += 1) client.send('hello');
  for (const client of clients) await client.inbox.take(50);
  await request(server);
  assert.equal((await request(server, '/throw')).status, 500);
  for (const client of clients) client.close();
  for (const client of clients) await client.closed;
}

test('no handler sees what another has entered', async (t) => {
  const storage = new AsyncLocalStorage();
  const seen = [];
  const server = serve(t, handlersThatEnter(storage, seen), {
    origins() {
      seen.push(['origins', storage.getStore()]);
      storage.enterWith('entered by origins');
      return true;
    },
  });
  await doEverything(t, server);
  await doEverything(t, server);
  const kinds = new Set(seen.map(([name]) => name));
  assert.deepEqual(kinds, new Set(['origins', 'upgrade', 'open', 'message', 'request', 'error', 'close']));
  assert.deepEqual(
    seen.filter(([, store]) => store !== undefined),
    [],
  );
  assert.equal(storage.getStore(), undefined, 'nor does the application see it elsewhere');
});

test('every handler sees what was there when its thread registered', async (t) => {
  const storage = new AsyncLocalStorage();
  const seen = [];
  const serveHere = () => serve(t, handlersThatEnter(storage, seen));
  const server = storage.run('registration', serveHere);
  storage.enterWith('elsewhere');
  await doEverything(t, server);
  assert.ok(seen.length > 150);
  assert.deepEqual(
    seen.filter(([, store]) => store !== 'registration'),
    [],
  );
});

test('the function of origins sees what was there when its server started', async (t) => {
  const storage = new AsyncLocalStorage();
  const seen = new Inbox();
  const origins = () => {
    seen.push(storage.getStore());
    storage.enterWith('left behind');
    return true;
  };
  const server = storage.run('start', () => serve(t, {}, { origins }));
  for (let n = 0; n < 3; n += 1) {
    await connect(t, server);
    assert.equal(await seen.next(), 'start');
  }
});

test('a handler keeps what it has entered, over its promises, while others are handled', async (t) => {
  const storage = new AsyncLocalStorage();
  const doors = new Map();
  const server = serve(t, {
    async handleSocketMessage(data, socketId) {
      storage.enterWith(data);
      const door = deferred();
      doors.set(data, door);
      await door.promise;
      send(socketId, `${data} ${storage.getStore()}`);
      await null;
      send(socketId, `${data} ${storage.getStore()}`);
    },
    async handleHttpRequest({ path }) {
      storage.enterWith(path);
      await null;
      return { body: storage.getStore() };
    },
  });
  const clients = [await connect(t, server), await connect(t, server)];
  clients.forEach((client, n) => {
    client.send(`of ${n}`);
  });
  assert.equal((await request(server, '/path')).body, '/path');
  while (doors.size < 2) await request(server, '/again');
  doors.get('of 1').resolve();
  doors.get('of 0').resolve();
  for (const n of [0, 1]) assert.deepEqual(await clients[n].inbox.take(2), [`of ${n} of ${n}`, `of ${n} of ${n}`]);
});

test('what waited behind a promise is handled in the context of the registration, not in that of the promise', async (t) => {
  const storage = new AsyncLocalStorage();
  const seen = new Inbox();
  const door = deferred();
  const server = storage.run('registration', () =>
    serve(t, {
      handleSocketMessage(data) {
        seen.push([data, storage.getStore()]);
        storage.enterWith(`entered at ${data}`);
        if (data === 'wait') return door.promise;
        if (data === 'reject') throw new Error('on purpose');
        if (data === 'async') return Promise.resolve();
      },
      handleSocketClose: () => seen.push(['close', storage.getStore()]),
      handleError: () => seen.push(['error', storage.getStore()]),
    }),
  );
  const client = await connect(t, server);
  const sent = ['wait', 'one', 'async', 'two', 'reject', 'three'];
  for (const data of sent) client.send(data);
  client.close();
  assert.deepEqual(await seen.next(), ['wait', 'registration']);
  await request(server); // what was sent is read
  storage.run('settler', () => door.resolve());
  const expected = ['one', 'async', 'two', 'reject', 'error', 'three', 'close'];
  assert.deepEqual(
    await seen.take(expected.length),
    expected.map((name) => [name, 'registration']),
  );
});

test('a handler that is given up is told of, and its close event comes, in the context of the registration', async (t) => {
  const storage = new AsyncLocalStorage();
  const seen = new Inbox();
  const server = storage.run('registration', () =>
    serve(
      t,
      {
        handleSocketMessage() {
          storage.enterWith('entered');
          return new Promise(() => {});
        },
        handleSocketClose: () => seen.push(['close', storage.getStore()]),
        handleError: (error) => seen.push([error.code, storage.getStore()]),
      },
      { handlerTimeout: 50 },
    ),
  );
  const client = await connect(t, server);
  client.send('hang');
  assert.deepEqual(await seen.take(2), [
    ['WSB_HANDLER_TIMEOUT', 'registration'],
    ['close', 'registration'],
  ]);
});

test('the listeners of an aborted request leave nothing behind either', async (t) => {
  const storage = new AsyncLocalStorage();
  const seen = new Inbox();
  const server = serve(t, {
    handleHttpRequest({ path, signal }) {
      if (path !== '/hang') return { body: String(storage.getStore()) };
      seen.push('begun');
      signal.addEventListener('abort', () => {
        storage.enterWith('entered by a listener');
        seen.push('aborted');
      });
      return new Promise(() => {});
    },
  });
  const leaving = new AbortController();
  const gone = request(server, '/hang', { signal: leaving.signal }).catch(() => {});
  assert.equal(await seen.next(), 'begun');
  leaving.abort();
  await gone;
  assert.equal(await seen.next(), 'aborted');
  assert.equal((await request(server)).body, 'undefined');
});

test('what a client has entered is not kept when it has gone', async (t) => {
  v8.setFlagsFromString('--expose-gc');
  const collectGarbage = vm.runInNewContext('gc');
  const storage = new AsyncLocalStorage();
  const collected = new Inbox();
  const registry = new FinalizationRegistry((what) => collected.push(what));
  const server = serve(t, {
    handleSocketMessage(data, socketId) {
      if (data === 'enter') {
        const store = { of: socketId };
        registry.register(store, 'collected');
        storage.enterWith(store);
      }
      send(socketId, data);
    },
  });
  const client = await connect(t, server);
  for (const data of ['enter', 'something', 'else']) {
    client.send(data);
    assert.equal(await client.inbox.next(), data);
  }
  client.close();
  await within(once(client, 'close'), 'the end');
  let isCollected = false;
  const waiting = collected.next('the store is collected').then(() => {
    isCollected = true;
  });
  while (!isCollected) {
    collectGarbage();
    await Promise.race([waiting, request(server)]);
  }
});
