/** One connection of the invariant test: a client that we did not write, and what it must be told. */

import WebSocket from 'ws';
import { socketUrl } from '../serving.mjs';

/**
 * How a connection stands with the test, which alone decides:
 * opening → open → kicked by the server, or left or cut by the client.
 */
export const OPENING = 'opening';
export const OPEN = 'open';
export const KICKED = 'kicked';
export const LEFT = 'left';
export const CUT = 'cut';

/** What the test's thread says to a socket: numbered, its length and kind following from its number. */
export function numbered(number) {
  const text = `m ${number} ${'x'.repeat(number % 997 === 0 ? 100_000 : (number * 7) % 300)}`;
  return number % 3 === 0 ? Buffer.from(text) : text;
}

export class Connection {
  /** Numbers of what the test's thread said to it and what did not yet come, in the order of the calls. */
  #expected = [];
  #taken = 0;
  /** connection → the last of its messages that came here by way of a handler. */
  #lastFrom = new Map();
  #reportFault;
  #onDelivery;

  /** The server's id, once it is known. */
  id = undefined;
  state = OPENING;
  channels = new Set();
  /** How many messages this client has sent. */
  sequence = 0;
  /** What must be in its close event; undefined while nobody has ended it. */
  closeCode = undefined;
  /** The code that the client saw. */
  seenCloseCode = undefined;
  /** The status that its handshake was refused with. */
  refused = undefined;
  hasOpened = false;

  /**
   * @param {object} options
   * @param {boolean} options.isResident never ended by its client before the server stops, so that it gets everything
   * @param {(message: number) => void} options.onDelivery told of each message that came by way of a handler
   */
  constructor(server, number, { isResident, decidesLater, reportFault, onDelivery }) {
    this.number = number;
    this.isResident = isResident;
    this.#reportFault = reportFault;
    this.#onDelivery = onDelivery;
    const path = `/?${number}${decidesLater ? '&later' : ''}`;
    this.client = new WebSocket(socketUrl(server, path), { perMessageDeflate: false });
    this.client.on('error', () => {}); // what it means is seen at its close
    this.client.on('unexpected-response', (request, { statusCode }) => {
      this.refused = statusCode;
      request.destroy();
      this.client.terminate();
    });
    this.client.on('message', (data, isBinary) => this.#receive(data, isBinary));
    this.settled = new Promise((resolve) => {
      this.client.on('open', () => {
        this.hasOpened = true;
        resolve();
      });
      this.client.on('close', resolve);
    });
    this.closed = new Promise((resolve) => {
      this.client.on('close', (code) => {
        this.seenCloseCode = code;
        resolve();
      });
    });
  }

  /** How much of what it must be told has not come. */
  get outstanding() {
    return this.#expected.length - this.#taken;
  }

  /** The server is to pass this on now. Before the connection is open nobody knows from when on. */
  expect(number) {
    this.#expected.push(this.state === OPENING ? -number : number);
  }

  /** Not everything that its client said needs to have been read. */
  get isCutOff() {
    return this.state === CUT || (this.state === KICKED && this.closeCode !== 1001);
  }

  #receive(data, isBinary) {
    const text = data.toString('latin1');
    const [kind, number, ...rest] = text.split(' ', 4);
    if (kind === 'm') this.#receiveNumbered(Number(number), data, isBinary);
    else if (kind === 'w') this.#receivePassedOn(Number(number), ...rest.map(Number));
    else this.#reportFault(this, `got ${JSON.stringify(text.slice(0, 40))}`);
  }

  #receiveNumbered(number, data, isBinary) {
    const sent = numbered(number);
    if (isBinary !== Buffer.isBuffer(sent) || !data.equals(Buffer.from(sent))) {
      this.#reportFault(this, `message ${number} is not what was sent`);
    }
    let expected;
    do {
      if (this.#taken === this.#expected.length) {
        this.#reportFault(this, `message ${number} came again or unasked`);
        return;
      }
      expected = this.#expected[this.#taken];
      this.#taken += 1;
    } while (expected < 0 && -expected !== number);
    if (Math.abs(expected) !== number) this.#reportFault(this, `message ${number} came where ${expected} was due`);
    if (this.#taken > 1000) {
      this.#expected.splice(0, this.#taken);
      this.#taken = 0;
    }
  }

  /** By way of another client's handler: those of one client come once and in its order. */
  #receivePassedOn(number, from, sequence) {
    const last = this.#lastFrom.get(from) ?? 0;
    if (sequence <= last) this.#reportFault(this, `message ${sequence} of ${from} came behind its message ${last}`);
    this.#lastFrom.set(from, sequence);
    this.#onDelivery(number);
  }

  /** What it must be told and has not been. */
  get missing() {
    return this.#expected.slice(this.#taken).filter((number) => number > 0);
  }
}
