/**
 * A thread that handles events: takes batches from the addon, calls the handlers, and sees to it that those of one
 * socket come one after the other.
 */

import { Buffer } from 'node:buffer';
import { isMainThread } from 'node:worker_threads';
import { Backlog } from './backlog.cjs';
import { ABORT, Batch, CLOSE, DRAIN, MESSAGE, OPEN, REQUEST, UPGRADE } from './batch.cjs';
import { corkedByBatches, corkForThisTask } from './cork.cjs';
import { HandlerClock } from './deadlines.cjs';
import { WsBrokerError } from './errors.cjs';
import { checkHandlers, type HandlerName } from './handlers.cjs';
import { leaveHand, takeInHand } from './in-hand.cjs';
import { native } from './native.cjs';
import { isThenable, report, reportTo, stopReportingTo } from './report.cjs';
import type { PackedRequest } from './request.cjs';
import { decide, refuseWithStatus, respond, respondWithStatus } from './response.cjs';
import type { ErrorContext, HttpRequest, SocketId, Token, WorkerHandlers } from './types.cjs';
import { UnreadFields } from './unread.cjs';

/** How many batches are handled before timers and I/O of the application's thread get their turn. */
const BATCHES_PER_TURN = 8;

/** Most batches are smaller. */
const STORE_BYTES = 64 * 1024;

/**
 * Whether libuv runs the event loop. Bun and Deno have loops of their own and say in other ways that they are Node;
 * their functions of libuv's names are not all there, and some of Bun's end the process.
 */
const IS_LIBUV = process.versions.bun === undefined && process.versions.deno === undefined;

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

/** Who works off a batch now. */
let inTurn: WorkerThread | undefined;

/**
 * The registration of a thread. It ends with `retire` and the last handler that was called before.
 */
export class WorkerThread {
  readonly #handlers: WorkerHandlers;
  readonly #handle: number;
  /** How many events have been handled, modulo 2^32: messages, opens and drains. The addon reads it when the thread ends. */
  readonly #finishedEvents = new Uint32Array(new ArrayBuffer(2 * Uint32Array.BYTES_PER_ELEMENT));
  /** Sockets with a handler that has returned a promise, and what waits behind it. */
  readonly #busySockets = new Map<SocketId, Backlog>();
  /** Sockets that are closed because a handler hung: what still comes of them but the close event is left out. */
  readonly #givenUp = new Set<SocketId>();
  readonly #clock = new HandlerClock((id) => this.#giveUp(id));
  /** Requests whose handler has returned a promise; undefined once nobody waits for the answer any more. */
  readonly #openRequests = new Map<number, PackedRequest | undefined>();
  readonly #unreadFields = new UnreadFields();
  /** Where batches come of which nothing is kept, one after the other. */
  readonly #store = Buffer.from(new ArrayBuffer(STORE_BYTES));
  readonly #stored = new Batch(this.#store);
  /** The batch that is being handled. */
  #batch: Batch | undefined;
  /** Sockets that wait elsewhere for this retired worker to be done with them. */
  #heldBack = new Set<SocketId>();
  #isRetired = false;

  /**
   * @throws WsBrokerError `WSB_INVALID_ARGUMENT` for what is no object of handlers, `WSB_ALREADY_REGISTERED`
   */
  constructor(handlers: unknown) {
    const { handlers: checked, interest } = checkHandlers(handlers);
    this.#handlers = checked;
    this.#handle = native.register(
      interest.http,
      interest.upgrade,
      interest.opens,
      interest.sockets,
      () => this.#turn(),
      this.#finishedEvents,
      isMainThread,
      IS_LIBUV,
    );
    if (this.#handle === 0) {
      throw new WsBrokerError(
        'WSB_ALREADY_REGISTERED',
        'this thread is registered as a worker already; call unregister() of that registration first',
      );
    }
    reportTo(this.#handlers);
  }

