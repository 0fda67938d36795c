/** Calls the handlers of sockets, and sees to it that those of one socket come one after the other. */

import { Buffer } from 'node:buffer';
import { Backlog } from './backlog.cjs';
import { type Batch, CLOSE, DRAIN, MESSAGE, OPEN } from './batch.cjs';
import { HandlerClock } from './deadlines.cjs';
import { WsBrokerError } from './errors.cjs';
import type { HandlerName } from './handlers.cjs';
import { native } from './native.cjs';
import { adopt, isThenable } from './promises.cjs';
import { type Registered, report } from './report.cjs';
import type { HttpRequest, SocketId, Token } from './types.cjs';

/** What handlers are called for. */
export type SocketEventKind = typeof OPEN | typeof MESSAGE | typeof DRAIN | typeof CLOSE;

const HANDLER_OF: Readonly<Record<SocketEventKind, HandlerName>> = {
  [OPEN]: 'handleSocketOpen',
  [MESSAGE]: 'handleSocketMessage',
  [DRAIN]: 'handleSocketDrain',
  [CLOSE]: 'handleSocketClose',
};

/** An event that has to wait for its turn. */
export interface SocketEvent {
  kind: SocketEventKind;
  token: Token;
  /** A message's data, the request of an open, the reason of a close. */
  payload: string | Buffer | HttpRequest | undefined;
  /** The code of a close. */
  code: number;
}

/** The sockets of one registration. */
export class SocketHandlers {
  readonly #registered: Registered;
  readonly #worker: number;
  readonly #finishedEvents: Uint32Array;
  readonly #onIdle: (id: SocketId) => void;
  /** Sockets with a handler that has returned a promise, and what waits behind it. */
  readonly #busy = new Map<SocketId, Backlog>();
  /** Sockets that are closed because a handler hung: what still comes of them but the close event is left out. */
  readonly #givenUp = new Set<SocketId>();
  readonly #clock = new HandlerClock((id) => this.#giveUp(id));

  /**
   * @param worker - the addon's handle of the registration
   * @param finishedEvents - where events are counted whose handler has finished: messages, and opens and drains
   * @param onIdle - called when handlers are done with a socket that they were busy with; must not throw
   */
  constructor(registered: Registered, worker: number, finishedEvents: Uint32Array, onIdle: (id: SocketId) => void) {
    this.#registered = registered;
    this.#worker = worker;
    this.#finishedEvents = finishedEvents;
    this.#onIdle = onIdle;
  }

  /** The sockets that handlers are busy with. */
  get busy(): ReadonlyMap<SocketId, unknown> {
    return this.#busy;
  }

  /** An event of a socket: handled now, or behind the promise that the socket waits for. */
  arrive(batch: Batch, id: SocketId, kind: SocketEventKind, payload: SocketEvent['payload'], code: number): void {
    const { token } = batch;
    if (this.#givenUp.size > 0 && this.#isLeftOut(id, kind)) return;
    // The first test alone is what an application pays whose handlers are synchronous.
    const backlog = this.#busy.size === 0 ? undefined : this.#busy.get(id);
    if (backlog === undefined) {
      const promise = this.#call(id, kind, token, payload, code);
      if (promise !== undefined) void this.#wait(id, promise, new Backlog(kind, this.#timeoutOf(batch, id, kind)));
      return;
    }
    const kept = Buffer.isBuffer(payload) ? copied(payload) : payload;
    if (!backlog.push({ kind, token: token && copied(token), payload: kept, code })) this.#countFinished(kind);
    if (backlog.isLong && !backlog.isPaused) {
      backlog.isPaused = true;
      native.pause(id);
    }
  }

  /** Something else than its handler failed at an event, which is not handled for that. */
  fail(id: SocketId, kind: SocketEventKind, error: unknown): void {
    this.#report(error, id, kind);
    this.#countFinished(kind);
  }

  /** The handler has been called already, and its socket has to wait for it, whatever becomes of the batch. */
  #timeoutOf(batch: Batch, id: SocketId, kind: SocketEventKind): number {
    try {
      return batch.handlerTimeout;
    } catch (error) {
      this.#report(error, id, kind);
      return 0;
    }
  }

