/**
 * The large text that a handler was given last. Most applications pass messages on as they are, and the addon has what
 * this one came in: it need not be taken out of the string again.
 */

import { type NativeData, type NativeMessage, native } from './native.cjs';

let last = '';

/** The next large text of the batch in hand. */
export function takeLargeText(worker: number, isAscii: boolean): string {
  last = native.takeLargeText(worker, isAscii);
  return last;
}

/** To be called before the next batch is taken, with which the addon forgets it too. */
export function forgetLargeText(): void {
  last = '';
}

/** What the addon gets for a message of this data. */
export function toMessage(data: NativeData): NativeMessage {
  // The length tells nearly all others apart, and is there without a look at the characters.
  return typeof data === 'string' && data.length === last.length && data === last && last !== '' ? null : data;
}
