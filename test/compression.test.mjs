// permessage-deflate (RFC 7692) with clients that this project did not write.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import zlib from 'node:zlib';
import { broadcast, bufferedAmount, send, sendToChannel, start, stats, subscriberCount } from 'wsbroker';
import { launchChromium, skipReason } from './helpers/chromium.mjs';
import { nodeWithWebSocket } from './helpers/node-websocket.mjs';
import { listen, open, refusal, serve, socketUrl, throwsCode } from './helpers/serving.mjs';
import { startThreads } from './helpers/threads.mjs';
import { eventually, Inbox, within } from './helpers/waiting.mjs';

const NO_TAKEOVER = 'server_no_context_takeover; client_no_context_takeover';

/** Each mode of `ws`, and what a server with shared and one with dedicated memory answers to it. */
const CLIENTS = [
  [{}, NO_TAKEOVER, ''],
  [{ threshold: 0 }, NO_TAKEOVER, ''],
  [{ serverNoContextTakeover: true }, NO_TAKEOVER, 'server_no_context_takeover'],
  [{ clientNoContextTakeover: true }, NO_TAKEOVER, 'client_no_context_takeover'],
  [{ serverNoContextTakeover: true, clientNoContextTakeover: true }, NO_TAKEOVER, NO_TAKEOVER],
  [{ serverMaxWindowBits: 9 }, `${NO_TAKEOVER}; server_max_window_bits=9`, 'server_max_window_bits=9'],
  [{ serverMaxWindowBits: 15 }, `${NO_TAKEOVER}; server_max_window_bits=15`, 'server_max_window_bits=15'],
  [{ clientMaxWindowBits: 9 }, NO_TAKEOVER, ''],
  [
    { clientMaxWindowBits: 10, serverMaxWindowBits: 11, zlibDeflateOptions: { level: 1, memLevel: 1 } },
    `${NO_TAKEOVER}; server_max_window_bits=11`,
    'server_max_window_bits=11',
  ],
];

const LINE = 'grüße_an_alle,_die_dies_lesen;_';

/** So many characters that compress well. */
function text(length) {
  return LINE.repeat(length / LINE.length + 1).slice(0, length);
}

const MESSAGES = [
  '',
  'short',
  text(1023),
  text(1024),
  text(5000),
  '𝄞🙂'.repeat(10_000),
  text(500_000),
  Buffer.alloc(0),
  Buffer.from(text(2000)),
  randomBytes(3000), // does not become smaller
  Buffer.alloc(300_000),
];

function serveEcho(t, compression, options = {}) {
  const closes = new Inbox();
  const server = serve(
    t,
    {
      handleSocketMessage: (data, socketId) => void send(socketId, data),
      handleSocketClose: (_socketId, _token, code, reason) => closes.push({ code, reason }),
    },
    // Some tests send more at once than the default lets wait.
    { compression, maxBackpressure: 1 << 26, ...options },
  );
  return { server, closes };
}

/** What the server answered to the offer of a client. */
async function connectWith(t, server, perMessageDeflate, options = {}) {
  const client = open(t, server, { perMessageDeflate, ...options });
  let answer;
  client.on('upgrade', ({ headers }) => {
    answer = headers['sec-websocket-extensions'];
  });
  await within(new Promise((resolve) => client.once('open', resolve)), 'the client opens');
  client.answer = answer;
  return client;
}

function parameters(answer) {
  return answer.split('; ').slice(1).join('; ');
}

for (const memory of ['shared', 'dedicated']) {
  test(`ws: every kind of client agrees and gets back what it sends (${memory})`, async (t) => {
    const { server } = serveEcho(t, { memory });
    for (const [offer, shared, dedicated] of CLIENTS) {
      const client = await connectWith(t, server, offer);
      assert.equal(parameters(client.answer), memory === 'shared' ? shared : dedicated, JSON.stringify(offer));
      for (const message of [...MESSAGES, ...MESSAGES]) client.send(message);
      const expected = [...MESSAGES, ...MESSAGES];
      for (const [n, message] of (await client.inbox.take(expected.length)).entries()) {
        assert.ok(Buffer.from(expected[n]).equals(Buffer.from(message)), `message ${n}, ${JSON.stringify(offer)}`);
        assert.equal(typeof message, typeof expected[n]);
      }
      client.terminate();
    }
  });

  test(`ws: windows of every size, levels of every strength (${memory})`, async (t) => {
    serveEcho(t, false);
    for (const [level, windowBits] of [1, 2, 4, 6, 9].flatMap((level) => [9, 12, 15].map((bits) => [level, bits]))) {
      const server = listen({ compression: { memory, level, windowBits, threshold: 0 } });
      const client = await connectWith(t, server, { threshold: 0 });
      const asked = windowBits < 15 ? `server_max_window_bits=${windowBits}` : '';
      assert.ok(client.answer.includes(asked), client.answer);
      if (memory === 'dedicated' && windowBits < 15) {
        assert.ok(client.answer.includes(`client_max_window_bits=${windowBits}`), client.answer);
      }
      for (let n = 0; n < 5; n += 1) {
        const message = `${randomBytes(600).toString('hex')}${text(40_000)}`;
        client.send(message);
        assert.equal(await client.inbox.next(), message);
      }
      client.terminate();
    }
  });
}

