// Clients that this project did not write: `ws`, and the WebSocket that Node has built in. test/chromium.test.mjs has
// that of a browser.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { close, send } from 'wsbroker';
import { nodeWithWebSocket } from './helpers/node-websocket.mjs';
import { connect, serve, socketUrl } from './helpers/serving.mjs';
import { Inbox, within } from './helpers/waiting.mjs';

const MEBIBYTE = 1 << 20;

const TEXTS = ['', 'x', 'ünïcödé', '€', '𝄞', '\u0000', '\ufeffmarked', 'é'.repeat(70), '🙂'.repeat(20_000)];

const LENGTHS = [0, 1, 125, 126, 127, 65_535, 65_536, 65_537];

/** Echoes, and closes with the code and reason that it is asked for. */
function serveEcho(t, options) {
  const closes = new Inbox();
  const seen = new Inbox();
  const server = serve(
    t,
    {
      handleSocketMessage(data, socketId) {
        const [, code, reason] = /^close (\d+) (.*)$/.exec(data) ?? [];
        seen.push(data);
        if (code) close(socketId, Number(code), reason);
        else send(socketId, data);
      },
      handleSocketClose: (_socketId, _token, code, reason) => closes.push({ code, reason }),
    },
    options,
  );
  return { server, closes, seen };
}

test('ws: text and bytes of every kind of length come back as they went', async (t) => {
  const { server } = serveEcho(t);
  const client = await connect(t, server);
  const bytes = LENGTHS.map((length) => randomBytes(length));
  for (const message of [...TEXTS, ...bytes]) client.send(message);
  assert.deepEqual(await client.inbox.take(TEXTS.length + bytes.length), [...TEXTS, ...bytes]);
});

test('ws: a message of exactly the default limit is taken, one byte more closes with 1009', async (t) => {
  const { server, closes, seen } = serveEcho(t);
  const client = await connect(t, server);
  const largest = randomBytes(MEBIBYTE);
  client.send(largest);
  assert.deepEqual(await client.inbox.next(), largest);
  client.send('é'.repeat(MEBIBYTE / 2));
  assert.equal((await client.inbox.next()).length, MEBIBYTE / 2);
  client.send(Buffer.alloc(MEBIBYTE + 1));
  assert.equal((await client.closed).code, 1009);
  assert.equal((await closes.next()).code, 1009);
  assert.deepEqual([seen.length, closes.length], [2, 0]);
});

test('ws: the limit counts the whole of a fragmented message', async (t) => {
  const { server, closes } = serveEcho(t);
  const client = await connect(t, server);
  const half = randomBytes(MEBIBYTE / 2);
  client.send(half, { fin: false });
  client.send(half, { fin: true });
  assert.deepEqual(await client.inbox.next(), Buffer.concat([half, half]));
  client.send(half, { fin: false });
  client.send(half, { fin: false });
  client.send(Buffer.alloc(1), { fin: true });
  assert.equal((await client.closed).code, 1009);
  assert.equal((await closes.next()).code, 1009);
});

test('ws: fragments are one message, wherever they are cut and whatever comes between', async (t) => {
  const { server, seen } = serveEcho(t);
  const client = await connect(t, server);
  const pongs = new Inbox();
  client.on('pong', (payload) => pongs.push(payload.toString()));
  const bytes = Buffer.from('ünï €𝄞 – cut between any two bytes');
  for (let at = 0; at <= bytes.length; at += 1) {
    client.send(bytes.subarray(0, at), { binary: false, fin: false });
    client.ping(`between ${at}`);
    client.send('', { fin: false });
    client.send(bytes.subarray(at), { fin: true });
    assert.equal(await client.inbox.next(), bytes.toString());
    assert.equal(await pongs.next(), `between ${at}`);
  }
  for (let at = 0; at < bytes.length; at += 1) {
    client.send(bytes.subarray(at, at + 1), { binary: true, fin: at === bytes.length - 1 });
  }
  assert.deepEqual(await client.inbox.next(), bytes);
  assert.equal(seen.length, bytes.length + 2);
});

test('ws: a ping is answered with its payload, a pong with nothing', async (t) => {
  const { server, seen } = serveEcho(t);
  const client = await connect(t, server);
  const pongs = new Inbox();
  client.on('pong', (payload) => pongs.push(payload));
  const payloads = [Buffer.alloc(0), Buffer.from('x'), randomBytes(125)];
  for (const payload of payloads) client.ping(payload);
  client.pong('unasked');
  client.send('behind them');
  assert.equal(await client.inbox.next(), 'behind them');
  assert.deepEqual(await pongs.take(payloads.length), payloads);
  assert.deepEqual([pongs.length, seen.length], [0, 1]);
});

test('ws: the heartbeat pings a silent client, and one that answers stays', async (t) => {
  const heartbeat = { interval: 50, timeout: 5000 };
  const { server } = serveEcho(t, { heartbeat });
  const client = await connect(t, server);
  const pings = new Inbox();
  client.on('ping', () => pings.push('ping'));
  await pings.take(3);
  client.send('alive');
  assert.equal(await client.inbox.next(), 'alive');
});

