/** A client that speaks bytes, so that it can say what no proper client says. */

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import net from 'node:net';
import { within } from './waiting.mjs';

export const OPCODE = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 };

/** The request of a proper handshake; `headers` replaces some of its headers, or with undefined leaves them out. */
export function handshake(headers = {}, requestLine = 'GET / HTTP/1.1') {
  const all = {
    Host: 'localhost',
    Connection: 'Upgrade',
    Upgrade: 'websocket',
    'Sec-WebSocket-Version': '13',
    'Sec-WebSocket-Key': randomBytes(16).toString('base64'),
    ...headers,
  };
  const lines = Object.entries(all).filter(([, value]) => value !== undefined);
  return `${requestLine}\r\n${lines.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`;
}

/**
 * A client's frame. What is wrong with it is asked for: `masked: false`, `rsv` (the three bits as a number), `fin:
 * false`, or a `length` that is not the payload's.
 */
export function frame(opcode, payload = '', { fin = true, rsv = 0, masked = true, length } = {}) {
  const data = Buffer.from(payload);
  const first = (fin ? 0x80 : 0) | (rsv << 4) | opcode;
  const mask = randomBytes(4);
  const head = [Buffer.from([first]), lengthBytes(length ?? data.length, masked ? 0x80 : 0)];
  if (!masked) return Buffer.concat([...head, data]);
  return Buffer.concat([...head, mask, data.map((byte, at) => byte ^ mask[at % 4])]);
}

function lengthBytes(length, maskBit) {
  if (length < 126) return Buffer.from([maskBit | Number(length)]);
  const bytes = Buffer.alloc(length < 0x10000 ? 3 : 9);
  bytes[0] = maskBit | (length < 0x10000 ? 126 : 127);
  if (length < 0x10000) bytes.writeUInt16BE(Number(length), 1);
  else bytes.writeBigUInt64BE(BigInt(length), 1);
  return bytes;
}

export function closeFrame(code, reason = '') {
  const head = Buffer.alloc(2);
  head.writeUInt16BE(code);
  return frame(OPCODE.close, Buffer.concat([head, Buffer.from(reason)]));
}

class RawClient {
  #received = Buffer.alloc(0);
  #watchers = new Set();
  /** Resolves when the server has ended its side. */
  ended;
  /** The error that ended the connection. */
  error = undefined;

  constructor(socket) {
    this.socket = socket;
    socket.on('error', (error) => {
      this.error = error;
    });
    socket.on('data', (data) => {
      this.#received = Buffer.concat([this.#received, data]);
      this.#look();
    });
    this.ended = new Promise((resolve) => {
      socket.on('end', resolve);
      socket.on('close', resolve);
    });
    this.ended.then(() => this.#look());
  }

  #look() {
    for (const look of this.#watchers) look();
  }

  write(...parts) {
    for (const part of parts) this.socket.write(part);
    return this;
  }

  /** Waits until `take(bytes)` gives something other than undefined: `[result, how many bytes it took]`. */
  async #take(take, what) {
    let look;
    const taken = new Promise((resolve) => {
      look = () => {
        const result = take(this.#received);
        if (result === undefined) return;
        this.#received = this.#received.subarray(result[1]);
        this.#watchers.delete(look);
        resolve(result[0]);
      };
      this.#watchers.add(look);
      look();
    });
    const gone = this.ended.then(() => {
      throw new Error(`the connection ended (${this.error?.code ?? 'in order'}) instead of ${what}`);
    });
    gone.catch(() => {});
    try {
      return await within(Promise.race([taken, gone]), what);
    } finally {
      this.#watchers.delete(look);
    }
  }

  /** The next answer to a request: `{ status, headers, body }`; its body has a declared length. */
  response() {
    return this.#take((bytes) => {
      const end = bytes.indexOf('\r\n\r\n');
      if (end < 0) return undefined;
      const [statusLine, ...lines] = bytes.toString('latin1', 0, end).split('\r\n');
      const status = Number(statusLine.split(' ')[1]);
      const headers = Object.fromEntries(
        lines.map((line) => {
          const colon = line.indexOf(':');
          return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
        }),
      );
      const from = end + 4;
      const to = from + Number(headers['content-length'] ?? 0);
      if (bytes.length < to) return undefined;
      return [{ status, headers, body: bytes.toString('utf8', from, to) }, to];
    }, 'an answer');
  }

  /** The next frame of the server: `{ opcode, payload }`. */
  frame(what = 'a frame') {
    return this.#take((bytes) => {
      if (bytes.length < 2) return undefined;
      const short = bytes[1] & 0x7f;
      const from = short === 126 ? 4 : short === 127 ? 10 : 2;
      if (bytes.length < from) return undefined;
      let length = short;
      if (short === 126) length = bytes.readUInt16BE(2);
      if (short === 127) length = Number(bytes.readBigUInt64BE(2));
      if (bytes.length < from + length) return undefined;
      return [{ opcode: bytes[0] & 0x0f, payload: bytes.subarray(from, from + length) }, from + length];
    }, what);
  }

  /** The server's close frame, which must be the next thing but pings: `{ code, reason }`. */
  async closeFrame() {
    for (;;) {
      const { opcode, payload } = await this.frame('a close frame');
      if (opcode === OPCODE.ping) continue;
      assert.equal(opcode, OPCODE.close);
      return { code: payload.readUInt16BE(0), reason: payload.toString('utf8', 2) };
    }
  }

  /** Waits until the server has ended its side, or cut the connection. */
  async end(what = 'the server ends the connection') {
    await within(this.ended, what);
  }
}

/** A connection that has said nothing yet. */
export async function connectRaw(t, { address }) {
  const socket = net.connect({ ...address, noDelay: true });
  t.after(() => socket.destroy());
  const client = new RawClient(socket);
  await within(new Promise((resolve) => socket.once('connect', resolve)), 'a connection');
  return client;
}

/** A connection that has become a WebSocket. */
export async function upgradeRaw(t, server) {
  const client = await connectRaw(t, server);
  const { status } = await client.write(handshake()).response();
  assert.equal(status, 101);
  return client;
}
