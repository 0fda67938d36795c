// What handlers may do wrong instead of an answer: it costs that request or that socket, and nobody else anything.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { send } from 'wsbroker';
import { runsTo } from './helpers/program.mjs';
import { connect, open, request, serve, stillServes } from './helpers/serving.mjs';
import { Inbox, within } from './helpers/waiting.mjs';

/** What application code may do wrong instead of an answer. */
const MISDEEDS = {
  throws: () => {
    throw new Error('on purpose');
  },
  'throws nothing': () => {
    throw undefined;
  },
  rejects: () => Promise.reject(new Error('on purpose')),
  'returns rubbish': () => ({ status: 99, headers: { 'x-evil': 'a\nb' }, body: 7 }),
  'resolves to rubbish': () => Promise.resolve(Symbol('rubbish')),
  'never settles': () => new Promise(() => {}),
};

for (const [how, misbehave] of Object.entries(MISDEEDS)) {
  test(`a handler that ${how}: the server and every other socket go on`, async (t) => {
    const told = new Inbox();
    const good = {
      handleHttpRequest: () => ({ body: 'fine' }),
      handleSocketUpgrade: () => undefined,
      handleSocketOpen: () => undefined,
      handleSocketMessage: (data, socketId) => void send(socketId, data),
      handleSocketClose: () => undefined,
    };
    /** The handler that misbehaves at the moment, for one call. */
    let bad;
    const handlers = Object.fromEntries(
      Object.keys(good).map((name) => [
        name,
        (...args) => {
          if (bad !== name) return good[name](...args);
          bad = undefined;
          told.push(name);
          return misbehave();
        },
      ]),
    );
    const errors = new Inbox();
    handlers.handleError = (_error, { handler }) => errors.push(handler);
    const server = serve(t, handlers, { requestTimeout: 1000, closeTimeout: 100 });
    const bystander = await connect(t, server);

    /** HTTP shows a rubbish answer; what a handler of a socket returns is nobody's business. */
    const isTold = (name) =>
      /throws|rejects/.test(how) || (/rubbish/.test(how) && /Request|Upgrade/.test(name)) ? [name] : [];
    const status = how === 'never settles' ? 504 : 500;
    for (const name of Object.keys(good)) {
      const client = /Message|Close/.test(name) ? await connect(t, server) : undefined;
      bad = name;
      if (name === 'handleHttpRequest') assert.equal((await request(server)).status, status);
      if (name === 'handleSocketUpgrade') {
        const [, response] = await within(once(open(t, server), 'unexpected-response'), 'a refusal');
        assert.equal(response.statusCode, status);
      }
      if (name === 'handleSocketOpen') await connect(t, server);
      client?.send('something');
      if (name === 'handleSocketClose') client.close();
      assert.equal(await told.next(), name);
      assert.deepEqual(await errors.take(isTold(name).length), isTold(name));
      await stillServes(t, server, bystander);
    }
    assert.equal(errors.length, 0);
  });
}

test('whatever a handler throws can be told on stderr', async () => {
  const program = `
    const { registerWorkerThread, start } = await import('wsbroker');
    const { proxy, revoke } = Proxy.revocable({}, {});
    revoke();
    const thrown = {
      '/null': null, '/undefined': undefined, '/symbol': Symbol('thrown'), '/bigint': 7n, '/proxy': proxy,
      '/trap': { get message() { throw new Error('trap'); }, get stack() { throw new Error('trap'); } },
      '/inspect': { [Symbol.for('nodejs.util.inspect.custom')]() { throw new Error('trap'); } },
    };
    registerWorkerThread({ handleHttpRequest({ path }) { if (path in thrown) throw thrown[path]; } });
    const server = start({ bind: '127.0.0.1:0' });
    const url = 'http://127.0.0.1:' + server.address.port;
    const statuses = [];
    for (const path of [...Object.keys(thrown), '/']) statuses.push((await fetch(url + path)).status);
    console.log(statuses.join(' '));
    await server.stop();
    process.exit();`;
  const log = await runsTo({ stdout: '500 500 500 500 500 500 500 200' }, program);
  assert.match(log, /handleHttpRequest failed: null/);
  assert.match(log, /handleHttpRequest failed: Symbol\(thrown\)/);
});

test('a wrong argument in a handler is an error of that handler alone', async (t) => {
  const errors = new Inbox();
  const server = serve(t, {
    handleHttpRequest: () => ({ body: 'fine' }),
    handleSocketMessage(data, socketId) {
      if (data === 'wrong') send(String(socketId), data);
      send(socketId, data);
    },
    handleError: (error) => errors.push(error.code),
  });
  const client = await connect(t, server);
  client.send('wrong');
  client.send('right');
  assert.equal(await client.inbox.next(), 'right');
  assert.equal(await errors.next(), 'WSB_INVALID_ARGUMENT');
  await stillServes(t, server, client);
});
