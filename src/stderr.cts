/**
 * Errors that no `handleError` takes. A client that can make a handler fail can do so as often as it likes: of each kind
 * the first is told with its stack, and of the others how many there were, in a line a second.
 */

import { format } from 'node:util';
import { now, setTimeout } from './primordials.cjs';

/** How long errors are counted before that is told, in ms. */
const PERIOD = 1000;

/** How long a kind that was told is only counted, in ms. */
const TOLD_FOR = 60_000;

/** What is remembered of kinds, the last ones told. Few applications have so many places that fail. */
const MAX_KINDS = 64;

/** The most errors with their stacks in a period, of whatever kinds. */
const MAX_TOLD = 10;

/** The most characters of one error: its message may be as long as what a client has sent. */
const MAX_LENGTH = 8192;

/** When each kind was told last, the latest at the end. */
const toldAt = new Map<string, number>();
/** By handler, what was left out since the last line. */
const counts = new Map<string, number>();
let countingSince = 0;
let periodBegan = Number.NEGATIVE_INFINITY;
let toldInPeriod = 0;

/** Whoever registers next has errors of their own. */
export function forgetKinds(): void {
  toldAt.clear();
}

/**
 * Tells of an error, or counts it.
 *
 * @param handler - what failed
 * @param text - how to say that
 */
export function tellStderr(handler: string, text: string, error: unknown): void {
  const time = now();
  if (time - periodBegan >= PERIOD) {
    periodBegan = time;
    toldInPeriod = 0;
  }
  const kind = kindOf(handler, error);
  if (time - (toldAt.get(kind) ?? Number.NEGATIVE_INFINITY) < TOLD_FOR || toldInPeriod >= MAX_TOLD) {
    count(handler, time);
    return;
  }
  toldInPeriod += 1;
  remember(kind, time);
  write(`wsbroker: ${text}: ${shown(error)}`);
}

/**
 * The handler and the place in the code that the error is from. Not its message: many hold what the client has sent, so
 * that each would be another kind.
 */
function kindOf(handler: string, error: unknown): string {
  try {
    if (!(error instanceof Error)) return `${handler} ${error === null ? null : typeof error}`;
    const { message, stack } = error;
    const behind = typeof stack === 'string' ? stack.slice(stack.indexOf(message) + message.length) : '';
    return `${handler} ${error.name.slice(0, 64)} ${/^ +at .{1,512}/m.exec(behind)?.[0]}`;
  } catch {
    return `${handler} unknown`;
  }
}

function remember(kind: string, time: number): void {
  toldAt.delete(kind);
  toldAt.set(kind, time);
  if (toldAt.size <= MAX_KINDS) return;
  for (const oldest of toldAt.keys()) {
    toldAt.delete(oldest);
    return;
  }
}

function count(handler: string, time: number): void {
  if (counts.size === 0) {
    countingSince = time;
    // It keeps no process alive; one that ends before tells what it has.
    setTimeout(tellCounts, PERIOD).unref();
    process.once('exit', tellCounts);
  }
  counts.set(handler, (counts.get(handler) ?? 0) + 1);
}

function tellCounts(): void {
  process.removeListener('exit', tellCounts);
  const parts = Array.from(
    counts,
    ([handler, errors]) => `${errors.toLocaleString('en-US')} more error${errors === 1 ? '' : 's'} of ${handler}`,
  );
  counts.clear();
  // Longer if the thread was kept from running.
  const seconds = Math.round((now() - countingSince) / 1000);
  if (parts.length > 0)
    write(`wsbroker: … and ${parts.join(', ')} in the last ${seconds > 1 ? `${seconds} s` : 'second'}`);
}

function shown(error: unknown): string {
  try {
    const text = format(error);
    if (text.length <= MAX_LENGTH) return text;
    return `${text.slice(0, MAX_LENGTH)}… (${(text.length - MAX_LENGTH).toLocaleString('en-US')} more characters)`;
  } catch {
    return 'an error that throws when it is shown';
  }
}

function write(line: string): void {
  try {
    console.error('%s', line);
  } catch {
    // A console that throws is no reason to lose events.
  }
}
