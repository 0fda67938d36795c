/** Calls the handlers of sockets. */

import type { Buffer } from 'node:buffer';
import { type Batch, CLOSE, DRAIN, MESSAGE, OPEN } from './batch.cjs';
import { WsBrokerError } from './errors.cjs';
import type { HandlerName } from './handlers.cjs';
import { native } from './native.cjs';
import { isThenable } from './promises.cjs';
import { type Registered, report } from './report.cjs';
import type { HttpRequest, SocketId, Token } from './types.cjs';

/** What handlers are called for. */
export type SocketEventKind = typeof OPEN | typeof MESSAGE | typeof DRAIN | typeof CLOSE;

export const HANDLER_OF: Readonly<Record<SocketEventKind, HandlerName>> = {
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

/** The sockets of a registration, as its thread sees them. */
export interface SocketHandlers {
  /** The sockets that handlers are busy with. */
  readonly busy: ReadonlyMap<SocketId, unknown>;
  /** An event of a socket, which comes from a batch. */
  arrive(batch: Batch, id: SocketId, kind: SocketEventKind, payload: SocketEvent['payload'], code: number): void;
}

/** The handlers of one registration, and how many events they have finished. */
export class SocketCalls {
  readonly #registered: Registered;
  readonly #worker: number;
  readonly #finishedEvents: Uint32Array;

  /**
   * @param worker - the addon's handle of the registration
   * @param finishedEvents - where events are counted whose handler has finished: messages, and opens and drains
   */
  constructor(registered: Registered, worker: number, finishedEvents: Uint32Array) {
    this.#registered = registered;
    this.#worker = worker;
    this.#finishedEvents = finishedEvents;
  }

  /** Calls the handler of an event. A promise: it is still busy. */
  call(
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
      this.report(error, id, kind);
    }
    this.countFinished(kind);
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

  countFinished(kind: SocketEventKind): void {
    // A close is told apart by `beginClose`: it must come exactly once.
    if (kind !== CLOSE) (this.#finishedEvents[kind === MESSAGE ? 0 : 1] as number) += 1;
  }

  /** What does not run in a turn has the context of the handler before, or of a timer. */
  callInContext(id: SocketId, { kind, token, payload, code }: SocketEvent): PromiseLike<unknown> | undefined {
    return this.#registered.context.run(() => this.call(id, kind, token, payload, code));
  }

  /** Something else than its handler failed at an event, which is not handled for that. */
  fail(id: SocketId, kind: SocketEventKind, error: unknown): void {
    this.report(error, id, kind);
    this.countFinished(kind);
  }

  /** How many ms the handler may take that has been called already; its socket has to wait for it whatever becomes of the batch. */
  timeoutOf(batch: Batch, id: SocketId, kind: SocketEventKind): number {
    try {
      return batch.handlerTimeout;
    } catch (error) {
      this.report(error, id, kind);
      return 0;
    }
  }

  /** A handler did not settle in its time: closes its socket. */
  timedOut(id: SocketId, kind: SocketEventKind, handlerTimeout: number, lostMessages: number): void {
    native.handlerTimedOut(id, lostMessages);
    const text = `${HANDLER_OF[kind]} did not settle within handlerTimeout, ${handlerTimeout} ms`;
    this.report(new WsBrokerError('WSB_HANDLER_TIMEOUT', text), id, kind);
  }

  report(error: unknown, socketId: SocketId, kind: SocketEventKind): void {
    report(this.#registered, error, { handler: HANDLER_OF[kind], socketId });
  }
}

/** Sockets that are closed because a handler hung: what still comes of them but the close event is left out. */
export class GivenUp {
  readonly #calls: SocketCalls;
  readonly #sockets = new Set<SocketId>();

  constructor(calls: SocketCalls) {
    this.#calls = calls;
  }

  add(id: SocketId): void {
    this.#sockets.add(id);
  }

  /** Whether this event is left out. */
  leavesOut(id: SocketId, kind: SocketEventKind): boolean {
    if (this.#sockets.size === 0 || !this.#sockets.has(id)) return false;
    if (kind === CLOSE) {
      this.#sockets.delete(id);
      return false;
    }
    this.#calls.countFinished(kind);
    if (kind === MESSAGE) native.giveUpMessages(1);
    return true;
  }
}
