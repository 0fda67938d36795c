/**
 * The package for `import`: the same functions and the same broker as for `require`.
 *
 * @module
 */

export type * from './index.cjs';
export {
  broadcast,
  bufferedAmount,
  channelCount,
  channels,
  close,
  connectionCount,
  connections,
  copySubscriptions,
  ERROR_CODES,
  getToken,
  registerWorkerThread,
  send,
  sendToChannel,
  setToken,
  start,
  stats,
  subscribe,
  subscriberCount,
  subscribers,
  unsubscribe,
  WsBrokerError,
} from './index.cjs';
