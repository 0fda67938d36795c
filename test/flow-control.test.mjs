// Who does not keep up is the only one who notices: clients that read too slowly, and workers that do.

import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { bufferedAmount, connectionCount, send, sendToChannel, stats, subscriberCount } from 'wsbroker';
import { closeFrame, OPCODE, upgradeRaw } from './helpers/raw.mjs';
import { connect, serve } from './helpers/serving.mjs';
import { eventually, Inbox, within } from './helpers/waiting.mjs';

const SUBSCRIBERS = 1000;
const ROUNDS = 20;

/** 999 that read and one that does not, all in one channel; the one that stalls is full already. */
async function crowd(t, slowConsumer) {
  const opened = new Inbox();
  const closes = new Inbox();
  const server = serve(
    t,
    {
      handleSocketUpgrade: () => ({ channels: ['news'] }),
      handleSocketOpen: (socketId) => void opened.push(socketId),
      handleSocketClose: (socketId, _token, code) => void closes.push({ socketId, code }),
    },
    { slowConsumer, maxBackpressure: 262_144, closeTimeout: 500 },
  );
  const stalled = await connect(t, server);
  const stalledId = await opened.next();
  stalled.pause();
  const others = [];
  while (others.length < SUBSCRIBERS - 1) {
    const more = Array.from({ length: Math.min(100, SUBSCRIBERS - 1 - others.length) }, () => connect(t, server));
    others.push(...(await Promise.all(more)));
  }
  assert.equal(subscriberCount('news'), SUBSCRIBERS);
  return { stalled, stalledId, others, closes };
}

/** Everybody but the stalled one gets every message, in order. */
async function publishTo(others, expectedReceivers) {
  const large = 'x'.repeat(2000);
  const receivers = [];
  for (let n = 0; n < ROUNDS; n += 1) receivers.push(sendToChannel('news', `${n} ${large}`));
  for (const count of receivers) assert.ok(expectedReceivers.includes(count), `${count} receivers`);
  for (const client of others) {
    for (let n = 0; n < ROUNDS; n += 1) {
      assert.equal((await client.inbox.next(`message ${n}`)).split(' ')[0], String(n));
    }
  }
  return receivers.reduce((sum, count) => sum + count, 0);
}

test('one stalled reader among 1,000 subscribers: its messages are dropped and counted', async (t) => {
  const { stalled, stalledId, others } = await crowd(t, 'drop');
  const piece = Buffer.alloc(65_536);
  while (send(stalledId, piece));
  const before = stats().dropped.slowConsumer;
  const queued = await publishTo(others, [SUBSCRIBERS, SUBSCRIBERS - 1]);
  assert.equal(queued + stats().dropped.slowConsumer - before, ROUNDS * SUBSCRIBERS, 'each is queued or counted');
  assert.equal(connectionCount(), SUBSCRIBERS);
  assert.ok(bufferedAmount(stalledId) <= 262_144);
  for (const client of others) assert.equal(client.readyState, client.OPEN);
  stalled.resume();
  await eventually(() => assert.equal(bufferedAmount(stalledId), 0));
});

test('one stalled reader among 1,000 subscribers: it alone is closed', async (t) => {
  const { stalledId, others, closes } = await crowd(t, 'close');
  const piece = Buffer.alloc(65_536);
  while (send(stalledId, piece));
  await publishTo(others, [SUBSCRIBERS - 1]);
  assert.equal(connectionCount(), SUBSCRIBERS - 1);
  assert.deepEqual(await closes.next(), { socketId: stalledId, code: 1013 });
  for (const client of others) assert.equal(client.readyState, client.OPEN);
  assert.equal(closes.length, 0);
});

const FLOODING = 4;
/** 64 KiB each: 1 GiB from all of them. */
const FRAMES = 4096;
const FRAME = 65_536;

/**
 * What the process may hold more than at rest, as the README states it: 16 MiB of events, and what each I/O thread had
 * gathered beyond; the allocator has its share.
 */
const STATED_ASLEEP = 32 << 20;

/** The same while they are worked off: what was handled waits for the garbage collector. */
const STATED = 160 << 20;

/** A binary frame of a number, masked with zeros: its bytes are what they are. */
function numbered(n) {
  const bytes = Buffer.alloc(14 + FRAME);
  bytes[0] = 0x80 | OPCODE.binary;
  bytes[1] = 0x80 | 127;
  bytes.writeBigUInt64BE(BigInt(FRAME), 2);
  bytes.writeUInt32BE(n, 14);
  return bytes;
}

async function flood(socket, progress) {
  for (let n = 0; n < FRAMES; n += 1) {
    if (!socket.write(numbered(n))) await once(socket, 'drain');
    progress.sent += 1;
  }
}

test('1 GB at a worker that sleeps: bounded memory, and nothing is lost', async (t) => {
  const child = fork(fileURLToPath(new URL('fixtures/flooded.mjs', import.meta.url)), {
    env: { ...process.env, WSBROKER_IO_THREADS: '2' },
  });
  t.after(() => child.kill('SIGKILL'));
  const told = { opened: new Inbox(), closed: new Inbox(), stats: new Inbox(), error: new Inbox(), port: new Inbox() };
  let peak = 0;
  child.on('message', (message) => {
    peak = Math.max(peak, message.peak);
    for (const [kind, inbox] of Object.entries(told)) if (kind in message) inbox.push(message[kind]);
  });
  const port = await told.port.next('the server');
  const atRest = peak;
  const clients = [];
  for (let n = 0; n < FLOODING; n += 1) {
    clients.push(await upgradeRaw(t, { address: { host: '127.0.0.1', port } }));
    await told.opened.next();
  }
  const progress = { sent: 0 };
  const flooded = Promise.all(clients.map(({ socket }) => flood(socket, progress)));

  const look = async () => {
    child.send('look');
    return told.stats.next();
  };
  // It stands when the worker is full and nothing more is read, however long one looks.
  await eventually(async () => {
    const before = await look();
    const { workers, bytesIn } = await look();
    assert.ok(workers[0].full);
    assert.equal(bytesIn, before.bytesIn);
  });
  const standing = await look();
  assert.ok(progress.sent < FLOODING * FRAMES, 'the clients are stopped');
  assert.ok(standing.workers[0].queuedBytes <= 18 << 20, `${standing.workers[0].queuedBytes} bytes wait`);
  const asleep = peak - atRest;
  assert.ok(asleep <= STATED_ASLEEP, `asleep: ${asleep >> 20} MiB`);

  child.send('wake');
  await within(flooded, 'everything is taken', 120_000);
  for (const { socket } of clients) socket.write(closeFrame(1000));
  assert.deepEqual(await told.closed.take(FLOODING), Array(FLOODING).fill(FRAMES), 'each in its order, and all');
  const { dropped } = await look();
  for (const [reason, count] of Object.entries(dropped)) assert.equal(count, 0, reason);
  assert.equal(told.error.length, 0);
  assert.ok(peak - atRest <= STATED, `awake: ${(peak - atRest) >> 20} MiB`);
  t.diagnostic(`${atRest >> 20} MiB at rest, ${asleep >> 20} more asleep, ${(peak - atRest) >> 20} more in the end`);
  child.send('stop');
  await within(once(child, 'exit'), 'the end of the process');
});
