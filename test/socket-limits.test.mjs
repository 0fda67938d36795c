// `limits` of each socket: messages, bytes and channels, over real sockets.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { channels, copySubscriptions, send, start, stats, subscribe, subscriberCount, unsubscribe } from 'wsbroker';
import { connectRaw, frame, handshake, OPCODE, upgradeRaw } from './helpers/raw.mjs';
import { connect, listen, refusal, serve, throwsCode } from './helpers/serving.mjs';
import { startThreads } from './helpers/threads.mjs';
import { eventually, Inbox, within } from './helpers/waiting.mjs';

/** So long, 24 days, that no token comes back while a test runs. */
const NEVER = 2 ** 31 - 1;

/** Handlers that keep what happens. */
function journal() {
  const opened = new Inbox();
  const messages = new Inbox();
  const closes = new Inbox();
  return {
    opened,
    messages,
    closes,
    handleSocketOpen: (socketId) => void opened.push(socketId),
    handleSocketMessage: (data) => void messages.push(data),
    handleSocketClose: (_id, _token, code, reason) => void closes.push({ code, reason }),
  };
}

function grown() {
  const before = stats().dropped;
  return (name) => stats().dropped[name] - before[name];
}

test('senseless limits are refused by name', (t) => {
  serve(t);
  const wrong = {
    messagesPerSocket: [null, 100, 'many', [], 1n],
    bytesPerSocket: [null, 100, 'many', []],
    'messagesPerSocket.capacity': [undefined, null, 0, -1, 1.5, Number.NaN, '1', 2 ** 31],
    'bytesPerSocket.capacity': [undefined, null, 0, -1, 1.5, Number.NaN, '1', 2 ** 31],
    'messagesPerSocket.interval': [undefined, null, 0, -1, 1.5, '1', 2 ** 31],
    'bytesPerSocket.onExceed': [null, true, 'Close', 'wait', 0],
    channelsPerSocket: [null, 0, -1, 1.5, '1', {}, 2 ** 32],
  };
  for (const [name, values] of Object.entries(wrong)) {
    for (const value of values) {
      const [limit, part] = name.split('.');
      const whole = { capacity: 1, interval: 1 };
      const limits = { [limit]: part ? { ...whole, [part]: value } : value };
      const { message } = throwsCode(() => start({ bind: '127.0.0.1:0', limits }), 'WSB_INVALID_ARGUMENT');
      assert.match(message, new RegExp(`^options\\.limits\\.${name.replace('.', '\\.')}: expected .+, got .+`));
    }
  }
  const refused = (limits) => throwsCode(() => start({ bind: '127.0.0.1:0', limits }), 'WSB_INVALID_ARGUMENT').message;
  assert.match(refused({ messagePerSocket: true }), /did you mean 'messagesPerSocket'\?$/);
  assert.match(
    refused({ bytesPerSocket: { capacity: 1, interval: 1, onExeed: 'drop' } }),
    /did you mean 'onExceed'\?$/,
  );
  assert.equal(stats().listeners, 1, 'nothing is half-started');
});

test('off unless given, and `true` is the documented default', async (t) => {
  const handlers = journal();
  const unlimited = serve(t, handlers);
  const limits = { messagesPerSocket: true, bytesPerSocket: true, channelsPerSocket: true };
  const off = { messagesPerSocket: false, bytesPerSocket: false, channelsPerSocket: false };
  const standard = listen({ limits });
  const none = listen({ limits: off });
  for (const [server, isLimited] of [
    [unlimited, false],
    [none, false],
    [standard, true],
  ]) {
    const client = await connect(t, server);
    const socketId = await handlers.opened.next();
    for (let n = 0; n < 101; n += 1) {
      const join = () => subscribe(socketId, `channel ${n}`);
      if (n < 100 || !isLimited) assert.ok(join());
      else throwsCode(join, 'WSB_LIMIT_REACHED');
    }
    for (let n = 0; n < 1200; n += 1) client.send('x');
    if (isLimited) assert.equal((await within(client.closed, 'the close')).code, 1008);
  }
  // The bucket of 1000 fills up by one every 10 ms, while the test runs as well.
  await eventually(() => assert.ok(handlers.messages.length >= 2 * 1200 + 1000));
  assert.ok(handlers.messages.length < 3 * 1200);
});

