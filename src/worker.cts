/** A thread that handles events: takes batches from the addon and gives their events to those who call the handlers. */

import { Buffer } from 'node:buffer';
import { isMainThread } from 'node:worker_threads';
import { AsyncContext } from './async-context.cjs';
import { ABORT, Batch, CLOSE, DRAIN, MESSAGE, OPEN, REQUEST, UPGRADE } from './batch.cjs';
import { corkedByBatches } from './cork.cjs';
import { WsBrokerError } from './errors.cjs';
import { checkHandlers, checkWorkerOptions } from './handlers.cjs';
import { leaveHand, takeInHand } from './in-hand.cjs';
import { native } from './native.cjs';
import { ParallelHandlers } from './parallel-handlers.cjs';
import { setImmediate, setTimeout } from './primordials.cjs';
import { type Registered, report, reportTo, stopReportingTo } from './report.cjs';
import { ANSWERING, DECIDING, RequestHandlers } from './request-handlers.cjs';
import { SerialHandlers } from './serial-handlers.cjs';
import { SocketCalls, type SocketHandlers } from './socket-calls.cjs';
import type { SocketId } from './types.cjs';

/** How many batches are handled before timers and I/O of the application's thread get their turn. */
const BATCHES_PER_TURN = 8;

/** Most batches are smaller. */
const STORE_BYTES = 64 * 1024;

/** When batches are tried again that there was no memory for, in ms. */
const RETRY_AFTER = 50;

/**
 * Whether libuv runs the event loop. Bun and Deno have loops of their own and say in other ways that they are Node;
 * their functions of libuv's names are not all there, and some of Bun's end the process.
 */
const IS_LIBUV = process.versions.bun === undefined && process.versions.deno === undefined;

/** What `native.register` answers instead of a handle. */
const REGISTERED_HERE = 0;
const REGISTERED_ELSEWHERE = -1;

/** Who works off a batch now. */
let inTurn: WorkerThread | undefined;

/**
 * The registration of a thread. It ends with `retire` and the last handler that was called before.
 */
export class WorkerThread {
  readonly #registered: Registered;
  readonly #handle: number;
  /** How many events have been handled, modulo 2^32: messages, opens and drains. The addon reads it when the thread ends. */
  readonly #finishedEvents = new Uint32Array(new ArrayBuffer(2 * Uint32Array.BYTES_PER_ELEMENT));
  readonly #calls: SocketCalls;
  readonly #sockets: SocketHandlers;
  readonly #requests: RequestHandlers;
  /** Where batches come of which nothing is kept, one after the other. */
  readonly #store = Buffer.from(new ArrayBuffer(STORE_BYTES));
  readonly #stored = new Batch(this.#store);
  /** The batch that is being handled. */
  #batch: Batch | undefined;
  readonly #handleNext = () => this.#handleEvent(this.#batch as Batch);
  /** Sockets that wait elsewhere for this retired worker to be done with them. */
  #heldBack = new Set<SocketId>();
  /** It may be done with some of them, which is looked at when the turn is over. */
  #mayLetGo = false;
  #isRetired = false;

