/** The errors of the package: one class, one stable code each. */

/**
 * Every error code with what it means. The table of the README is made from this one.
 */
export const ERROR_CODES = {
  WSB_INVALID_ARGUMENT:
    'An argument, an option or what a handler returned is not what is expected; the message names it, what came and what is expected.',
  WSB_INVALID_ADDRESS:
    'The address given as `bind` cannot be parsed, its host does not resolve, or this machine does not have it.',
  WSB_ADDRESS_IN_USE: 'Another socket listens on that address already.',
  WSB_PERMISSION_DENIED: 'The process may not listen there: a port below 1024, or a folder it cannot write to.',
  WSB_NO_WORKER: '`start` was called before any thread registered as a worker; events would reach nobody.',
  WSB_ALREADY_REGISTERED:
    'This thread is registered as a worker already, perhaps by another copy of the package that it has loaded; unregister it first.',
  WSB_LIMIT_REACHED: 'A socket is in as many channels as `limits.channelsPerSocket` lets it.',
  WSB_HANDLER_TIMEOUT:
    'A handler returned a promise that did not settle within `handlerTimeout`; its socket is closed with 1011. `handleError` is told of it.',
  WSB_NOT_SUPPORTED: 'This platform or this version cannot do it.',
  WSB_IO_ERROR:
    'The operating system refused for a reason that has no code of its own; the message tells what it said.',
  WSB_LOAD_FAILED:
    'The native addon could not be loaded; the message names the platform, the real reason and what to do.',
} as const satisfies Readonly<Record<string, string>>;

/** The code of a {@link WsBrokerError}: stable, to be compared with. */
export type WsBrokerErrorCode = keyof typeof ERROR_CODES;

/**
 * Every error that this package throws, or tells `handleError` of its own.
 *
 * @example
 * ```js
 * try {
 *   start({ bind: ':80' });
 * } catch (error) {
 *   if (error instanceof WsBrokerError && error.code === 'WSB_PERMISSION_DENIED') start({ bind: ':8080' });
 *   else throw error;
 * }
 * ```
 */
export class WsBrokerError extends Error {
  /** Which error it is; see the table of error codes. */
  readonly code: WsBrokerErrorCode;

  constructor(code: WsBrokerErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'WsBrokerError';
    this.code = code;
  }
}