/** Codes that both sides may send, with a reason of the largest size among them. */
const CLOSES = [
  { code: 1000, reason: '' },
  { code: 1001, reason: 'going' },
  { code: 1003, reason: 'ünsupported €' },
  { code: 1011, reason: 'x'.repeat(123) },
  { code: 3000, reason: 'é'.repeat(61) },
  { code: 4999, reason: 'mine' },
];

test('ws: code and reason of a close come to the other side, and back', async (t) => {
  const { server, closes } = serveEcho(t);
  for (const { code, reason } of CLOSES) {
    const leaving = await connect(t, server);
    leaving.close(code, reason);
    assert.deepEqual(await closes.next(), { code, reason });
    assert.equal((await leaving.closed).code, code);

    const sentAway = await connect(t, server);
    sentAway.send(`close ${code} ${reason}`);
    assert.deepEqual(await sentAway.closed, { code, reason });
    assert.equal((await closes.next()).code, code);
  }
  const silent = await connect(t, server);
  silent.close();
  assert.deepEqual(await closes.next(), { code: 1005, reason: '' });
  assert.deepEqual(await silent.closed, { code: 1005, reason: '' });
  const cut = await connect(t, server);
  cut.terminate();
  assert.deepEqual(await closes.next(), { code: 1006, reason: '' });
  assert.equal(closes.length, 0);
});

const nodes = nodeWithWebSocket();

test("Node's own WebSocket: somewhere here is a Node that has one", () => assert.ok(nodes.length > 0));

/** Node's client takes the byte order mark off a text that begins with one; `ws` has shown that the server does not. */
const TEXTS_FOR_NODE = TEXTS.filter((text) => !text.startsWith('\ufeff') && text.length < 1000);

for (const { name, run } of nodes) {
  test(`Node's own WebSocket (${name}): text, bytes and unicode come back as they went`, async (t) => {
    const { server } = serveEcho(t);
    await run(
      t,
      `
      const socket = await open('${socketUrl(server)}');
      for (const text of [...${JSON.stringify(TEXTS_FOR_NODE)}, '🙂'.repeat(20_000)]) {
        socket.send(text);
        assert.equal(await next(), text);
      }
      for (const length of ${JSON.stringify([...LENGTHS, MEBIBYTE])}) {
        const bytes = Uint8Array.from({ length }, (_, at) => (at * 31) % 256);
        socket.send(bytes);
        assert.deepEqual(new Uint8Array(await next()), bytes);
      }
      socket.send(new Blob(['a blob']));
      assert.equal(Buffer.from(await next()).toString(), 'a blob');
      socket.close();`,
    );
  });

  test(`Node's own WebSocket (${name}): one byte over the limit closes with 1009`, async (t) => {
    const { server, closes } = serveEcho(t);
    await run(
      t,
      `
      const socket = await open('${socketUrl(server)}');
      socket.send(new Uint8Array(${MEBIBYTE + 1}));
      const { code, wasClean } = await closed;
      assert.deepEqual([code, wasClean], [1009, true]);`,
    );
    assert.equal((await closes.next()).code, 1009);
  });

  test(`Node's own WebSocket (${name}): close codes and reasons both ways`, async (t) => {
    const { server, closes } = serveEcho(t);
    // What a page may close with.
    const own = CLOSES.filter(({ code }) => code === 1000 || code >= 3000);
    await run(
      t,
      `
      for (const { code, reason } of ${JSON.stringify(own)}) {
        const socket = await open('${socketUrl(server)}');
        socket.close(code, reason);
        assert.equal((await closed).code, code);
      }
      for (const { code, reason } of ${JSON.stringify(CLOSES)}) {
        const socket = await open('${socketUrl(server)}');
        socket.send('close ' + code + ' ' + reason);
        const event = await closed;
        assert.deepEqual([event.code, event.reason, event.wasClean], [code, reason, true]);
      }`,
    );
    assert.deepEqual(await closes.take(own.length), own);
    const codes = (await closes.take(CLOSES.length)).map(({ code }) => code);
    assert.deepEqual(
      codes,
      CLOSES.map(({ code }) => code),
    );
  });

  test(`Node's own WebSocket (${name}): a subprotocol is agreed on, pings are answered`, async (t) => {
    const opens = new Inbox();
    const heartbeat = { interval: 100, timeout: 2000 };
    const server = serve(
      t,
      { handleSocketUpgrade: () => ({ protocol: 'chat.v2' }), handleSocketOpen: (socketId) => opens.push(socketId) },
      { heartbeat },
    );
    const client = run(
      t,
      `
      const socket = await open('${socketUrl(server)}', ['chat.v1', 'chat.v2']);
      assert.equal(socket.protocol, 'chat.v2');
      assert.equal(await next(), 'still there');
      socket.close();`,
    );
    const socketId = await opens.next('a client');
    const silent = await connect(t, server, { autoPong: false });
    assert.equal((await silent.closed).code, 1006, 'who came later and does not answer is closed');
    assert.equal(send(socketId, 'still there'), true, 'who answers is not');
    await within(client, 'the client ends');
  });
}
