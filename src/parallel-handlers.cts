/** Calls the handlers of one socket in the order of its events, without waiting for the promises of those before. */

import { type Batch, CLOSE } from './batch.cjs';
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

/** Beyond so many handlers that run nothing more is read from their socket until half of them have ended. */
const MOST_RUNNING = 256;

/** The handlers of one socket that have returned a promise. */
interface Running {
  count: number;
  /** The socket is not read because of them. */
  isPaused: boolean;
}

/** A handler that has returned a promise. */
interface Task {
  readonly id: SocketId;
  readonly kind: SocketEventKind;
  readonly handlerTimeout: number;
}

/** The sockets of one registration. */
export class ParallelHandlers implements SocketHandlers {
  readonly #calls: SocketCalls;
  readonly #onIdle: (id: SocketId) => void;
  readonly #running = new Map<SocketId, Running>();
  /** Those that have a deadline, by the number that the clock knows them by. */
  readonly #tasks = new Map<number, Task>();
  #lastTask = 0;
  /** Sockets whose close event has come while handlers of theirs ran. */
  readonly #closed = new Set<SocketId>();
  readonly #givenUp: GivenUp;
  readonly #clock = new HandlerClock((task) => this.#giveUp(task));

  /**
   * @param onIdle - called when handlers are done with a socket that they were busy with; must not throw
   */
  constructor(calls: SocketCalls, onIdle: (id: SocketId) => void) {
    this.#calls = calls;
    this.#givenUp = new GivenUp(calls);
    this.#onIdle = onIdle;
  }

  get busy(): ReadonlyMap<SocketId, unknown> {
    return this.#running;
  }

  arrive(batch: Batch, id: SocketId, kind: SocketEventKind, payload: SocketEvent['payload'], code: number): void {
    if (this.#givenUp.leavesOut(id, kind)) return;
    if (kind === CLOSE && this.#running.has(id)) this.#closed.add(id);
    const promise = this.#calls.call(id, kind, batch.token, payload, code);
    if (promise !== undefined) void this.#wait(promise, id, kind, this.#calls.timeoutOf(batch, id, kind));
  }

  /** Never rejects. */
  async #wait(
    promise: PromiseLike<unknown>,
    id: SocketId,
    kind: SocketEventKind,
    handlerTimeout: number,
  ): Promise<void> {
    const number = this.#begin({ id, kind, handlerTimeout });
    try {
      await adopt(promise);
    } catch (error) {
      this.#calls.report(error, id, kind);
    }
    if (number !== undefined) {
      if (!this.#tasks.delete(number)) return; // it was given up
      this.#clock.stop(number, handlerTimeout);
    }
    this.#calls.countFinished(kind);
    this.#end(id);
  }

  /** The number of a task that has a deadline. */
  #begin(task: Task): number | undefined {
    const running = this.#running.get(task.id) ?? { count: 0, isPaused: false };
    this.#running.set(task.id, running);
    running.count += 1;
    if (running.count > MOST_RUNNING && !running.isPaused) {
      running.isPaused = true;
      native.pause(task.id);
    }
    if (task.handlerTimeout === 0) return undefined;
    this.#lastTask += 1;
    this.#tasks.set(this.#lastTask, task);
    this.#clock.start(this.#lastTask, task.handlerTimeout);
    return this.#lastTask;
  }

  #end(id: SocketId): void {
    const running = this.#running.get(id);
    if (running === undefined) return;
    running.count -= 1;
    if (running.isPaused && running.count <= MOST_RUNNING / 2) {
      running.isPaused = false;
      native.resume(id);
    }
    if (running.count > 0) return;
    this.#running.delete(id);
    this.#closed.delete(id);
    this.#onIdle(id);
  }

  /** A handler did not settle in its time: closes its socket, and goes on without that handler. */
  #giveUp(number: number): void {
    const task = this.#tasks.get(number);
    if (task === undefined) return;
    this.#tasks.delete(number);
    const { id, kind, handlerTimeout } = task;
    this.#calls.countFinished(kind);
    this.#calls.timedOut(id, kind, handlerTimeout, 0);
    if (kind !== CLOSE && !this.#closed.has(id)) this.#givenUp.add(id);
    this.#end(id);
  }
}
