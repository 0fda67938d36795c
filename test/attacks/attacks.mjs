/**
 * What hostile clients do. An attack gets the server's port and a function that says when its time is over; it answers
 * with a tally of what its connections got. `expected` are the outcomes that are allowed, `options` those of the server,
 * `memory` the MiB that it may add to the server's, where that is more than for others.
 */

import { setTimeout as delay } from 'node:timers/promises';
import { constants, deflateRawSync } from 'node:zlib';
import { frame, handshake, OPCODE } from '../helpers/raw.mjs';
import { Peer, tally } from './peer.mjs';
import { tables } from './tables.mjs';

const { binary, continuation, ping, text } = OPCODE;
const CROWD = 200;

/** What a client says that wants compressed messages. */
const DEFLATES = { 'Sec-WebSocket-Extensions': 'permessage-deflate' };

const FLOOD = Buffer.concat(Array(500).fill(frame(text, 'x'.repeat(64))));

export const ATTACKS = {
  'heads that come a byte at a time': {
    options: { headerTimeout: 1000 },
    expected: ['ended', 'reset', 'status 408'],
    attack: (port, isOver) => drip(port, isOver, Buffer.from(handshake({ 'X-Long': 'x'.repeat(10_000) }))),
  },
  'bodies that come a byte at a time': {
    options: { bodyTimeout: 1000 },
    expected: ['status 408'],
    attack: (port, isOver) => {
      const head = 'POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000\r\n\r\n';
      return drip(port, isOver, Buffer.alloc(10_000, 'x'), head);
    },
  },
  'frames that come a byte at a time': {
    expected: ['open'],
    attack: async (port, isOver) => {
      const peers = await crowd(port);
      const bytes = frame(binary, Buffer.alloc(50_000));
      for (let at = 0; !isOver(); at += 1) {
        for (const peer of peers) await peer.write(bytes.subarray(at, at + 1));
        await delay(10);
      }
      return leave(peers);
    },
  },
  'a message in 100,000 fragments of one byte': {
    expected: ['the message came back'],
    attack: (port, isOver) => repeatedly(isOver, () => fragments(port, 100_000)),
  },
  'fragments of one byte until the limit': {
    options: { maxMessageSize: 50_000 },
    expected: ['close 1009'],
    attack: (port, isOver) => repeatedly(isOver, () => fragments(port, 100_000)),
  },
  'a million empty fragments': {
    expected: ['the message came back'],
    attack: async (port) => {
      const peer = await Peer.upgraded(port);
      const many = Buffer.concat(Array(1000).fill(frame(continuation, '', { fin: false })));
      await peer.write(frame(binary, 'x', { fin: false }));
      for (let n = 0; n < 1000; n += 1) await peer.write(many);
      await peer.write(frame(continuation, ''));
      await peer.until(() => peer.received === 3, 'the message');
      peer.socket.destroy();
      return tally(['the message came back']);
    },
  },
  'a flood of pings whose pongs nobody reads': {
    expected: ['close 1013', 'reset', 'ended'],
    attack: async (port, isOver) => {
      const peers = await crowd(port, 10);
      for (const { socket } of peers) socket.pause();
      const flood = Buffer.concat(Array(2000).fill(frame(ping, 'x'.repeat(100))));
      await Promise.all(peers.map((peer) => pour(peer, flood, isOver)));
      for (const { socket } of peers) socket.resume();
      return tally(await Promise.all(peers.map(({ ended }) => ended)));
    },
  },
  'a flood of pings whose pongs are read': {
    expected: ['open', 'close 1013'],
    attack: async (port, isOver) => {
      const peers = await crowd(port, 10);
      const flood = Buffer.concat(Array(2000).fill(frame(ping, 'x')));
      await Promise.all(peers.map((peer) => pour(peer, flood, isOver)));
      return leave(peers);
    },
  },
  'a flood of messages whose echoes are read': {
    expected: ['open', 'close 1013'],
    attack: async (port, isOver) => {
      const peers = await crowd(port, 10);
      await Promise.all(peers.map((peer) => pour(peer, FLOOD, isOver)));
      return leave(peers);
    },
  },
  'a reader that takes one byte a second': {
    options: { closeTimeout: 1000 },
    expected: ['close 1013', 'reset', 'ended'],
    attack: async (port, isOver) => {
      const peers = await crowd(port, 20);
      for (const { socket } of peers) socket.pause();
      const message = frame(binary, Buffer.alloc(60_000));
      const read = setInterval(() => {
        for (const { socket } of peers) socket.read(1);
      }, 1000);
      // Enough for the buffers of both kernels and the limit; then it has all been said.
      await Promise.all(peers.map((peer) => pour(peer, message, isOver, 400)));
      clearInterval(read);
      for (const { socket } of peers) socket.resume();
      return tally(await Promise.all(peers.map(({ ended }) => ended)));
    },
  },
  'connections that are closed halfway': {
    expected: ['status 400', 'status 200', 'ended', 'reset', 'close 1002', 'close 1005'],
    attack: (port, isOver) =>
      storm(isOver, async (n) => {
        const peer = n % 2 === 0 ? new Peer(port) : await Peer.upgraded(port);
        const said = n % 2 === 0 ? handshake() : frame(binary, Buffer.alloc(1000));
        peer.socket.end(said.slice(0, n % said.length));
        return peer.ended;
      }),
  },
  'resets in the middle of everything': {
    expected: ['ended'],
    attack: (port, isOver) =>
      storm(isOver, async (n) => {
        const peer = n % 2 === 0 ? new Peer(port) : await Peer.upgraded(port);
        const said = n % 2 === 0 ? handshake() : frame(binary, Buffer.alloc(100_000));
        await peer.write(said.slice(0, (n * 7919) % (said.length + 1)));
        return peer.reset();
      }),
  },
  'connecting and leaving, again and again': {
    expected: ['ended', 'reset'],
    attack: (port, isOver) =>
      storm(isOver, async () => {
        const peer = await Peer.upgraded(port);
        peer.socket.destroy();
        return peer.ended;
      }),
  },
  'answers that nobody reads': {
    options: { writeTimeout: 1000 },
    expected: ['reset', 'ended'],
    attack: async (port) => {
      const requests = Buffer.from('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n'.repeat(1000));
      const asker = async () => {
        const peer = new Peer(port);
        peer.socket.pause();
        while (!peer.isOver) await peer.write(requests);
        return peer.ended;
      };
      return tally(await Promise.all(Array.from({ length: 20 }, asker)));
    },
  },
  'bombs: 64 MiB in a message of 64 KiB': {
    options: { compression: true },
    expected: ['close 1009'],
    attack: (port, isOver) => {
      const bomb = compressed(Buffer.alloc(64 << 20));
      return storm(isOver, async () => {
        const peer = await Peer.upgraded(port, DEFLATES);
        await peer.write(bomb);
        return peer.ended;
      });
    },
  },
  'bombs that end just below the limit, at a rate': {
    options: {
      compression: true,
      limits: { bytesPerSocket: { capacity: 2 << 20, interval: 1000, onExceed: 'pause' } },
    },
    // Two batches of 16 MiB, their Buffers until they are collected, and the echoes on their way.
    memory: 192,
    expected: ['open', 'close 1013'],
    attack: async (port, isOver) => {
      const peers = await crowd(port, 10, DEFLATES);
      const flood = compressed(Buffer.alloc((1 << 20) - 1));
      await Promise.all(peers.map((peer) => pour(peer, flood, isOver)));
      return leave(peers);
    },
  },
  'compressed messages that are nothing but code tables': {
    options: { compression: true },
    expected: ['open'],
    attack: async (port, isOver) => {
      const peers = await crowd(port, 10, DEFLATES);
      const message = frame(binary, tables(40_000), { rsv: 4 });
      await Promise.all(peers.map((peer) => pour(peer, message, isOver)));
      return leave(peers);
    },
  },
  'compressed messages of empty blocks': {
    options: { compression: true },
    expected: ['close 1007'],
    attack: (port, isOver) => {
      const blocks = Buffer.concat(Array(10_000).fill(Buffer.from([0, 0, 0, 0xff, 0xff])));
      return storm(isOver, async () => {
        const peer = await Peer.upgraded(port, DEFLATES);
        await peer.write(frame(binary, blocks, { rsv: 4 }));
        return peer.ended;
      });
    },
  },
  'a flood beyond the rate of a socket': {
    options: { limits: { messagesPerSocket: { capacity: 1000, interval: 1000 } } },
    expected: ['close 1008'],
    attack: (port, isOver) =>
      storm(isOver, async () => {
        const peer = await Peer.upgraded(port);
        for (let n = 0; n < 100; n += 1) await peer.write(FLOOD);
        return peer.ended;
      }),
  },
  'a flood that is made to wait': {
    options: { limits: { messagesPerSocket: { capacity: 1000, interval: 1000, onExceed: 'pause' } } },
    expected: ['open'],
    attack: async (port, isOver) => {
      const peers = await crowd(port, 10);
      await Promise.all(peers.map((peer) => pour(peer, FLOOD, isOver)));
      return leave(peers);
    },
  },
  'one address that connects and connects': {
    options: { limits: { connectionsPerIp: 100, upgradesPerIp: true } },
    expected: ['status 101', 'status 429', 'ended', 'reset'],
    attack: (port, isOver) =>
      storm(isOver, async () => {
        const peer = new Peer(port, { localAddress: '127.0.0.66' });
        await peer.write(handshake());
        await Promise.race([peer.ended, peer.until(() => peer.received > 0, 'an answer').catch(() => {})]);
        const outcome = peer.outcome();
        peer.socket.destroy();
        return outcome;
      }),
  },
  'lengths of messages that never come': {
    expected: ['open'],
    attack: async (port, isOver) => {
      const peers = await crowd(port);
      for (const peer of peers) await peer.write(frame(binary, 'x', { length: 1 << 20 }));
      while (!isOver()) await delay(20);
      return leave(peers);
    },
  },
  'random bytes': {
    expected: ['status 400', 'close 1002', 'close 1005', 'close 1007', 'close 1009', 'reset', 'ended'],
    attack: (port, isOver) =>
      storm(isOver, async (n) => {
        const peer = n % 2 === 0 ? new Peer(port) : await Peer.upgraded(port);
        await peer.write(crypto.getRandomValues(new Uint8Array(2000)));
        peer.socket.end();
        return peer.ended;
      }),
  },
};