test('what was compressed is smaller, and with dedicated memory the second time by far', async (t) => {
  const sockets = new Inbox();
  serve(t, { handleSocketOpen: (socketId) => sockets.push(socketId) });
  const message = Array.from({ length: 500 }, (_, n) => `${n * 7919}`).join(); // no repetitions in itself
  const sizes = {};
  for (const memory of ['shared', 'dedicated']) {
    const client = await connectWith(t, listen({ compression: { memory } }), {});
    const socketId = await sockets.next();
    sizes[memory] = [];
    for (let n = 0; n < 2; n += 1) {
      const before = stats().bytesOut;
      assert.equal(send(socketId, message), true);
      assert.equal(await client.inbox.next(), message);
      sizes[memory].push(await eventually(() => stats().bytesOut - before || assert.fail('nothing was written')));
    }
    assert.equal(bufferedAmount(socketId), 0);
  }
  const [first, second] = sizes.shared;
  assert.ok(first < message.length * 0.7 && first === second, JSON.stringify(sizes));
  assert.equal(sizes.dedicated[0], first);
  assert.ok(sizes.dedicated[1] * 10 < first, JSON.stringify(sizes));
});

test('messages below the threshold go out plain', async (t) => {
  const sockets = new Inbox();
  const server = serve(t, { handleSocketOpen: (id) => sockets.push(id) }, { compression: { threshold: 100 } });
  const client = await connectWith(t, server, {});
  const socketId = await sockets.next();
  for (const [length, isPlain] of [
    [99, true],
    [100, false],
  ]) {
    const before = stats().bytesOut;
    send(socketId, 'x'.repeat(length));
    assert.equal((await client.inbox.next()).length, length);
    const written = await eventually(() => stats().bytesOut - before || assert.fail('nothing was written'));
    assert.equal(written === 2 + length, isPlain, `${written} for ${length}`);
  }
});

test('without the option nothing is agreed on, and without an offer neither', async (t) => {
  const { server } = serveEcho(t, undefined);
  const off = listen({ compression: false });
  const on = listen({ compression: true });
  for (const [at, offer] of [
    [server, {}],
    [off, {}],
    [on, false],
  ]) {
    const client = await connectWith(t, at, offer);
    assert.equal(client.answer, undefined);
    client.send(text(5000));
    assert.equal(await client.inbox.next(), text(5000));
  }
  assert.equal((await connectWith(t, on, {})).answer, `permessage-deflate; ${NO_TAKEOVER}`);
});

test('an extension that a handler names is not agreed on', async (t) => {
  const headers = { 'sec-websocket-extensions': 'permessage-deflate; client_max_window_bits=9', 'x-other': 'kept' };
  const server = serve(t, { handleSocketUpgrade: () => ({ headers }) });
  const client = open(t, server);
  const [response] = await within(new Promise((resolve) => client.once('upgrade', (...all) => resolve(all))), 'a 101');
  assert.equal(response.headers['sec-websocket-extensions'], undefined);
  assert.equal(response.headers['x-other'], 'kept');
});

test('a header that is no list of extensions is answered 400', async (t) => {
  const { server } = serveEcho(t, true);
  const options = { headers: { 'sec-websocket-extensions': 'permessage-deflate; =' } };
  assert.equal((await refusal(t, server, options)).status, 400);
});

test('a message is as large as what it inflates to', async (t) => {
  const maxMessageSize = 100_000;
  const { closes } = serveEcho(t, false);
  for (const memory of ['shared', 'dedicated']) {
    const server = listen({ compression: { memory }, maxMessageSize });
    const client = await connectWith(t, server, { threshold: 0 });
    client.send(Buffer.alloc(maxMessageSize));
    assert.equal((await client.inbox.next()).length, maxMessageSize);
    client.send(Buffer.alloc(maxMessageSize + 1));
    assert.deepEqual(await client.closed, { code: 1009, reason: 'message is larger than the limit' });
    assert.equal((await closes.next()).code, 1009);
  }
});

