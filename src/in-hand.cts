/**
 * The message that a handler is called with. Most applications pass messages on as they are, and the addon still has what
 * they came in: the data need not be taken out of its value again.
 */

import { checkData } from './arguments.cjs';
import type { NativeMessage } from './native.cjs';

/** Empty: nothing is in hand. */
let data: string | Buffer = '';
let offset = 0;

/** A handler is called with this data now, which the addon has in the record at that offset. */
export function takeInHand(messageData: string | Buffer, recordOffset: number): void {
  data = messageData;
  offset = recordOffset;
}

/** What a handler gives from here on the addon does not have. */
export function leaveHand(): void {
  data = '';
}

/** What the addon gets for a message that an application gives. */
export function toMessage(messageData: unknown): NativeMessage {
  // Bytes go out as they are now. There are none in a buffer that has been transferred.
  if (messageData === data && data.length > 0) return offset;
  return checkData(messageData);
}