test('close: the client is told which limit, and what came before is handled', async (t) => {
  const { messages, closes, ...handlers } = journal();
  const server = serve(t, handlers, { limits: { messagesPerSocket: { capacity: 50, interval: NEVER } } });
  const count = grown();
  const client = await connect(t, server);
  for (let n = 0; n < 51; n += 1) client.send(String(n));
  const expected = { code: 1008, reason: 'limit of messagesPerSocket exceeded' };
  assert.deepEqual(await within(client.closed, 'the close'), expected);
  assert.deepEqual(await closes.next(), expected);
  assert.deepEqual(
    await messages.take(50),
    Array.from({ length: 50 }, (_, n) => String(n)),
  );
  assert.equal(messages.length, 0);
  assert.equal(count('overRateCloses'), 1);
});

test('drop: to the token on each socket, with four workers', async (t) => {
  const threads = await startThreads(t, 4);
  const server = listen({ limits: { messagesPerSocket: { capacity: 20, interval: NEVER, onExceed: 'drop' } } });
  const count = grown();
  const clients = [];
  for (let n = 0; n < 16; n += 1) clients.push(await connect(t, server));
  await Promise.all(
    clients.map(async (client) => {
      for (let n = 0; n < 100; n += 1) client.send('who');
      for (let n = 0; n < 20; n += 1) await client.inbox.next();
    }),
  );
  await eventually(() => assert.equal(count('overRate'), 16 * 80));
  for (const thread of threads) await eventually(() => assert.equal(thread.finished, 4 * 20, 'four sockets each'));
  for (const client of clients) {
    assert.equal(client.readyState, client.OPEN);
    assert.equal(client.inbox.length, 0);
  }
  assert.equal(count('overRateCloses'), 0);
});

test('pause: the client is slowed down, and nothing is lost, with four workers', async (t) => {
  const threads = await startThreads(t, 4);
  // 10 at once and one every 20 ms; each is as large as a read of a socket that is short of tokens.
  const server = listen({ limits: { messagesPerSocket: { capacity: 10, interval: 200, onExceed: 'pause' } } });
  const count = grown();
  const clients = [];
  for (let n = 0; n < 8; n += 1) clients.push(await connect(t, server));
  const began = performance.now();
  await Promise.all(
    clients.map(async (client) => {
      for (let n = 0; n < 40; n += 1) client.send(`who ${'x'.repeat(1100)}`);
      for (let n = 0; n < 40; n += 1) await client.inbox.next();
    }),
  );
  const took = performance.now() - began;
  assert.ok(took >= 29 * 20, `40 messages in ${took} ms`);
  for (const thread of threads) assert.equal(thread.finished, 2 * 40);
  assert.equal(count('overRate'), 0);
  assert.equal(count('overRateCloses'), 0);
  await eventually(() => assert.equal(stats().pausedSockets, 0));
});

test('a paused socket is seen in the numbers, and can be sent to and closed', async (t) => {
  const { opened, ...handlers } = journal();
  const server = serve(
    t,
    { ...handlers, handleSocketOpen: (socketId) => opened.push(socketId) },
    {
      limits: { bytesPerSocket: { capacity: 1000, interval: NEVER, onExceed: 'pause' } },
    },
  );
  const client = await connect(t, server);
  const socketId = await opened.next();
  client.send('x'.repeat(2000));
  await eventually(() => assert.equal(stats().pausedSockets, 1));
  assert.ok(send(socketId, 'can you hear me'));
  assert.equal(await client.inbox.next(), 'can you hear me');
  await within(server.stop(), 'the stop');
  assert.equal((await client.closed).code, 1001);
});

