/** Sees to it that the handlers of one socket come one after the other, each when the promise of the one before has settled. */

import { Buffer } from 'node:buffer';
import { Backlog } from './backlog.cjs';
import { type Batch, CLOSE, MESSAGE } from './batch.cjs';
import { HandlerClock } from './deadlines.cjs';
import { native } from './native.cjs';
import { adopt } from './promises.cjs';
import {
  GivenUp,
  type SocketCalls,
  type SocketEvent,
  type SocketEventKind,
  type SocketHandlers,
} from './socket-calls.cjs';
import type { SocketId } from './types.cjs';

/** The sockets of one registration. */
export class SerialHandlers implements SocketHandlers {
  readonly #calls: SocketCalls;
  readonly #onIdle: (id: SocketId) => void;
  /** Sockets with a handler that has returned a promise, and what waits behind it. */
  readonly #busy = new Map<SocketId, Backlog>();
  readonly #givenUp: GivenUp;
  readonly #clock = new HandlerClock((id) => this.#giveUp(id));

  /**
   * @param onIdle - called when handlers are done with a socket that they were busy with; must not throw
   */
  constructor(calls: SocketCalls, onIdle: (id: SocketId) => void) {
    this.#calls = calls;
    this.#givenUp = new GivenUp(calls);
    this.#onIdle = onIdle;
  }

  get busy(): ReadonlyMap<SocketId, unknown> {
    return this.#busy;
  }

  /** An event of a socket: handled now, or behind the promise that the socket waits for. */
  arrive(batch: Batch, id: SocketId, kind: SocketEventKind, payload: SocketEvent['payload'], code: number): void {
    const { token } = batch;
    if (this.#givenUp.leavesOut(id, kind)) return;
    // The first test alone is what an application pays whose handlers are synchronous.
    const backlog = this.#busy.size === 0 ? undefined : this.#busy.get(id);
    if (backlog === undefined) {
      const promise = this.#calls.call(id, kind, token, payload, code);
      if (promise !== undefined)
        void this.#wait(id, promise, new Backlog(kind, this.#calls.timeoutOf(batch, id, kind)));
      return;
    }
    const kept = Buffer.isBuffer(payload) ? copied(payload) : payload;
    if (!backlog.push({ kind, token: token && copied(token), payload: kept, code })) this.#calls.countFinished(kind);
    if (backlog.isLong && !backlog.isPaused) {
      backlog.isPaused = true;
      native.pause(id);
    }
  }

  /** Goes on with the socket's next event when the promise has settled. Never rejects. */
  async #wait(id: SocketId, promise: PromiseLike<unknown>, backlog: Backlog): Promise<void> {
    const { busyWith, handlerTimeout } = backlog;
    this.#busy.set(id, backlog);
    if (handlerTimeout > 0) this.#clock.start(id, handlerTimeout);
    try {
      await adopt(promise);
    } catch (error) {
      this.#calls.report(error, id, busyWith);
    }
    if (backlog.isGivenUp) return;
    if (handlerTimeout > 0) this.#clock.stop(id, handlerTimeout);
    this.#calls.countFinished(busyWith);
    this.#workOff(id, backlog);
  }

  #workOff(id: SocketId, backlog: Backlog): void {
    for (let event = backlog.shift(); event !== undefined; event = backlog.shift()) {
      const promise = this.#calls.callInContext(id, event);
      if (backlog.isPaused && backlog.isShort) {
        backlog.isPaused = false;
        native.resume(id);
      }
      if (promise !== undefined) {
        backlog.busyWith = event.kind;
        void this.#wait(id, promise, backlog);
        return;
      }
    }
    this.#busy.delete(id);
    this.#onIdle(id);
  }

  /** The handler of a socket did not settle in its time: closes the socket, and goes on without that handler. */
  #giveUp(id: SocketId): void {
    const backlog = this.#busy.get(id);
    if (backlog === undefined) return;
    const { busyWith, handlerTimeout } = backlog;
    backlog.isGivenUp = true;
    this.#busy.delete(id);
    this.#calls.countFinished(busyWith);
    const { lostMessages, close } = this.#leaveOut(backlog);
    this.#calls.timedOut(id, busyWith, handlerTimeout, lostMessages);
    if (close !== undefined) {
      const promise = this.#calls.callInContext(id, close);
      if (promise !== undefined) {
        void this.#wait(id, promise, new Backlog(CLOSE, handlerTimeout));
        return;
      }
    } else if (busyWith !== CLOSE) {
      this.#givenUp.add(id);
    }
    this.#onIdle(id);
  }

  /** Takes everything out of a backlog. The close event, which ends it if it is there, has to come all the same. */
  #leaveOut(backlog: Backlog): { lostMessages: number; close: SocketEvent | undefined } {
    let lostMessages = 0;
    for (let event = backlog.shift(); event !== undefined; event = backlog.shift()) {
      if (event.kind === CLOSE) return { lostMessages, close: event };
      this.#calls.countFinished(event.kind);
      if (event.kind === MESSAGE) lostMessages += 1;
    }
    return { lostMessages, close: undefined };
  }
}

/** A copy of its own: a view keeps the whole batch in memory for as long as it waits. Without memory for one it does that. */
function copied(view: Buffer): Buffer {
  try {
    return Buffer.from(view);
  } catch {
    return view;
  }
}