  /** Gives sockets and events to the other workers. */
  retire(): void {
    if (this.#isRetired) return;
    this.#isRetired = true;
    stopReportingTo(this.#handlers);
    // Nobody else may be called for a socket while a handler of it is busy here, or about to be called.
    this.#heldBack = new Set([...this.#busySockets.keys(), ...(this.#batch?.socketsLeft() ?? [])]);
    native.retire(this.#handle, Float64Array.from(this.#heldBack));
    this.#endWhenIdle();
  }

  /** Lets sockets go to their next worker that nothing here is busy with any more. */
  #letGo(): void {
    if (this.#heldBack.size === 0 || inTurn === this) return;
    for (const id of this.#heldBack) {
      if (this.#busySockets.has(id)) continue;
      this.#heldBack.delete(id);
      native.release(this.#handle, id);
    }
  }

  #endWhenIdle(): void {
    this.#letGo();
    const isIdle = inTurn !== this && this.#busySockets.size === 0 && this.#openRequests.size === 0;
    if (this.#isRetired && isIdle) native.end(this.#handle);
  }

  /** Lets no exception out: there is nobody above it. */
  #turn(): void {
    if (inTurn !== undefined) {
      // A handler runs the event loop: what comes meanwhile waits until it has returned.
      if (inTurn !== this) setImmediate(() => this.#turn());
      return;
    }
    inTurn = this;
    let isMoreWaiting = true;
    try {
      corkedByBatches(() => {
        for (let count = 0; count < BATCHES_PER_TURN && isMoreWaiting; count += 1) {
          leaveHand();
          const taken = native.take(this.#handle, this.#store);
          if (taken === undefined) isMoreWaiting = false;
          else if (typeof taken === 'number') this.#dispatch(this.#stored.restart(taken));
          else this.#dispatch(new Batch(taken));
        }
      });
    } finally {
      leaveHand();
      inTurn = undefined;
    }
    if (isMoreWaiting) setImmediate(() => this.#turn());
    else this.#endWhenIdle();
  }

  #dispatch(batch: Batch): void {
    this.#batch = batch;
    while (batch.next()) {
      const { kind, id } = batch;
      switch (kind) {
        case MESSAGE:
          this.#receive(batch, id);
          break;
        case OPEN:
          this.#arrive(batch, id, kind, batch.request, 0);
          break;
        case DRAIN:
          this.#arrive(batch, id, kind, undefined, 0);
          break;
        case CLOSE:
          this.#arrive(batch, id, kind, batch.reason, batch.code);
          break;
        case REQUEST:
          this.#answerRequest(id, batch.request);
          break;
        case UPGRADE:
          this.#decideUpgrade(id, batch.request);
          break;
        case ABORT:
          this.#abortRequest(id);
          break;
      }
    }
    this.#batch = undefined;
  }

  #receive(batch: Batch, id: SocketId): void {
    const data = batch.data;
    if (batch.isAsTaken) takeInHand(data, batch.offset);
    this.#arrive(batch, id, MESSAGE, data, 0);
  }

  /** An event of a socket: handled now, or behind the promise that the socket waits for. */
  #arrive(batch: Batch, id: SocketId, kind: SocketEventKind, payload: SocketEvent['payload'], code: number): void {
    const { token } = batch;
    if (this.#givenUp.size > 0 && this.#isLeftOut(id, kind)) return;
    // The first test alone is what an application pays whose handlers are synchronous.
    const backlog = this.#busySockets.size === 0 ? undefined : this.#busySockets.get(id);
    if (backlog === undefined) {
      const promise = this.#call(id, kind, token, payload, code);
      if (promise !== undefined) this.#wait(id, promise, new Backlog(kind, batch.handlerTimeout));
      return;
    }
    // A copy of its own: a view would keep the whole batch in memory for as long as it waits.
    const kept = Buffer.isBuffer(payload) ? Buffer.from(payload) : payload;
    if (!backlog.push({ kind, token: token && Buffer.from(token), payload: kept, code })) this.#countFinished(kind);
    if (backlog.isLong && !backlog.isPaused) {
      backlog.isPaused = true;
      native.pause(id);
    }
  }

  /** Calls the handler of an event. A promise: it is still busy. */
  #call(
    id: SocketId,
    kind: SocketEventKind,
    token: Token,
    payload: SocketEvent['payload'],
    code: number,
  ): Promise<unknown> | undefined {
    try {
      const result = this.#callHandler(id, kind, token, payload, code);
      if (isThenable(result)) return Promise.resolve(result);
    } catch (error) {
      this.#report(error, { handler: HANDLER_OF[kind], socketId: id });
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
    const handlers = this.#handlers;
    switch (kind) {
      case MESSAGE:
        return handlers.handleSocketMessage?.(payload as string | Buffer, id, token);
      case OPEN:
        return handlers.handleSocketOpen?.(id, payload as HttpRequest, token);
      case DRAIN:
        return handlers.handleSocketDrain?.(id, token);
      case CLOSE:
        native.beginClose(this.#handle, id);
        return handlers.handleSocketClose?.(id, token, code, payload as string);
    }
  }

  #countFinished(kind: SocketEventKind): void {
    // A close is told apart by `beginClose`: it must come exactly once.
    if (kind !== CLOSE) (this.#finishedEvents[kind === MESSAGE ? 0 : 1] as number) += 1;
  }

  /** Goes on with the socket's next event when the promise has settled. */
  #wait(id: SocketId, promise: Promise<unknown>, backlog: Backlog): void {
    const { busyWith, handlerTimeout } = backlog;
    this.#busySockets.set(id, backlog);
    if (handlerTimeout > 0) this.#clock.start(id, handlerTimeout);
    const settled = () => {
      if (backlog.isGivenUp) return;
      if (handlerTimeout > 0) this.#clock.stop(id, handlerTimeout);
      this.#countFinished(busyWith);
      this.#workOff(id, backlog);
    };
    promise.then(settled, (error: unknown) => {
      this.#report(error, { handler: HANDLER_OF[busyWith], socketId: id });
      settled();
    });
  }

  #workOff(id: SocketId, backlog: Backlog): void {
    for (let event = backlog.shift(); event !== undefined; event = backlog.shift()) {
      const promise = this.#call(id, event.kind, event.token, event.payload, event.code);
      if (backlog.isPaused && backlog.isShort) {
        backlog.isPaused = false;
        native.resume(id);
      }
      if (promise !== undefined) {
        backlog.busyWith = event.kind;
        this.#wait(id, promise, backlog);
        return;
      }
    }
    this.#busySockets.delete(id);
    this.#endWhenIdle();
  }

  /** The handler of a socket did not settle in its time: closes the socket, and goes on without that handler. */
  #giveUp(id: SocketId): void {
    const backlog = this.#busySockets.get(id);
    if (backlog === undefined) return;
    const { busyWith, handlerTimeout } = backlog;
    backlog.isGivenUp = true;
    this.#busySockets.delete(id);
    this.#countFinished(busyWith);
    const { lostMessages, close } = this.#leaveOut(backlog);
    native.handlerTimedOut(id, lostMessages);
    const handler = HANDLER_OF[busyWith];
    const text = `${handler} did not settle within handlerTimeout, ${handlerTimeout} ms`;
    this.#report(new WsBrokerError('WSB_HANDLER_TIMEOUT', text), { handler, socketId: id });
    if (close !== undefined) {
      const promise = this.#call(id, CLOSE, close.token, close.payload, close.code);
      if (promise !== undefined) this.#wait(id, promise, new Backlog(CLOSE, handlerTimeout));
    } else if (busyWith !== CLOSE) {
      this.#givenUp.add(id);
    }
    this.#endWhenIdle();
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

  #answerRequest(id: number, request: PackedRequest): void {
    if (this.#handlers.handleHttpRequest === undefined) {
      respondWithStatus(id, 503);
      return;
    }
    this.#handleRequest(id, request, ANSWERING);
  }

  #decideUpgrade(id: number, request: PackedRequest): void {
    this.#handleRequest(id, request, DECIDING);
  }

  /** Nobody waits for the answer any more. The handler may never come to an end, and need not keep the request for that. */
  #abortRequest(id: number): void {
    const request = this.#openRequests.get(id);
    if (request === undefined) return;
    this.#openRequests.set(id, undefined);
    request.abort();
  }

  #handleRequest(id: number, request: PackedRequest, steps: RequestSteps): void {
    try {
      const result = this.#handlers[steps.handler]?.(request);
      if (isThenable(result)) this.#answerLater(id, request, steps, result);
      else this.#answer(id, request, steps, result);
    } catch (error) {
      this.#failRequest(id, request, steps, error);
    }
  }

