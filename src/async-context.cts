/** The asynchronous context in which functions of the application are called: what its `AsyncLocalStorage`s hold there. */

import { AsyncLocalStorage, AsyncResource } from 'node:async_hooks';

/**
 * Whether what a storage holds is a property of the resource that is executed, as in Node 20 and 22. A handler that changes
 * it changes the resource, which can be noticed. Elsewhere contexts are values that nobody else gets to see.
 */
const IS_OF_RESOURCE = 'kResourceStore' in new AsyncLocalStorage();

/**
 * A context that stays as it was where this was made, whatever `enterWith` does in what is run in it.
 *
 * Most applications never change it, and to enter it for each event takes a tenth of the time of a small message. So many
 * events share one entry until one of them has changed something.
 */
export class AsyncContext {
  /** No code of the application runs in this one. */
  readonly #untouched = makeResource();
  /** To run events in as long as {@link isShared}. */
  readonly shared: AsyncResource = this.#watch(makeResource());
  /** Nothing has ever changed the shared one. To be looked at before each event: from false on each is to be {@link run}. */
  isShared = IS_OF_RESOURCE;
  /** What was changed in the shared one, with what was there. */
  readonly #changes = new Map<PropertyKey, unknown>();

  /** Runs a function in an entry of its own. */
  run<T>(work: () => T): T {
    if (!IS_OF_RESOURCE) return this.#untouched.runInAsyncScope(work);
    if (this.#changes.size > 0) this.#restore();
    return this.#untouched.runInAsyncScope(makeResource).runInAsyncScope(work);
  }

  /** Runs a function that calls for several events, each of which looks at {@link isShared}. */
  runShared(work: () => void): void {
    if (this.isShared) this.shared.runInAsyncScope(work);
    else work();
  }

  #watch(resource: AsyncResource): AsyncResource {
    return new Proxy(resource, {
      set: (target, key, value) => {
        const before: unknown = Reflect.get(target, key);
        // Resources are also told, when they begin, what they have already.
        if (!Object.is(before, value)) {
          if (!this.#changes.has(key)) this.#changes.set(key, before);
          this.isShared = false;
        }
        return Reflect.set(target, key, value);
      },
    });
  }

  /** What one client's handler has left there would be kept for ever. */
  #restore(): void {
    for (const [key, before] of this.#changes) Reflect.set(this.shared, key, before);
    this.#changes.clear();
  }
}

/** In the context of the caller. Nobody has to be told of its end, so that it needs no watching by the garbage collector. */
function makeResource(): AsyncResource {
  return new AsyncResource('wsbroker', { requireManualDestroy: true });
}
