/** Where the errors of an application's functions go. They never end the thread. */

import type { AsyncContext } from './async-context.cjs';
import { isThenable, onRejection } from './promises.cjs';
import { forgetKinds, tellStderr } from './stderr.cjs';
import type { ErrorContext, WorkerHandlers } from './types.cjs';

/** What a thread has registered, and the context that it did so in. */
export interface Registered {
  readonly handlers: WorkerHandlers;
  readonly context: AsyncContext;
}

/** What this thread is registered with. */
let registeredHere: Registered | undefined;

/** From now on these are this thread's. */
export function reportTo(registered: Registered): void {
  registeredHere = registered;
  forgetKinds();
}

/** This registration has ended. */
export function stopReportingTo(registered: Registered): void {
  if (registeredHere === registered) registeredHere = undefined;
}

/** For an error of no worker's handler: to this thread's `handleError`, or to stderr. */
export function reportHere(error: unknown, where: ErrorContext): void {
  report(registeredHere, error, where);
}

/** To the `handleError` of this registration, or to stderr. */
export function report(registered: Registered | undefined, error: unknown, where: ErrorContext): void {
  const { handler } = where;
  const lastResort = (second: unknown) => {
    tellStderr(handler, `${handler} failed`, error);
    tellStderr('handleError', 'handleError failed as well', second);
  };
  try {
    if (registered?.handlers.handleError === undefined) {
      tellStderr(handler, `${handler} failed`, error);
      return;
    }
    const { handlers, context } = registered;
    const result = context.run(() => handlers.handleError?.(error, where));
    if (isThenable(result)) void onRejection(result, lastResort);
  } catch (second) {
    lastResort(second);
  }
}