  /** Throws when the result is none. */
  #answer(id: number, request: PackedRequest, { handler, answer }: RequestSteps, result: unknown): void {
    const unread = answer(id, result);
    if (unread === undefined) return;
    for (const error of this.#unreadFields.errors(handler, unread)) this.#report(error, { handler, request });
  }

  #answerLater(id: number, request: PackedRequest, steps: RequestSteps, promise: PromiseLike<unknown>): void {
    this.#openRequests.set(id, request);
    Promise.resolve(promise)
      .then((settled) => {
        corkForThisTask();
        this.#answer(id, request, steps, settled);
      })
      .catch((error: unknown) => this.#failRequest(id, request, steps, error))
      .then(() => {
        this.#openRequests.delete(id);
        this.#endWhenIdle();
      });
  }

  #failRequest(id: number, request: PackedRequest, { handler, fail }: RequestSteps, error: unknown): void {
    fail(id);
    this.#report(error, { handler, request });
  }

  #report(error: unknown, context: ErrorContext): void {
    report(this.#handlers, error, context);
  }
}

/** How to get from a request's event to its answer. */
interface RequestSteps {
  handler: 'handleHttpRequest' | 'handleSocketUpgrade';
  /** Throws when the result is none; answers the fields of it that nobody has read. */
  answer: (id: number, result: unknown) => string[] | undefined;
  fail: (id: number) => void;
}

const ANSWERING: RequestSteps = {
  handler: 'handleHttpRequest',
  answer: respond,
  fail: (id) => respondWithStatus(id, 500),
};

const DECIDING: RequestSteps = {
  handler: 'handleSocketUpgrade',
  answer: decide,
  fail: (id) => refuseWithStatus(id, 500),
};
