// Clients that end their own side of the connection and read on.

import assert from 'node:assert/strict';
import net from 'node:net';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { stats } from 'wsbroker';
import { handshake } from './helpers/raw.mjs';
import { serve } from './helpers/serving.mjs';
import { eventually, Inbox, within } from './helpers/waiting.mjs';

const GET = 'GET / HTTP/1.1\r\nHost: x\r\n\r\n';

/** All that comes back for what is said and followed by the end of the client's side. */
function lastWords(t, { address }, said) {
  const socket = net.connect({ ...address, allowHalfOpen: true });
  t.after(() => socket.destroy());
  socket.end(said);
  return within(text(socket), 'the end of the connection');
}

test('a client that ends its side behind its request is answered, and told to be the last', async (t) => {
  const server = serve(t, {
    handleHttpRequest: async ({ body }) => {
      await delay(1);
      return { body: `got ${body}` };
    },
  });
  const post = 'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody';
  for (let n = 0; n < 20; n += 1) {
    assert.match(await lastWords(t, server, post), /^HTTP\/1\.1 200 [\s\S]*\r\n\r\ngot body$/);
  }
  assert.match(await lastWords(t, server, GET + GET), /got HTTP\/1\.1 200 [\s\S]*got $/);
  assert.equal(stats().dropped.lateResponses, 0);
});

test('a handler that gives up on the signal may still say something', async (t) => {
  const server = serve(t, {
    handleHttpRequest: ({ signal }) =>
      new Promise((resolve) => {
        signal.addEventListener('abort', () => resolve({ status: 202, body: 'later' }));
      }),
  });
  assert.match(await lastWords(t, server, GET), /^HTTP\/1\.1 202 [\s\S]*\r\n\r\nlater$/);
});

test('half a body and then the end is answered 400', async (t) => {
  const server = serve(t, { handleHttpRequest() {} });
  const { requests } = stats();
  const post = 'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf';
  assert.match(await lastWords(t, server, post), /^HTTP\/1\.1 400 /);
  assert.equal(await lastWords(t, server, GET.slice(0, 20)), '');
  assert.equal(stats().requests, requests);
});

test('an upgrade of a client that says nothing more is over', async (t) => {
  const signals = new Inbox();
  const server = serve(t, {
    handleSocketUpgrade({ signal }) {
      signals.push(signal);
      return new Promise((resolve) => signal.addEventListener('abort', () => resolve(false)));
    },
  });
  assert.equal(await lastWords(t, server, handshake()), '');
  const signal = await signals.next();
  await eventually(() => assert.ok(signal.aborted));
});
