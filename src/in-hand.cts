/**
 * The message that a handler is called with. Most applications pass messages on as they are, and the addon still has what
 * they came in: a text need not be taken out of its string again.
 */

import { checkData } from './arguments.cjs';
import type { NativeMessage } from './native.cjs';

/** Is no data. */
const NOTHING = Symbol('nothing');

let data: unknown = NOTHING;
let offset = 0;

/** A handler is called with this data now, of the record at that offset. */
export function takeInHand(messageData: string | Buffer, recordOffset: number): void {
  data = messageData;
  offset = recordOffset;
}

/** Before another batch is taken, and when a turn is over: what a handler gives from here on is in no batch. */
export function leaveHand(): void {
  data = NOTHING;
}

/** What the addon gets for a message that an application gives. */
export function toMessage(messageData: unknown): NativeMessage {
  // Bytes may have been changed meanwhile, and go out as they are now; whose they are need not be checked.
  if (messageData === data) return typeof data === 'string' ? offset : (data as Buffer);
  return checkData(messageData);
}
