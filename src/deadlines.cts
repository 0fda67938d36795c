/** Until when handlers that have returned a promise are to be done. Who they are is a number: a socket's id, or another. */

import { clearTimeout, now, setImmediate, setTimeout } from './primordials.cjs';

/** So often the time is looked at while a handler is busy. In ms, as all times here. */
const TICK = 50;

/**
 * From one look to the next at most this much is counted. A thread that comes later was kept from running, by a handler
 * that did not return, a debugger, a suspended machine, and nothing that its handlers wait for could arrive meanwhile. As
 * something is counted all the same, handlers end in a thread that always comes late, too.
 */
const MOST = 2 * TICK;

/** The deadlines, without a clock: all times are given to it. */
export class Deadlines {
  /** By the time that handlers may take: in each of these what is due first has been put in first. */
  readonly #queues = new Map<number, Map<number, number>>();
  /** The time in which deadlines are kept: what was counted up to the last look. */
  #counted = 0;
  #lookedAt = 0;

  set(id: number, timeout: number, now: number): void {
    // What passed while nobody was busy is nobody's time.
    if (this.#next === Number.POSITIVE_INFINITY) this.#lookedAt = now;
    let queue = this.#queues.get(timeout);
    if (queue === undefined) {
      queue = new Map();
      this.#queues.set(timeout, queue);
    }
    queue.set(id, this.#count(now) + timeout);
  }

  clear(id: number, timeout: number): void {
    this.#queues.get(timeout)?.delete(id);
  }

  /** How long the next look may wait; undefined: nobody is busy. */
  wait(now: number): number | undefined {
    const next = this.#next;
    if (next === Number.POSITIVE_INFINITY) return undefined;
    return Math.min(Math.max(next - this.#count(now), 0), TICK);
  }

  /**
   * Takes out what was due at the last look already, and counts the time since then. A deadline alone decides nothing:
   * the answer that its handler waits for may have arrived while the thread did not run, and has to have its turn first.
   */
  look(now: number): number[] {
    const due = this.#takeDue();
    this.#counted = this.#count(now);
    this.#lookedAt = now;
    return due;
  }

  #count(now: number): number {
    return this.#counted + Math.min(now - this.#lookedAt, MOST);
  }

  /** The earliest; Infinity when there is none. */
  get #next(): number {
    let next = Number.POSITIVE_INFINITY;
    for (const queue of this.#queues.values()) {
      for (const deadline of queue.values()) {
        next = Math.min(next, deadline);
        break;
      }
    }
    return next;
  }

  #takeDue(): number[] {
    const due: number[] = [];
    for (const queue of this.#queues.values()) {
      for (const [id, deadline] of queue) {
        if (deadline > this.#counted) break;
        queue.delete(id);
        due.push(id);
      }
    }
    return due;
  }
}

/** The deadlines of a thread, with one timer for all of them. */
export class HandlerClock {
  readonly #deadlines = new Deadlines();
  readonly #onDue: (id: number) => void;
  #timer: NodeJS.Timeout | undefined;
  #firesAt = Number.POSITIVE_INFINITY;
  /** Between a look and its `setImmediate`. */
  #isLooking = false;

  /**
   * @param onDue - called for each whose time is over; must not throw
   */
  constructor(onDue: (id: number) => void) {
    this.#onDue = onDue;
  }

  /** `timeout` in ms; the same when it is stopped. */
  start(id: number, timeout: number): void {
    const time = now();
    this.#deadlines.set(id, timeout, time);
    this.#arm(time);
  }

  stop(id: number, timeout: number): void {
    // The timer is left alone: to set it anew for each handler would cost more than one that finds nothing.
    this.#deadlines.clear(id, timeout);
  }

  #arm(time: number): void {
    const wait = this.#deadlines.wait(time);
    if (wait === undefined || this.#isLooking || time + wait >= this.#firesAt) return;
    clearTimeout(this.#timer);
    this.#firesAt = time + wait;
    this.#timer = setTimeout(() => this.#look(), Math.ceil(wait));
    // A handler that hangs is no reason for a process to live.
    this.#timer.unref();
  }

  #look(): void {
    this.#firesAt = Number.POSITIVE_INFINITY;
    this.#isLooking = true;
    for (const id of this.#deadlines.look(now())) this.#onDue(id);
    // Not a timer at once: those run before what has arrived, and may do so several times.
    setImmediate(() => {
      this.#isLooking = false;
      this.#arm(now());
    });
  }
}