test('a bomb is stopped before it is inflated', async (t) => {
  const { server, closes } = serveEcho(t, true);
  const { rss } = process.memoryUsage();
  for (let n = 0; n < 4; n += 1) {
    const client = await connectWith(t, server, {});
    // What a compressor makes of 256 MiB of zeroes, without holding them: a whole message in itself.
    sendCompressed(client, bomb(256));
    assert.equal((await client.closed).code, 1009);
    assert.equal((await closes.next()).code, 1009);
  }
  assert.ok(process.memoryUsage().rss - rss < 200 << 20, 'memory follows what was inflated');
});

test('what does not inflate closes with 1007', async (t) => {
  const { server, closes } = serveEcho(t, true);
  const client = await connectWith(t, server, {});
  sendCompressed(client, randomBytes(20).fill(0xff));
  const expected = { code: 1007, reason: 'compressed message is not valid DEFLATE data' };
  assert.deepEqual(await client.closed, expected);
  assert.deepEqual(await closes.next(), expected);
});

test('a channel of plain and compressed sockets of every kind gets every message once and in order', async (t) => {
  await startThreads(t, 4, { decides: true });
  const servers = [
    listen(),
    listen({ compression: { threshold: 0 } }),
    listen({ compression: { threshold: 0, windowBits: 10, level: 6 } }),
    listen({ compression: { memory: 'dedicated', threshold: 0 } }),
    listen({ compression: { memory: 'dedicated', threshold: 1500, windowBits: 9 } }),
  ];
  const offers = [false, {}, { serverMaxWindowBits: 9 }, { serverNoContextTakeover: true }];
  const clients = [];
  for (const server of servers) {
    for (const offer of offers) clients.push(await connectWith(t, server, offer));
  }
  assert.equal(subscriberCount('everyone'), clients.length);
  // From all threads at once: the order of one of them, the messages of all.
  const perThread = 50;
  const before = stats();
  for (let n = 0; n < perThread; n += 1) {
    for (const publisher of [0, 1, 2, 3]) clients[publisher].send(`publish ${publisher}:${n}:${text(n * 60)}`);
    const direct = `main:${n}:${text(n * 100)}`;
    assert.equal(sendToChannel('everyone', n % 2 ? direct : Buffer.from(direct)), clients.length);
  }
  const total = perThread * 5;
  let reference;
  for (const client of clients) {
    const received = (await client.inbox.take(total)).map(String);
    for (const sender of ['main', '0', '1', '2', '3']) {
      const numbers = received
        .filter((message) => message.startsWith(`${sender}:`))
        .map((m) => Number(m.split(':')[1]));
      assert.deepEqual(numbers, [...Array(perThread).keys()], `what ${sender} sent`);
    }
    const sorted = received.sort();
    reference ??= sorted;
    assert.ok(
      sorted.every((message, n) => message === reference[n]),
      'all get the same',
    );
    assert.equal(client.inbox.length, 0);
  }
  const after = stats();
  assert.equal(after.messagesOut - before.messagesOut, total * clients.length);
  assert.deepEqual(after.dropped, before.dropped);
  assert.equal(broadcast('bye'), clients.length);
  for (const client of clients) assert.equal(await client.inbox.next(), 'bye');
});

for (const memory of ['shared', 'dedicated']) {
  test(`what is dropped for a slow reader is counted, and the rest arrives (${memory})`, async (t) => {
    const sockets = new Inbox();
    const options = { compression: { memory, level: 1 }, slowConsumer: 'drop', maxBackpressure: 200_000 };
    const server = serve(t, { handleSocketOpen: (socketId) => sockets.push(socketId) }, options);
    const client = await connectWith(t, server, { maxPayload: 0 });
    const socketId = await sockets.next();
    client.pause();
    const before = stats();
    const sent = [];
    let refused = 0;
    while (sent.length < 20 || refused < 5) {
      const message = `${sent.length + refused}:${randomBytes(50_000).toString('hex')}`; // becomes about half
      if (send(socketId, message)) sent.push(message);
      else refused += 1;
      // What had not been offered to the kernel when it took no more comes to what may wait.
      assert.ok(bufferedAmount(socketId) <= 17 * 200_000);
      // Whatever was compressed on the I/O thread has given its room back.
      await new Promise((resolve) => setImmediate(resolve));
    }
    client.resume();
    const received = await client.inbox.take(sent.length);
    assert.ok(received.every((message, n) => message === sent[n]));
    await eventually(() => assert.equal(bufferedAmount(socketId), 0));
    const after = stats();
    // Which of the two depends on how far the I/O thread had come.
    const dropped = ({ dropped: { slowConsumer, queueFull } }) => slowConsumer + queueFull;
    assert.equal(dropped(after) - dropped(before), refused);
    assert.equal(after.messagesOut - before.messagesOut, sent.length);
    assert.equal(client.inbox.length, 0);
  });
}

