/** One connection of an attacker. It keeps no more of what comes than it needs to say how it ended. */

import net from 'node:net';
import { handshake, OPCODE } from '../helpers/raw.mjs';
import { within } from '../helpers/waiting.mjs';

/** Enough for the head of an answer or a close frame. */
const KEPT_BYTES = 4096;

export class Peer {
  /** Bytes that came. */
  received = 0;
  /** Resolves to how the connection ended: see `outcome`. */
  ended;
  #tail = Buffer.alloc(0);
  #upgraded = false;
  #error;
  #watch = () => {};

  constructor(port, options = {}) {
    this.socket = net.connect({ host: '127.0.0.1', port, noDelay: true, ...options });
    this.socket.on('error', (error) => {
      this.#error = error;
    });
    this.socket.on('data', (data) => {
      this.received += data.length;
      this.#tail = Buffer.concat([this.#tail, data.subarray(-KEPT_BYTES)]).subarray(-KEPT_BYTES);
      this.#watch();
    });
    this.ended = new Promise((resolve) => {
      this.socket.on('close', () => resolve(this.outcome()));
    });
    this.ended.then(() => this.#watch());
  }

  /** A connection that has become a WebSocket. While the flood fills the worker it is turned away, and comes again. */
  static async upgraded(port, headers = {}) {
    const peer = new Peer(port);
    peer.socket.write(handshake(headers));
    await peer.until(() => peer.#tail.includes('\r\n\r\n'), 'the answer to the handshake');
    if (peer.outcome() === 'status 503') {
      peer.socket.destroy();
      return Peer.upgraded(port, headers);
    }
    if (!peer.#tail.toString('latin1').startsWith('HTTP/1.1 101')) throw new Error(`refused: ${peer.outcome()}`);
    peer.#tail = peer.#tail.subarray(peer.#tail.indexOf('\r\n\r\n') + 4);
    peer.#upgraded = true;
    peer.received = peer.#tail.length;
    return peer;
  }

  /** Writes, and waits while the kernel takes no more. Once the connection is over it does nothing. */
  async write(bytes) {
    if (this.isOver || this.socket.write(bytes)) return;
    await Promise.race([new Promise((resolve) => this.socket.once('drain', resolve)), this.ended]);
  }

  get isOver() {
    return this.socket.destroyed;
  }

  /** Waits for something that what comes, or the end of the connection, makes true. */
  until(isTrue, what) {
    return within(
      new Promise((resolve, reject) => {
        this.#watch = () => {
          if (isTrue()) resolve();
          else if (this.isOver) reject(new Error(`ended (${this.outcome()}) instead of ${what}`));
        };
        this.#watch();
      }),
      what,
    );
  }

  /** Goes away without a goodbye: the server gets a reset. */
  reset() {
    this.socket.resetAndDestroy();
    return this.ended;
  }

  /** How it ended, or stands: a status, the code of a close frame, `reset` or `ended`. */
  outcome() {
    const status = /^HTTP\/1.1 (\d+)/.exec(this.#tail.toString('latin1'))?.[1];
    if (!this.#upgraded && status) return `status ${status}`;
    const code = this.#upgraded ? closeCodeAtEnd(this.#tail) : undefined;
    if (code) return `close ${code}`;
    if (this.#error) return this.#error.code === 'ECONNRESET' ? 'reset' : this.#error.code;
    return this.isOver ? 'ended' : 'open';
  }
}

/** A close frame is the last thing that a server sends, and is short. */
function closeCodeAtEnd(bytes) {
  for (let at = bytes.length - 2; at >= Math.max(0, bytes.length - 127); at -= 1) {
    if (bytes[at] === (0x80 | OPCODE.close) && bytes[at + 1] === bytes.length - at - 2) {
      return bytes[at + 1] < 2 ? 1005 : bytes.readUInt16BE(at + 2);
    }
  }
  return undefined;
}

/** Counts equal outcomes: `{ 'close 1008': 20 }`. */
export function tally(outcomes) {
  const counts = {};
  for (const outcome of outcomes) counts[outcome] = (counts[outcome] ?? 0) + 1;
  return counts;
}
