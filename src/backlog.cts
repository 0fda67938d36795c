/** What waits behind a handler of a socket that has returned a promise. */

import { Buffer } from 'node:buffer';
import { DECODED_TOGETHER, DRAIN } from './batch.cjs';
import type { SocketEvent, SocketEventKind } from './socket-calls.cjs';

/** Beyond either of these nothing more is read from the socket. What its worker was given already still comes. */
const MAX_EVENTS = 256;
const MAX_BYTES = 256 * 1024;

/** What an event takes beside its data: the entry and a small string or Buffer. */
const EVENT_BYTES = 100;

/** The events of one socket, in order. */
export class Backlog {
  #events: SocketEvent[] = [];
  #next = 0;
  #bytes = 0;

  /** How many ms each handler of the socket may take; 0: any time. */
  readonly handlerTimeout: number;
  /** What the handler that is busy was called for. */
  busyWith: SocketEventKind;
  /** The socket is not read because of this backlog. */
  isPaused = false;
  /** The handler did not end in its time: nobody waits for it any more. */
  isGivenUp = false;

  constructor(busyWith: SocketEventKind, handlerTimeout: number) {
    this.busyWith = busyWith;
    this.handlerTimeout = handlerTimeout;
  }

  /** Adds an event. False: it says nothing that the one before does not say, and is left out. */
  push(event: SocketEvent): boolean {
    // Peers that relay to each other cause drains by themselves, however long a handler takes.
    if (event.kind === DRAIN && this.#length > 0 && this.#events.at(-1)?.kind === DRAIN) return false;
    this.#events.push(event);
    this.#bytes += sizeOf(event);
    return true;
  }

  shift(): SocketEvent | undefined {
    const event = this.#events[this.#next];
    if (event === undefined) return undefined;
    this.#next += 1;
    this.#bytes -= sizeOf(event);
    // An array that is never empty would grow for ever.
    if (this.#next === MAX_EVENTS || this.#next === this.#events.length) {
      this.#events = this.#events.slice(this.#next);
      this.#next = 0;
    }
    return event;
  }

  get isLong(): boolean {
    return this.#length > MAX_EVENTS || this.#bytes > MAX_BYTES;
  }

  get isShort(): boolean {
    return this.#length <= MAX_EVENTS / 2 && this.#bytes <= MAX_BYTES / 2;
  }

  get #length(): number {
    return this.#events.length - this.#next;
  }
}

function sizeOf({ payload }: SocketEvent): number {
  // A short text may be a piece of a longer one.
  if (typeof payload === 'string') return Math.max(payload.length, DECODED_TOGETHER) + EVENT_BYTES;
  return (Buffer.isBuffer(payload) ? payload.length : 0) + EVENT_BYTES;
}
