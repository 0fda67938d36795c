/** Where the errors of an application's functions go. They never end the thread. */

import type { ErrorContext, WorkerHandlers } from './types.cjs';

/** The handlers that this thread is registered with. */
let registered: WorkerHandlers | undefined;

/** From now on these are this thread's. */
export function reportTo(handlers: WorkerHandlers): void {
  registered = handlers;
}

/** The registration of these handlers has ended. */
export function stopReportingTo(handlers: WorkerHandlers): void {
  if (registered === handlers) registered = undefined;
}

/** For an error of no worker's handler: to this thread's `handleError`, or to stderr. */
export function reportHere(error: unknown, context: ErrorContext): void {
  report(registered, error, context);
}

/** To the `handleError` of these handlers, or to stderr. */
export function report(handlers: WorkerHandlers | undefined, error: unknown, context: ErrorContext): void {
  const lastResort = (second: unknown) => {
    tellStderr(`${context.handler} failed:`, error);
    tellStderr('handleError failed as well:', second);
  };
  try {
    if (handlers?.handleError === undefined) {
      tellStderr(`${context.handler} failed:`, error);
      return;
    }
    const result = handlers.handleError(error, context);
    if (isThenable(result)) Promise.resolve(result).catch(lastResort);
  } catch (second) {
    lastResort(second);
  }
}

function tellStderr(text: string, error: unknown): void {
  try {
    console.error(`wsbroker: ${text}`, error);
  } catch {
    // A console that throws, or an error that throws when it is printed, is no reason to lose events.
  }
}

export function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && typeof (value as PromiseLike<unknown>).then === 'function';
}
