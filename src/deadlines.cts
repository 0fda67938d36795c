/** Until when handlers that have returned a promise are to be done with their socket. */

import type { SocketId } from './types.cjs';

/**
 * A timer that comes so many ms late was kept from running: by a handler that did not return, a debugger, a suspended
 * machine. Nothing that the handlers wait for could arrive meanwhile either.
 */
const LATE = 100;

/** The deadlines, without a clock. Times are in ms. */
export class Deadlines {
  /** By the time that handlers may take: in each of these what is due first has been put in first. */
  readonly #queues = new Map<number, Map<SocketId, number>>();

  set(id: SocketId, timeout: number, now: number): void {
    let queue = this.#queues.get(timeout);
    if (queue === undefined) {
      queue = new Map();
      this.#queues.set(timeout, queue);
    }
    queue.set(id, now + timeout);
  }

  clear(id: SocketId, timeout: number): void {
    this.#queues.get(timeout)?.delete(id);
  }

  /** The earliest; Infinity when there is none. */
  get next(): number {
    let next = Number.POSITIVE_INFINITY;
    for (const queue of this.#queues.values()) {
      for (const deadline of queue.values()) {
        next = Math.min(next, deadline);
        break;
      }
    }
    return next;
  }

  /** Takes out what is due. */
  takeDue(now: number): SocketId[] {
    const due: SocketId[] = [];
    for (const queue of this.#queues.values()) {
      for (const [id, deadline] of queue) {
        if (deadline > now) break;
        queue.delete(id);
        due.push(id);
      }
    }
    return due;
  }

  postpone(by: number): void {
    for (const queue of this.#queues.values()) {
      for (const [id, deadline] of queue) queue.set(id, deadline + by);
    }
  }
}

/** The deadlines of a thread, with one timer for all of them. */
export class HandlerClock {
  readonly #deadlines = new Deadlines();
  readonly #onDue: (id: SocketId) => void;
  #timer: NodeJS.Timeout | undefined;
  #firesAt = Number.POSITIVE_INFINITY;

  /**
   * @param onDue - called for each socket whose time is over; must not throw
   */
  constructor(onDue: (id: SocketId) => void) {
    this.#onDue = onDue;
  }

  /** `timeout` in ms; the same for all handlers of a socket. */
  start(id: SocketId, timeout: number): void {
    this.#deadlines.set(id, timeout, performance.now());
    this.#arm();
  }

  stop(id: SocketId, timeout: number): void {
    // The timer is left alone: to set it anew for each handler would cost more than one that finds nothing.
    this.#deadlines.clear(id, timeout);
  }

  #arm(): void {
    const { next } = this.#deadlines;
    if (next >= this.#firesAt) return;
    clearTimeout(this.#timer);
    this.#firesAt = next;
    this.#timer = setTimeout(() => this.#fire(), Math.ceil(next - performance.now()));
    // A handler that hangs is no reason for a process to live.
    this.#timer.unref();
  }

  #fire(): void {
    const now = performance.now();
    const late = now - this.#firesAt;
    this.#firesAt = Number.POSITIVE_INFINITY;
    if (late >= LATE) this.#deadlines.postpone(late);
    for (const id of this.#deadlines.takeDue(now)) this.#onDue(id);
    this.#arm();
  }
}