for (const { name, run } of nodeWithWebSocket()) {
  for (const memory of ['shared', 'dedicated']) {
    test(`Node's own WebSocket (${name}) agrees and gets back what it sends (${memory})`, async (t) => {
      const { server } = serveEcho(t, { memory, threshold: 0 });
      await run(
        t,
        `
        const socket = await open('${socketUrl(server)}');
        for (const length of [0, 1, 100, 1000, 5000, 100_000]) {
          for (const message of ['ü'.repeat(length / 2), new Uint8Array(length).fill(7)]) {
            for (let n = 0; n < 3; n += 1) {
              socket.send(message);
              const answer = await next();
              if (typeof message === 'string') assert.equal(answer, message);
              else assert.deepEqual(new Uint8Array(answer), message);
            }
          }
        }
        socket.close();`,
      );
    });
  }
}

test('Chromium agrees and gets back what it sends', { skip: skipReason }, async (t) => {
  const page = await (await launchChromium(t)).newPage();
  serveEcho(t, false);
  for (const compression of [true, { memory: 'dedicated', threshold: 0 }, { memory: 'dedicated', windowBits: 9 }]) {
    const server = listen({ compression });
    const result = await page.evaluate(async (url) => {
      const socket = new WebSocket(url);
      socket.binaryType = 'arraybuffer';
      const event = (type) => new Promise((resolve) => socket.addEventListener(type, resolve, { once: true }));
      await event('open');
      let right = 0;
      for (const length of [0, 1, 100, 2000, 50_000, 200_000]) {
        for (let n = 0; n < 3; n += 1) {
          const message = 'straße '.repeat(length / 7);
          socket.send(message);
          if ((await event('message')).data === message) right += 1;
          socket.send(new TextEncoder().encode(message));
          if (new TextDecoder().decode((await event('message')).data) === message) right += 1;
        }
      }
      const { extensions } = socket;
      socket.close();
      return { right, extensions };
    }, socketUrl(server));
    assert.equal(result.right, 36);
    assert.match(result.extensions, /^permessage-deflate/);
  }
});

test('options of compression of the wrong type or without sense are refused by name', (t) => {
  serve(t);
  const refused = (compression) => {
    const call = () => start({ bind: '127.0.0.1:0', compression });
    return throwsCode(call, 'WSB_INVALID_ARGUMENT').message;
  };
  for (const value of [null, 'true', 1, [], 'shared']) {
    assert.match(refused(value), /^options\.compression: expected .+, got .+/);
  }
  const wrong = {
    threshold: [null, -1, 1.5, '1', 2 ** 30],
    level: [null, 0, 10, 1.5, '6', -1],
    memory: [null, true, 'none', 'Shared', 0],
    windowBits: [null, 8, 16, 9.5, '15'],
  };
  for (const [name, values] of Object.entries(wrong)) {
    for (const value of values) {
      const message = refused({ [name]: value });
      assert.match(message, new RegExp(`^options\\.compression\\.${name}: expected .+, got .+`));
    }
  }
  assert.match(refused({ windowbits: 9 }), /there is no "windowbits".*did you mean 'windowBits'\?$/);
});

/** A whole message of this compressed payload, though `ws` would compress no such thing. */
function sendCompressed(client, payload) {
  const header = Buffer.alloc(14);
  header[0] = 0xc2;
  header[1] = 0x80 | 127;
  header.writeBigUInt64BE(BigInt(payload.length), 2);
  assert.ok(payload.length >= 65_536 || payload.length < 126);
  // A mask of zeroes leaves the payload as it is.
  const short = Buffer.from([0xc2, 0x80 | payload.length, 0, 0, 0, 0]);
  client._socket.write(Buffer.concat([payload.length < 126 ? short : header, payload]));
}

/** A compressed message that inflates to so many MiB of zeroes. */
function bomb(mebibytes) {
  const options = { level: 9, finishFlush: zlib.constants.Z_FULL_FLUSH };
  const piece = zlib.deflateRawSync(Buffer.alloc(1 << 20), options);
  return Buffer.concat(Array(mebibytes).fill(piece)).subarray(0, -4);
}
