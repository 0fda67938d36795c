// Requests whose client has left: what is held of them is for their handler to decide, however long its promise takes.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import v8 from 'node:v8';
import vm from 'node:vm';
import { connect, request, serve } from './helpers/serving.mjs';
import { deferred, eventually, Inbox } from './helpers/waiting.mjs';

v8.setFlagsFromString('--expose-gc');
const collectGarbage = vm.runInNewContext('gc');

const MIB = 1024 * 1024;

/** Asks, and leaves when the handler has the request. */
async function askAndLeave(server, asked, { path = '/', body } = {}) {
  const leaving = new AbortController();
  const left = request(server, path, { method: 'POST', body, signal: leaving.signal }).catch(() => {});
  const incoming = await asked.next('the request');
  leaving.abort();
  await left;
  return incoming;
}

test('a hundred bodies of 1 MiB whose clients have left are not kept by promises that are pending', async (t) => {
  const asked = new Inbox();
  const promises = [];
  const server = serve(t, {
    handleHttpRequest(incoming) {
      assert.equal(incoming.body.length, MIB);
      asked.push(new WeakRef(incoming));
      const answer = deferred();
      promises.push(answer);
      return answer.promise;
    },
  });
  collectGarbage();
  const before = process.memoryUsage().arrayBuffers;
  const body = Buffer.alloc(MIB, 'x');
  const requests = [];
  for (let n = 0; n < 100; n += 1) requests.push(await askAndLeave(server, asked, { body }));
  await eventually(() => {
    collectGarbage();
    const kept = requests.filter((incoming) => incoming.deref() !== undefined).length;
    assert.ok(kept <= 1, `${kept} requests are kept`);
    const grown = process.memoryUsage().arrayBuffers - before;
    assert.ok(grown < 10 * MIB, `${grown} bytes more`);
  });
  for (const { resolve } of promises) resolve();
});

test('an upgrade whose client has left is not kept either', async (t) => {
  const asked = new Inbox();
  const answer = deferred();
  const server = serve(t, {
    handleSocketUpgrade(incoming) {
      asked.push(new WeakRef(incoming));
      return answer.promise;
    },
  });
  const opening = connect(t, server, { headers: { 'x-padding': 'x'.repeat(10_000) }, handshakeTimeout: 200 });
  opening.catch(() => {});
  const incoming = await asked.next();
  await assert.rejects(opening);
  await eventually(() => {
    collectGarbage();
    assert.equal(incoming.deref(), undefined);
  });
  answer.resolve();
});

test('a handler that still has the request still reads it when its client has left', async (t) => {
  const asked = new Inbox();
  const server = serve(t, {
    handleHttpRequest(incoming) {
      asked.push(incoming);
      return new Promise(() => {});
    },
  });
  const incoming = await askAndLeave(server, asked, { path: '/there?q', body: 'the body' });
  await eventually(() => assert.equal(incoming.signal.aborted, true));
  collectGarbage();
  assert.equal(incoming.url, '/there?q');
  assert.equal(incoming.headers['content-length'], '8');
  assert.equal(incoming.body.toString(), 'the body');
});

test('a handler that fails when its client has left is told of, with the request if somebody has it', async (t) => {
  const asked = new Inbox();
  const errors = new Inbox();
  const answer = deferred();
  const server = serve(t, {
    async handleHttpRequest(incoming) {
      asked.push(incoming);
      await answer.promise;
      throw new Error('on purpose');
    },
    handleError: (error, context) => errors.push([error.message, context]),
  });
  const incoming = await askAndLeave(server, asked);
  await eventually(() => assert.equal(incoming.signal.aborted, true));
  answer.resolve();
  const [message, context] = await errors.next();
  assert.equal(message, 'on purpose');
  assert.equal(context.handler, 'handleHttpRequest');
  assert.equal(context.request, incoming);
});