test('bytes: to the byte, with the frame headers', async (t) => {
  const { messages, closes, ...handlers } = journal();
  const limits = { bytesPerSocket: { capacity: 10 * 106, interval: NEVER } };
  const server = serve(t, handlers, { limits });
  const raw = await upgradeRaw(t, server);
  for (let n = 0; n < 10; n += 1) raw.write(frame(OPCODE.text, 'y'.repeat(100)));
  assert.equal((await messages.take(10)).length, 10);
  raw.write(frame(OPCODE.pong).subarray(0, 1));
  assert.deepEqual(await raw.closeFrame(), { code: 1008, reason: 'limit of bytesPerSocket exceeded' });
  assert.equal((await closes.next()).code, 1008);
});

test('bytes: what came compressed counts with its size when unpacked', async (t) => {
  const handlers = journal();
  const limits = { bytesPerSocket: { capacity: 100_000, interval: NEVER } };
  const server = serve(t, handlers, { limits, compression: true });
  const client = await connect(t, server, { perMessageDeflate: { threshold: 0 } });
  assert.equal(client.extensions, 'permessage-deflate');
  const before = stats().bytesIn;
  for (let n = 0; n < 11; n += 1) client.send('z'.repeat(9_000));
  assert.equal((await handlers.messages.take(11)).length, 11);
  assert.ok(stats().bytesIn - before < 5_000, 'it came compressed');
  client.send('z'.repeat(9_000));
  assert.equal((await within(client.closed, 'the close')).code, 1008);
});

test('a ping flood is bounded like a flood of messages', async (t) => {
  const server = serve(t, journal(), { limits: { messagesPerSocket: { capacity: 5, interval: NEVER } } });
  const client = await connect(t, server);
  let pongs = 0;
  client.on('pong', () => {
    pongs += 1;
  });
  for (let n = 0; n < 6; n += 1) client.ping();
  assert.equal((await within(client.closed, 'the close')).code, 1008);
  assert.equal(pongs, 5);
});

test('messages that come with the handshake count as well', async (t) => {
  const handlers = journal();
  const server = serve(t, handlers, { limits: { messagesPerSocket: { capacity: 3, interval: NEVER } } });
  const raw = await connectRaw(t, server);
  const early = [1, 2, 3, 4].map((n) => frame(OPCODE.text, String(n)));
  raw.write(Buffer.concat([Buffer.from(handshake()), ...early]));
  assert.equal((await raw.response()).status, 101);
  assert.equal((await raw.closeFrame()).code, 1008);
  assert.deepEqual(await handlers.messages.take(3), ['1', '2', '3']);
});

test('channels: subscribe throws beyond the limit, copySubscriptions leaves out, and both are counted', async (t) => {
  const handlers = journal();
  const server = serve(t, handlers, { limits: { channelsPerSocket: 2 } });
  const count = grown();
  await connect(t, server);
  const socketId = await handlers.opened.next();
  assert.ok(subscribe(socketId, 'a'));
  assert.ok(subscribe(socketId, 'b'));
  const { message } = throwsCode(() => subscribe(socketId, 'c'), 'WSB_LIMIT_REACHED');
  assert.equal(
    message,
    `subscribe: socket ${socketId} is in 2 channels already, which is the limit of channelsPerSocket`,
  );
  assert.equal(subscribe(socketId, 'a'), false, 'it is in that one already');
  assert.equal(copySubscriptions('a', 'c'), 0);
  assert.equal(subscriberCount('c'), 0);
  assert.equal(count('channelLimit'), 2);
  unsubscribe(socketId, 'b');
  assert.equal(copySubscriptions('a', 'c'), 1);
  assert.deepEqual(channels(socketId).map(String).sort(), ['a', 'c']);
});

test('channels: an upgrade that is accepted with too many is answered 500', async (t) => {
  let wanted = ['a', 'b', 'c'];
  const server = serve(t, { handleSocketUpgrade: () => ({ channels: wanted }) }, { limits: { channelsPerSocket: 2 } });
  const count = grown();
  assert.equal((await refusal(t, server)).status, 500);
  assert.equal(count('channelLimit'), 1);
  wanted = ['a', 'b', 'a'];
  const client = await connect(t, server);
  client.close();
  await once(client, 'close');
});