  /**
   * @throws WsBrokerError `WSB_INVALID_ARGUMENT` for what is no object of handlers, `WSB_ALREADY_REGISTERED`
   */
  constructor(worker: unknown, options: unknown) {
    const { handlers, interest } = checkHandlers(worker);
    const { serial } = checkWorkerOptions(options);
    const context = new AsyncContext();
    this.#registered = { handlers, context };
    this.#handle = native.register(
      interest.http,
      interest.upgrade,
      interest.opens,
      interest.sockets,
      (isElsewhere) => (isElsewhere === undefined ? this.#turn() : this.#enterTurn()),
      this.#finishedEvents,
      isMainThread,
      IS_LIBUV,
      context.shared,
    );
    checkRegistered(this.#handle);
    this.#calls = new SocketCalls(this.#registered, this.#handle, this.#finishedEvents);
    const onIdle = (id: SocketId) => {
      this.#letGo(id);
      this.#endWhenIdle();
    };
    this.#sockets = serial ? new SerialHandlers(this.#calls, onIdle) : new ParallelHandlers(this.#calls, onIdle);
    this.#requests = new RequestHandlers(this.#registered, () => this.#endWhenIdle());
    reportTo(this.#registered);
  }

  /** Gives sockets and events to the other workers. */
  retire(): void {
    if (this.#isRetired) return;
    // Nobody else may be called for a socket while a handler of it is busy here, or about to be called.
    this.#heldBack = new Set([...this.#sockets.busy.keys(), ...(this.#batch?.socketsLeft() ?? [])]);
    this.#isRetired = true;
    this.#mayLetGo = inTurn === this;
    stopReportingTo(this.#registered);
    native.retire(this.#handle, Float64Array.from(this.#heldBack));
    this.#endWhenIdle();
  }

  /** Lets a socket go to its next worker that no handler here is busy with any more. */
  #letGo(id: SocketId): void {
    // The batch may have events of it.
    if (inTurn === this) this.#mayLetGo = true;
    else if (this.#heldBack.delete(id)) native.release(this.#handle, id);
  }

  #letGoOfIdle(): void {
    if (!this.#mayLetGo) return;
    this.#mayLetGo = false;
    for (const id of this.#heldBack) if (!this.#sockets.busy.has(id)) this.#letGo(id);
  }

  #endWhenIdle(): void {
    const isBusy = inTurn === this || this.#sockets.busy.size > 0 || this.#requests.isBusy;
    if (this.#isRetired && !isBusy) native.end(this.#handle);
  }

  #enterTurn(): void {
    this.#registered.context.runShared(() => this.#turn());
  }

  /** Lets no exception out: there is nobody above it. */
  #turn(): void {
    if (inTurn !== undefined) {
      // A handler runs the event loop: what comes meanwhile waits until it has returned.
      if (inTurn !== this) setImmediate(() => this.#enterTurn());
      return;
    }
    inTurn = this;
    let isMoreWaiting = true;
    try {
      corkedByBatches(() => {
        isMoreWaiting = this.#handleBatches();
      });
    } catch (error) {
      this.#tryAgainLater();
      report(this.#registered, error, { handler: 'events' });
      return;
    } finally {
      leaveHand();
    }
    inTurn = undefined;
    this.#letGoOfIdle();
    if (isMoreWaiting) setImmediate(() => this.#enterTurn());
    else this.#endWhenIdle();
  }

  /** The addon still has the batch in hand, and nobody may take another one before it is done. */
  #tryAgainLater(): void {
    setTimeout(() => {
      inTurn = undefined;
      this.#enterTurn();
    }, RETRY_AFTER);
  }

  /** Answers whether there may be more. Throws what is in the way of a batch and may be over soon. */
  #handleBatches(): boolean {
    for (let count = 0; count < BATCHES_PER_TURN; count += 1) {
      // One that was broken off goes on where it was.
      const batch = this.#batch ?? this.#take();
      if (batch === undefined) return false;
      this.#dispatch(batch);
    }
    return true;
  }

  #take(): Batch | undefined {
    leaveHand();
    const taken = native.take(this.#handle, this.#store);
    if (taken === undefined) return undefined;
    return typeof taken === 'number' ? this.#stored.restart(taken) : new Batch(taken);
  }

  #dispatch(batch: Batch): void {
    this.#batch = batch;
    const { context } = this.#registered;
    while (batch.next()) {
      if (context.isShared) this.#handleEvent(batch);
      else context.run(this.#handleNext);
    }
    this.#batch = undefined;
  }

  /** Whatever fails, it is the event's alone. */
  #handleEvent(batch: Batch): void {
    const { kind, id } = batch;
    try {
      switch (kind) {
        case MESSAGE:
          this.#receive(batch, id);
          break;
        case OPEN:
          this.#sockets.arrive(batch, id, kind, batch.request, 0);
          break;
        case DRAIN:
          this.#sockets.arrive(batch, id, kind, undefined, 0);
          break;
        case CLOSE:
          this.#sockets.arrive(batch, id, kind, batch.reason, batch.code);
          break;
        case REQUEST:
          this.#requests.handle(id, batch.request, ANSWERING);
          break;
        case UPGRADE:
          this.#requests.handle(id, batch.request, DECIDING);
          break;
        case ABORT:
          this.#requests.abort(id);
          break;
      }
    } catch (error) {
      this.#fail(kind, id, error);
    }
  }

  #receive(batch: Batch, id: SocketId): void {
    const data = batch.data;
    if (batch.isAsTaken) takeInHand(data, batch.offset);
    this.#sockets.arrive(batch, id, MESSAGE, data, 0);
  }

  /** An event could not be given to its handler. */
  #fail(kind: number, id: number, error: unknown): void {
    switch (kind) {
      case MESSAGE:
      case OPEN:
      case DRAIN:
      case CLOSE:
        this.#calls.fail(id, kind, error);
        break;
      case REQUEST:
        this.#requests.fail(id, undefined, ANSWERING, error);
        break;
      case UPGRADE:
        this.#requests.fail(id, undefined, DECIDING, error);
        break;
      default:
        report(this.#registered, error, { handler: 'events' });
    }
  }
}

function checkRegistered(handle: number): void {
  if (handle === REGISTERED_HERE) {
    throw new WsBrokerError(
      'WSB_ALREADY_REGISTERED',
      'this thread is registered as a worker already; call unregister() of that registration first',
    );
  }
  if (handle === REGISTERED_ELSEWHERE) {
    throw new WsBrokerError(
      'WSB_ALREADY_REGISTERED',
      'this thread is registered as a worker already, by another copy of this package that it has loaded (its require.cache ' +
        'was cleared, or a test runner loads modules anew); call unregister() of that registration first',
    );
  }
}