/** Open sockets. */
function crowd(port, count = CROWD, headers = {}) {
  return Promise.all(Array.from({ length: count }, () => Peer.upgraded(port, headers)));
}

/** A message that is compressed as permessage-deflate has it (RFC 7692 section 7.2.1). */
function compressed(bytes) {
  const deflated = deflateRawSync(bytes, { finishFlush: constants.Z_SYNC_FLUSH });
  return frame(binary, deflated.subarray(0, -4), { rsv: 4 });
}

/** How they stand; then they go. */
function leave(peers) {
  const outcomes = peers.map((peer) => peer.outcome());
  for (const { socket } of peers) socket.destroy();
  return tally(outcomes);
}

/** Writes the same again and again, up to so many times. */
async function pour(peer, bytes, isOver, times = Number.POSITIVE_INFINITY) {
  const over = (async () => {
    while (!isOver()) await delay(20);
  })();
  for (let n = 0; n < times && !isOver() && !peer.isOver; n += 1) await Promise.race([peer.write(bytes), over]);
  await Promise.race([over, peer.ended]);
}

/** A crowd of which everyone says the same a byte at a time, until the server has had enough. */
async function drip(port, isOver, bytes, before = '') {
  const peers = Array.from({ length: CROWD }, () => new Peer(port));
  for (const peer of peers) await peer.write(before);
  for (let at = 0; !isOver() || peers.some((peer) => !peer.isOver); at += 1) {
    for (const peer of peers) await peer.write(bytes.subarray(at, at + 1));
    await delay(20);
  }
  return tally(await Promise.all(peers.map(({ ended }) => ended)));
}

/** One message in many fragments. */
async function fragments(port, count) {
  const peer = await Peer.upgraded(port);
  const many = Buffer.concat(Array(1000).fill(frame(continuation, 'x', { fin: false })));
  await peer.write(frame(binary, 'x', { fin: false }));
  for (let n = 0; n < count / 1000; n += 1) await peer.write(many);
  await peer.write(frame(continuation, ''));
  const whole = count + 1;
  await Promise.race([peer.until(() => peer.received >= whole, 'the message').catch(() => {}), peer.ended]);
  if (peer.received < whole) return peer.outcome();
  peer.socket.destroy();
  return 'the message came back';
}

async function repeatedly(isOver, once) {
  const outcomes = [];
  do outcomes.push(await once());
  while (!isOver());
  return tally(outcomes);
}

/** Many at a time, one after the other. */
async function storm(isOver, once) {
  const outcomes = [];
  let n = 0;
  const runner = async () => {
    do outcomes.push(await once(n++));
    while (!isOver());
  };
  await Promise.all(Array.from({ length: 50 }, runner));
  return tally(outcomes);
}
