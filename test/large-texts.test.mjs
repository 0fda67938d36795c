// Texts of some KiB and more, which cross to and from JavaScript another way than short ones.

import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Worker } from 'node:worker_threads';
import { send, sendToChannel, subscribe } from 'wsbroker';
import { connect, listen, serve, stopAll } from './helpers/serving.mjs';
import { within } from './helpers/waiting.mjs';

const require = createRequire(import.meta.url);

/**
 * Where the ways part: bytes in UTF-8 that stay in the batch, characters that the addon decodes without asking first,
 * and ASCII that JavaScript reads where it is.
 */
const BORDERS = [4096, 8192, 65_536, 131_072];

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
        if (data === 'join') send(socketId, `${subscribe(socketId, 'everybody')}`);
        else if (data === 'lone') send(socketId, `${'a'.repeat(9000)}\ud800`);
        else if (data.startsWith?.('to everybody')) sendToChannel('everybody', data);
        else {
          // What came is passed on; what is another text is taken out of its string.
          send(socketId, data);
          if (typeof data === 'string') send(socketId, `${data}!`);
        }
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
    if (typeof message === 'string') assert.ok((await client.inbox.next()) === `${message}!`, `message ${at}, changed`);
  }
});

test('a handler passes on what it got now, before, later and again', async (t) => {
  const lengths = [10, 8192, 20_000, 131_072, 200_000];
  const texts = lengths.flatMap((length) => ['a', 'b', 'é'].map((character) => character.repeat(length)));
  let before = '';
  const later = [];
  const server = serve(
    t,
    {
      async handleSocketMessage(text, socketId) {
        if (text === 'the rest') {
          for (const waiting of later) send(socketId, waiting);
          return;
        }
        later.push(text);
        send(socketId, text);
        send(socketId, before);
        send(socketId, `${text.slice(0, 5000)}${text.slice(5000)}`);
        subscribe(socketId, 'mine');
        sendToChannel('mine', text);
        before = text;
        await new Promise(setImmediate);
        send(socketId, text);
      },
    },
    { maxBackpressure: 1 << 28, compression: { threshold: 100_000 } },
  );
  const clients = await Promise.all([connect(t, server), connect(t, server, { perMessageDeflate: true })]);
  for (const client of clients) {
    before = '';
    later.length = 0;
    for (const text of texts) client.send(text);
    client.send('the rest');
    const expected = texts.flatMap((text, at) => [text, at === 0 ? '' : texts[at - 1], text, text, text]);
    for (const [at, text] of [...expected, ...texts].entries()) {
      assert.ok((await client.inbox.next()) === text, `message ${at}`);
    }
    client.terminate();
    await within(once(client, 'close'), 'the close');
  }
});

test('a large text reaches every subscriber', async (t) => {
  const server = serveEcho(t);
  const clients = await Promise.all([connect(t, server), connect(t, server)]);
  for (const client of clients) {
    client.send('join');
    assert.equal(await client.inbox.next(), 'true');
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

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc');

/** A text of ASCII that no other number has. */
const numbered = (number) => `${number}: `.padEnd(200_000 + number, String.fromCharCode(97 + (number % 26)));

test('a large text lives as long as an application keeps it, or a piece of it', async (t) => {
  const kept = [];
  const server = serve(t, {
    handleSocketMessage(data, socketId) {
      kept.push(data);
      send(socketId, `${kept.length}`);
    },
  });
  const client = await connect(t, server);
  for (let number = 0; number < 60; number += 1) {
    client.send(numbered(number));
    assert.equal(await client.inbox.next(), `${number + 1}`);
    if (number % 20 === 0) collectGarbage();
  }
  collectGarbage();
  for (const [number, text] of kept.entries()) assert.ok(text === numbered(number), `text ${number}`);
  const pieces = kept.map((text) => text.slice(50_000, 150_000));
  kept.length = 0;
  collectGarbage();
  // Others take the memory, should it have been given back.
  for (let number = 60; number < 70; number += 1) {
    client.send(numbered(number));
    await client.inbox.next();
  }
  for (const [number, piece] of pieces.entries()) {
    assert.ok(piece === numbered(number).slice(50_000, 150_000), `piece ${number}`);
  }
});

test('V8 collects large texts that nobody keeps before they are too many', async (t) => {
  // A process of its own: what a client in this one takes for its messages has V8 collect as well.
  const child = fork(fileURLToPath(new URL('fixtures/text-lengths.mjs', import.meta.url)));
  t.after(() => child.kill('SIGKILL'));
  const [{ address, peak: before }] = await within(once(child, 'message'), 'the server');
  const client = await connect(t, { address });
  const text = 'x'.repeat(1_000_000);
  for (let number = 0; number < 400; number += 1) {
    client.send(text);
    assert.equal(await client.inbox.next(), '1000000');
  }
  child.send('how much?');
  const [{ peak: after }] = await within(once(child, 'message'), 'its memory');
  assert.ok(after - before < 200 * text.length, `${after - before} bytes more`);
});

test('a thread that ends while it keeps large texts takes them with it', async (t) => {
  t.after(stopAll);
  for (let round = 0; round < 5; round += 1) {
    const program = `
      const { parentPort, workerData } = require('node:worker_threads');
      const { registerWorkerThread, send } = require(workerData);
      const kept = [];
      registerWorkerThread({
        handleSocketMessage(data, socketId) {
          kept.push(data, data.slice(100, 1000));
          send(socketId, String(kept.length));
        },
      });
      parentPort.postMessage('ready');`;
    const thread = new Worker(program, { eval: true, workerData: require.resolve('wsbroker') });
    await within(once(thread, 'message'), 'the thread');
    const server = listen();
    const client = await connect(t, server);
    for (let number = 0; number < 20; number += 1) {
      client.send(numbered(number));
      assert.equal(await client.inbox.next(), `${2 * number + 2}`);
    }
    assert.equal(await within(thread.terminate(), 'the end of the thread'), 1);
    await server.stop({ timeout: 2000 });
  }
});
