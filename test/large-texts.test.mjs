// Texts of some KiB and more, which cross to and from JavaScript another way than short ones.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { send, sendToChannel, subscribe } from 'wsbroker';
import { connect, serve } from './helpers/serving.mjs';

/** Where the ways part: bytes in UTF-8 that stay in the batch, and characters that the addon decodes without asking first. */
const BORDERS = [4096, 8192, 65_536];

const CHARACTERS = ['x', 'é', '€', '🙂'];

/** Texts around each border in bytes and in characters, and two that are ASCII but for their end. */
function texts() {
  const around = BORDERS.flatMap((border) => [-5, -4, -3, -2, -1, 0, 1, 4].map((more) => border + more));
  const filled = around.flatMap((length) => [
    ...CHARACTERS.map((character) => character.repeat(Math.ceil(length / Buffer.byteLength(character)))),
    `${'a'.repeat(length)}é`,
    `${'a'.repeat(length - 1)}🙂`,
  ]);
  return [...filled, ...CHARACTERS.map((character) => character.repeat(200_000))];
}

function serveEcho(t) {
  return serve(
    t,
    {
      handleSocketMessage(data, socketId) {
        if (data === 'join') subscribe(socketId, 'everybody');
        if (data === 'lone') send(socketId, `${'a'.repeat(9000)}\ud800`);
        else if (data.startsWith?.('to everybody')) sendToChannel('everybody', data);
        else send(socketId, data);
      },
    },
    { maxBackpressure: 1 << 28 },
  );
}

test('large texts and bytes come back as they went, in their order', async (t) => {
  const client = await connect(t, serveEcho(t));
  const messages = texts().flatMap((text, at) => [text, `short ${at}`, Buffer.from(text)]);
  for (const message of messages) client.send(message);
  for (const [at, message] of messages.entries()) {
    const echo = await client.inbox.next();
    assert.equal(typeof echo, typeof message, `message ${at}`);
    assert.ok(typeof echo === 'string' ? echo === message : message.equals(echo), `message ${at}`);
  }
});

test('a large text reaches every subscriber', async (t) => {
  const server = serveEcho(t);
  const clients = await Promise.all([connect(t, server), connect(t, server)]);
  for (const client of clients) {
    client.send('join');
    assert.equal(await client.inbox.next(), 'join');
  }
  const text = `to everybody: ${'é'.repeat(40_000)}`;
  clients[0].send(text);
  for (const client of clients) assert.ok((await client.inbox.next()) === text);
});

test('half a surrogate pair goes out as U+FFFD, in a long text as in a short one', async (t) => {
  const client = await connect(t, serveEcho(t));
  client.send('lone');
  assert.ok((await client.inbox.next()) === `${'a'.repeat(9000)}\ufffd`);
});
