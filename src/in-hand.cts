/**
 * The message that a handler is called with. Most applications pass messages on as they are, and the addon still has what
 * they came in: a text need not be taken out of its string again, nor asked a view where its bytes are.
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

/**
 * Before another batch is taken or this one is taken again, and when a turn is over: what a handler gives from here on has
 * no place in a batch.
 */
export function leaveHand(): void {
  data = NOTHING;
}

/**
 * What the addon gets for a message that an application gives. It has to get it at once: code of the application's that runs
 * in between, as a getter of an option, could take away the bytes that a place stands for.
 */
export function toMessage(messageData: unknown): NativeMessage {
  if (messageData !== data) return checkData(messageData);
  // Bytes go out as they are now. A view without any may have had its buffer transferred: there is nothing at its place. It
  // may say that it has a length all the same, if the application has told it to.
  const isThere = typeof data === 'string' || (data as Buffer)[0] !== undefined;
  return isThere ? offset : checkData(data);
}
