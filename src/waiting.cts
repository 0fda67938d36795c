/** What an application may wait for of a socket. */

import { AsyncContext } from './async-context.cjs';
import { native } from './native.cjs';
import { AbortController, IntrinsicPromise } from './primordials.cjs';
import type { SocketId } from './types.cjs';

/** Resolves when nothing waits for a socket any more. */
export function whenDrained(socketId: SocketId): Promise<boolean> {
  return new IntrinsicPromise((resolve) => {
    native.whenDrained(socketId, (isDrained) => resolve(isDrained === 1));
  });
}

/** What listeners of one signal enter is not for those of the next. */
const context = new AsyncContext();

/** Of the sockets that this thread has asked for and that have not begun to close. */
const controllers = new Map<SocketId, AbortController>();

/** The same signal for each call of a thread while the socket is open. */
export function signalOfSocket(socketId: SocketId): AbortSignal {
  const known = controllers.get(socketId);
  if (known !== undefined) return known.signal;
  const controller = new AbortController();
  const isOpen = native.whenClosed(socketId, () => {
    controllers.delete(socketId);
    context.run(() => controller.abort());
  });
  if (isOpen) controllers.set(socketId, controller);
  else controller.abort();
  return controller.signal;
}