  /** Calls the handler of an event. A promise: it is still busy. */
  #call(
    id: SocketId,
    kind: SocketEventKind,
    token: Token,
    payload: SocketEvent['payload'],
    code: number,
  ): PromiseLike<unknown> | undefined {
    try {
      const result = this.#callHandler(id, kind, token, payload, code);
      if (isThenable(result)) return result;
    } catch (error) {
      this.#report(error, id, kind);
    }
    this.#countFinished(kind);
    return undefined;
  }

  #callHandler(
    id: SocketId,
    kind: SocketEventKind,
    token: Token,
    payload: SocketEvent['payload'],
    code: number,
  ): unknown {
    const { handlers } = this.#registered;
    switch (kind) {
      case MESSAGE:
        return handlers.handleSocketMessage?.(payload as string | Buffer, id, token);
      case OPEN:
        return handlers.handleSocketOpen?.(id, payload as HttpRequest, token);
      case DRAIN:
        return handlers.handleSocketDrain?.(id, token);
      case CLOSE:
        native.beginClose(this.#worker, id);
        return handlers.handleSocketClose?.(id, token, code, payload as string);
    }
  }

  #countFinished(kind: SocketEventKind): void {
    // A close is told apart by `beginClose`: it must come exactly once.
    if (kind !== CLOSE) (this.#finishedEvents[kind === MESSAGE ? 0 : 1] as number) += 1;
  }

  /** Goes on with the socket's next event when the promise has settled. Never rejects. */
  async #wait(id: SocketId, promise: PromiseLike<unknown>, backlog: Backlog): Promise<void> {
    const { busyWith, handlerTimeout } = backlog;
    this.#busy.set(id, backlog);
    if (handlerTimeout > 0) this.#clock.start(id, handlerTimeout);
    try {
      await adopt(promise);
    } catch (error) {
      this.#report(error, id, busyWith);
    }
    if (backlog.isGivenUp) return;
    if (handlerTimeout > 0) this.#clock.stop(id, handlerTimeout);
    this.#countFinished(busyWith);
    this.#workOff(id, backlog);
  }

  #workOff(id: SocketId, backlog: Backlog): void {
    for (let event = backlog.shift(); event !== undefined; event = backlog.shift()) {
      const promise = this.#callInContext(id, event);
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

  /** What runs here has the context of the handler before, or of a timer. */
  #callInContext(id: SocketId, { kind, token, payload, code }: SocketEvent): PromiseLike<unknown> | undefined {
    return this.#registered.context.run(() => this.#call(id, kind, token, payload, code));
  }

  /** The handler of a socket did not settle in its time: closes the socket, and goes on without that handler. */
  #giveUp(id: SocketId): void {
    const backlog = this.#busy.get(id);
    if (backlog === undefined) return;
    const { busyWith, handlerTimeout } = backlog;
    backlog.isGivenUp = true;
    this.#busy.delete(id);
    this.#countFinished(busyWith);
    const { lostMessages, close } = this.#leaveOut(backlog);
    native.handlerTimedOut(id, lostMessages);
    const text = `${HANDLER_OF[busyWith]} did not settle within handlerTimeout, ${handlerTimeout} ms`;
    this.#report(new WsBrokerError('WSB_HANDLER_TIMEOUT', text), id, busyWith);
    if (close !== undefined) {
      const promise = this.#callInContext(id, close);
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
      this.#countFinished(event.kind);
      if (event.kind === MESSAGE) lostMessages += 1;
    }
    return { lostMessages, close: undefined };
  }

  #isLeftOut(id: SocketId, kind: SocketEventKind): boolean {
    if (!this.#givenUp.has(id)) return false;
    if (kind === CLOSE) {
      this.#givenUp.delete(id);
      return false;
    }
    this.#countFinished(kind);
    if (kind === MESSAGE) native.giveUpMessages(1);
    return true;
  }

  #report(error: unknown, socketId: SocketId, kind: SocketEventKind): void {
    report(this.#registered, error, { handler: HANDLER_OF[kind], socketId });
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
