/** The object of handlers that a thread registers: what is in it, and what was meant to be. */

import { checkObject, invalid, nobodyReads, readProperties, unreadable } from './arguments.cjs';
import { WsBrokerError } from './errors.cjs';
import { closest } from './suggest.cjs';
import type { WorkerHandlers } from './types.cjs';

const SOCKET_HANDLERS = [
  'handleSocketUpgrade',
  'handleSocketOpen',
  'handleSocketMessage',
  'handleSocketDrain',
  'handleSocketClose',
] as const satisfies readonly (keyof WorkerHandlers)[];

const HANDLERS = [
  'handleHttpRequest',
  ...SOCKET_HANDLERS,
  'handleError',
] as const satisfies readonly (keyof WorkerHandlers)[];

export type HandlerName = (typeof HANDLERS)[number];

/** So many letters may be wrong in a handler's name. One that differs more is a function of the application's own. */
const MAX_WRONG_LETTERS = 2;

/** What an object that handles nothing is thought to have as a handler. */
const LIKE_A_HANDLER = /^(handle|on)[A-Z]/;

/** The options of {@link registerWorkerThread}. */
export interface WorkerOptions {
  /**
   * Whether the handlers of one socket come one after the other: the next is called when the promise of the one before has
   * settled. With `false` they are called in the order of the socket's events, and run beside each other; while more than 256
   * of them run nothing more is read from that socket. It is for protocols that carry several things at once on one socket,
   * such as GraphQL subscriptions, whose handlers return promises that last as long as these. {@link signalOf} ends them: the
   * close event comes at once, and our close frame waits for none of them.
   *
   * @defaultValue true
   */
  serial?: boolean | undefined;
}

/** What a worker takes part in. */
export interface Interest {
  http: boolean;
  upgrade: boolean;
  opens: boolean;
  /** Anything about sockets. */
  sockets: boolean;
}

/**
 * @throws WsBrokerError `WSB_INVALID_ARGUMENT` for what is no object of handlers
 */
export function checkHandlers(value: unknown): { handlers: WorkerHandlers; interest: Interest } {
  const handlers = checkObject(value, 'worker');
  const present: HandlerName[] = [];
  for (const name of HANDLERS) {
    const handler = read(handlers, name);
    if (handler === undefined) continue;
    if (typeof handler !== 'function') invalid(`worker.${name}`, 'a function', handler);
    present.push(name);
  }
  refuseMisspelt(handlers, present);
  return { handlers: handlers as WorkerHandlers, interest: interestIn(present) };
}

/** The options of a registration, every one of them present. */
export function checkWorkerOptions(value: unknown): Required<WorkerOptions> {
  const { serial = true } = value === undefined ? {} : readProperties(value, ['serial'], 'options');
  return typeof serial === 'boolean' ? { serial } : invalid('options.serial', 'a boolean', serial);
}

function interestIn(present: readonly HandlerName[]): Interest {
  return {
    http: present.includes('handleHttpRequest'),
    upgrade: present.includes('handleSocketUpgrade'),
    opens: present.includes('handleSocketOpen'),
    sockets: SOCKET_HANDLERS.some((name) => present.includes(name)),
  };
}

/**
 * Refuses a function that nobody will call though it was meant as a handler. An application may have functions of its own
 * beside its handlers, and give them names like theirs: one is refused only for a handler that is not there.
 */
function refuseMisspelt(handlers: Record<string, unknown>, present: readonly HandlerName[]): void {
  const missing = HANDLERS.filter((name) => !present.includes(name));
  for (const name of allNamesOf(handlers)) {
    if ((HANDLERS as readonly string[]).includes(name)) continue;
    const isMeant =
      closest(name, missing, MAX_WRONG_LETTERS) !== undefined || (present.length === 0 && LIKE_A_HANDLER.test(name));
    if (isMeant && typeof read(handlers, name) === 'function') {
      throw new WsBrokerError('WSB_INVALID_ARGUMENT', `worker: ${nobodyReads(name, HANDLERS)}`);
    }
  }
}

/** Of the object itself and of the classes that it is an instance of. */
function allNamesOf(handlers: object): string[] {
  try {
    const names: string[] = [];
    for (let from: object | null = handlers; from !== null && from !== Object.prototype; ) {
      names.push(...Object.getOwnPropertyNames(from));
      from = Object.getPrototypeOf(from) as object | null;
    }
    return names;
  } catch (cause) {
    return unreadable('worker', cause);
  }
}

function read(handlers: Record<string, unknown>, name: string): unknown {
  try {
    return handlers[name];
  } catch (cause) {
    return unreadable(`worker.${name}`, cause);
  }
}
