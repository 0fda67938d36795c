/** Calls handlers for requests and upgrades, and answers with what comes of it. */

import { corkForThisTask } from './cork.cjs';
import { adopt, isThenable } from './promises.cjs';
import { type Registered, report } from './report.cjs';
import type { PackedRequest } from './request.cjs';
import { decide, refuseWithStatus, respond, respondWithStatus } from './response.cjs';
import { UnreadFields } from './unread.cjs';

/** How to get from a request's event to its answer. */
export interface RequestSteps {
  handler: 'handleHttpRequest' | 'handleSocketUpgrade';
  /** Throws when the result is none; answers the fields of it that nobody has read. */
  answer: (id: number, result: unknown) => string[] | undefined;
  fail: (id: number) => void;
}

export const ANSWERING: RequestSteps = {
  handler: 'handleHttpRequest',
  answer: respond,
  fail: (id) => respondWithStatus(id, 500),
};

export const DECIDING: RequestSteps = {
  handler: 'handleSocketUpgrade',
  answer: decide,
  fail: (id) => refuseWithStatus(id, 500),
};

/** The requests of one registration. */
export class RequestHandlers {
  readonly #registered: Registered;
  readonly #onSettled: () => void;
  /**
   * Requests whose handler has returned a promise. One that nobody waits for any more is left to its handler: that may never
   * come to an end, and the request holds its body and whatever came together with it.
   */
  readonly #open = new Map<number, PackedRequest | WeakRef<PackedRequest>>();
  readonly #unreadFields = new UnreadFields();

  /**
   * @param onSettled - called when a promise has settled; must not throw
   */
  constructor(registered: Registered, onSettled: () => void) {
    this.#registered = registered;
    this.#onSettled = onSettled;
  }

  /** Handlers are busy with some. */
  get isBusy(): boolean {
    return this.#open.size > 0;
  }

  handle(id: number, request: PackedRequest, steps: RequestSteps): void {
    try {
      const { handlers } = this.#registered;
      if (steps === ANSWERING && handlers.handleHttpRequest === undefined) {
        respondWithStatus(id, 503);
        return;
      }
      const result: unknown = handlers[steps.handler]?.(request);
      if (isThenable(result)) {
        this.#open.set(id, request);
        void this.#answerLater(id, steps, result);
      } else {
        this.#answer(id, request, steps, result);
      }
    } catch (error) {
      this.fail(id, request, steps, error);
    }
  }

  /** Nobody waits for the answer any more. */
  abort(id: number): void {
    const request = this.#open.get(id);
    if (request === undefined || request instanceof WeakRef) return;
    this.#open.set(id, new WeakRef(request));
    request.abort();
  }

  /** Answers that the handler has failed. */
  fail(id: number, request: PackedRequest | undefined, { handler, fail }: RequestSteps, error: unknown): void {
    fail(id);
    report(this.#registered, error, request === undefined ? { handler } : { handler, request });
  }

  /** Throws when the result is none. */
  #answer(id: number, request: PackedRequest | undefined, { handler, answer }: RequestSteps, result: unknown): void {
    const unread = answer(id, result);
    if (unread === undefined) return;
    for (const error of this.#unreadFields.errors(handler, unread)) {
      report(this.#registered, error, request === undefined ? { handler } : { handler, request });
    }
  }

  /** Has nothing of the request at hand while it waits: that is for `abort` to let go of. Never rejects. */
  async #answerLater(id: number, steps: RequestSteps, promise: PromiseLike<unknown>): Promise<void> {
    try {
      const result = await adopt(promise);
      corkForThisTask();
      this.#answer(id, this.#requestOf(id), steps, result);
    } catch (error) {
      this.fail(id, this.#requestOf(id), steps, error);
    }
    this.#open.delete(id);
    this.#onSettled();
  }

  #requestOf(id: number): PackedRequest | undefined {
    const request = this.#open.get(id);
    return request instanceof WeakRef ? request.deref() : request;
  }
}
