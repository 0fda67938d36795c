/**
 * What happened, in memory that all threads share, so that the record of a terminated thread stays.
 *
 * Connections and client messages are numbered by the test; the numbers are the indices here.
 */

/** Far above what one round makes; a round that comes near it fails. */
export const MAX_CONNECTIONS = 1 << 16;
export const MAX_MESSAGES = 1 << 22;
export const MAX_THREADS = 1 << 10;

/** How far a client's message has come. */
export const BEGUN = 1;
export const FINISHED = 2;

/** What the handler of a thread's next message is to do, and what it then has done. */
export const NOTHING = 0;
export const BLOCK = 1;
export const HANG = 2;
export const EXIT = 3;
export const DONE = 4;

/** What must never happen. Each counts how often it did. */
export const FAULTS = [
  'a connection was opened twice',
  'a connection was opened after its first message',
  'a connection was opened after its close',
  'a connection was closed twice',
  'a message came again, or behind a later one',
  'a message came after the close of its connection',
  'an event came without the token of its connection',
];

export class Ledger {
  /** Given the memory of another one it is the same ledger. */
  constructor(memory = allocate()) {
    this.memory = memory;
    this.opens = new Int32Array(memory.opens);
    this.closes = new Int32Array(memory.closes);
    this.closeCodes = new Int32Array(memory.closeCodes);
    this.lastSequence = new Int32Array(memory.lastSequence);
    this.progress = new Uint8Array(memory.progress);
    this.results = new Int32Array(memory.results);
    this.faults = new Int32Array(memory.faults);
    this.orders = new Int32Array(memory.orders);
  }

  #fault(text) {
    Atomics.add(this.faults, FAULTS.indexOf(text), 1);
  }

  /** The connection that a token names. */
  connection(token) {
    const number = Number(token?.toString());
    if (Number.isInteger(number) && number > 0) return number;
    this.#fault('an event came without the token of its connection');
    return 0;
  }

  opened(connection) {
    if (Atomics.add(this.opens, connection, 1) !== 0) this.#fault('a connection was opened twice');
    if (Atomics.load(this.lastSequence, connection) !== 0)
      this.#fault('a connection was opened after its first message');
    if (Atomics.load(this.closes, connection) !== 0) this.#fault('a connection was opened after its close');
  }

  /** The first thing that a close handler does: it may be terminated behind any statement. */
  closed(connection, code) {
    if (Atomics.add(this.closes, connection, 1) !== 0) this.#fault('a connection was closed twice');
    Atomics.store(this.closeCodes, connection, code);
  }

  begun(message, connection, sequence) {
    Atomics.store(this.progress, message, BEGUN);
    const last = Atomics.exchange(this.lastSequence, connection, sequence);
    if (sequence <= last) this.#fault('a message came again, or behind a later one');
    if (Atomics.load(this.closes, connection) !== 0) this.#fault('a message came after the close of its connection');
  }

  /** `result`: for how many sockets the handler's message was queued. */
  finished(message, result) {
    Atomics.store(this.results, message, result);
    Atomics.store(this.progress, message, FINISHED);
  }

  /** `{ fault: count }` of those that happened. */
  faultsSeen() {
    return Object.fromEntries(FAULTS.map((text, at) => [text, this.faults[at]]).filter(([, count]) => count > 0));
  }
}

function allocate() {
  const numbers = (count) => new SharedArrayBuffer(4 * count);
  return {
    opens: numbers(MAX_CONNECTIONS),
    closes: numbers(MAX_CONNECTIONS),
    closeCodes: numbers(MAX_CONNECTIONS),
    lastSequence: numbers(MAX_CONNECTIONS),
    progress: new SharedArrayBuffer(MAX_MESSAGES),
    results: numbers(MAX_MESSAGES),
    faults: numbers(FAULTS.length),
    orders: numbers(MAX_THREADS),
  };
}
