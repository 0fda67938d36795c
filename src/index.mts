/**
 * The package for `import`: the same functions and the same broker as for `require`.
 *
 * @module
 */

export type * from './index.cjs';
export {
  ban,
  bans,
  broadcast,
  bufferedAmount,
  channelCount,
  channels,
  close,
  connectionCount,
  connections,
  copySubscriptions,
  drained,
  ERROR_CODES,
  getToken,
  registerWorkerThread,
  send,
  sendToChannel,
  setMessageRoute,
  setToken,
  signalOf,
  start,
  stats,
  subscribe,
  subscriberCount,
  subscribers,
  unban,
  unsubscribe,
  WsBrokerError,
} from './index.cjs';
