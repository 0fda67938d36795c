/** The part of `options.limits` that is about what one socket may do. */

import { invalid } from './arguments.cjs';
import { count, type LimitParser, limit, type NativeRate, readRate } from './limit-values.cjs';

/** What a socket may send, and what follows beyond it. */
export interface SocketRateLimit {
  /** How much may come at once: 1 to 2,147,483,647. */
  capacity: number;
  /** How long an empty bucket takes to be full again, in ms: 1 to 2,147,483,647. What comes back comes evenly. */
  interval: number;
  /**
   * What happens to a socket that is over its rate. `'close'` closes it with 1008; the reason names the limit. `'drop'`
   * leaves the message out and counts it in `stats().dropped.overRate`; a ping is not answered. What is left out takes
   * nothing from the bucket, so that the application gets just the rate, however much is sent. `'pause'` reads nothing
   * more from the socket until the bucket has paid, so that TCP slows the client down and nothing is lost: what was read
   * together, 1 KiB or what was left in the bucket, is delivered together and waited for longer. A paused socket can be
   * sent to and closed, and is pinged. One whose client has sent everything and ended the connection is not pinged any
   * more: it stays open until all of it has been delivered. What is sent to it meanwhile, a pong included, is answered by
   * the client's system with a reset, and then what has not been read yet may be lost.
   *
   * @defaultValue 'close'
   */
  onExceed?: 'close' | 'drop' | 'pause';
}

/**
 * What each socket of a server may do. What is over a limit is counted in {@link Stats.dropped}: `overRate`,
 * `overRateCloses`, `channelLimit`.
 */
export interface SocketLimits {
  /**
   * Messages from one socket. A ping counts as a message, for it is answered; a pong and the parts of a message do not,
   * they cost their bytes alone.
   *
   * `true` is `{ capacity: 1000, interval: 10_000, onExceed: 'close' }`: 100 a second are more than a game that reports
   * each frame, and what a stalled network holds back for some seconds, and delivers at once, is no flood.
   */
  messagesPerSocket?: boolean | SocketRateLimit;
  /**
   * Bytes from one socket as they arrive, frame headers and control frames included. A message that was compressed
   * counts with its size when unpacked. A message that is larger than the capacity never passes with `'drop'`, and with
   * `'close'` only if it comes slowly.
   *
   * `true` is `{ capacity: 10_485_760, interval: 10_000, onExceed: 'close' }`: ten of the largest messages that the
   * default `maxMessageSize` lets through at once, and then 1 MiB a second.
   */
  bytesPerSocket?: boolean | SocketRateLimit;
  /**
   * Channels that one socket may be in at once. Beyond it {@link subscribe} throws `WSB_LIMIT_REACHED`,
   * {@link copySubscriptions} leaves the socket out, and an upgrade that was accepted with more is answered 500. Each
   * is counted in `stats().dropped.channelLimit`.
   *
   * `true` is 100: more than the rooms that somebody looks at, and few enough that clients who may choose their
   * channels cannot fill the memory with them.
   */
  channelsPerSocket?: boolean | number;
}

/** A rate as the addon takes it; a capacity of 0 is no limit. */
export interface NativeSocketRate extends NativeRate {
  /** The place in `POLICIES`. */
  onExceed: number;
}

/** The limits of a socket as the addon takes them; 0 is no limit. */
export interface NativeSocketLimits {
  messagesPerSocket: NativeSocketRate;
  bytesPerSocket: NativeSocketRate;
  channelsPerSocket: number;
}

/** In the order in which `crates/node/src/listen_options.rs` reads them. */
const POLICIES = ['close', 'drop', 'pause'];

/** How each limit is read, with what `true` stands for. The same defaults stand in the documentation of `SocketLimits`. */
export const SOCKET_LIMITS: { readonly [K in keyof SocketLimits]-?: LimitParser<NativeSocketLimits[K]> } = {
  messagesPerSocket: socketRate({ capacity: 1000, interval: 10_000 }, 'messages'),
  bytesPerSocket: socketRate({ capacity: 10_485_760, interval: 10_000 }, 'bytes'),
  channelsPerSocket: count(100, 'channels'),
};

function socketRate(standard: NativeRate, unit: string): LimitParser<NativeSocketRate> {
  const off = { capacity: 0, interval: 0, onExceed: 0 };
  return limit(off, { ...standard, onExceed: 0 }, (value, name) => {
    const { capacity, interval, onExceed } = readRate(value, name, unit, ['onExceed']);
    return { capacity, interval, onExceed: checkPolicy(onExceed, `${name}.onExceed`) };
  });
}

function checkPolicy(value: unknown, name: string): number {
  const policy = value === undefined ? 0 : POLICIES.indexOf(value as string);
  return policy >= 0 ? policy : invalid(name, "'close', 'drop' or 'pause'", value);
}
