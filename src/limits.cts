/** `options.limits`: what one client, and all of them together, may take. Parsed once; off is 0. */

import { readProperties } from './arguments.cjs';
import { count, type LimitParser, type NativeRate, rate } from './limit-values.cjs';
import { type NativeSocketLimits, SOCKET_LIMITS, type SocketLimits } from './socket-limits.cjs';

/**
 * A token bucket. It holds `capacity` tokens, and each event takes one. An empty bucket is full again after `interval`
 * ms; what comes back comes evenly, so `{ capacity: 100, interval: 60_000 }` allows 100 at once and then one every 600 ms.
 */
export interface RateLimit {
  /** How many may come at once: 1 to 2,147,483,647. */
  capacity: number;
  /** How long an empty bucket takes to be full again, in ms: 1 to 2,147,483,647. */
  interval: number;
}

/**
 * What one client, and all of them together, may take of a server. Each limit is off unless it is given; `true` stands
 * for the default that is named with it, and `false` for off. Limits are exact over all threads, and count for one
 * server each, but for `connections`, which counts those of the whole process. What they refuse is counted in
 * {@link Stats.limited}, but for the limits per socket, see {@link SocketLimits}.
 *
 * A client is an IPv4 address or an IPv6 network of 64 bits, for that is what one customer gets; see
 * {@link StartOptions.trustProxy} and {@link StartOptions.proxyProtocol} for clients behind a proxy. A peer on a Unix
 * socket has no address, and without a proxy that names the client no limit per IP applies to it.
 */
export interface Limits extends SocketLimits {
  /**
   * Connections that one client may have open, sockets included. The first request of one more is answered 429, and
   * where several such wait for their answer, further ones are closed at once. Behind a trusted proxy sockets are
   * counted alone, from the upgrade on: the proxy's other connections are shared by its clients.
   *
   * `true` is 100: an office of some dozens of people behind one address, with a few tabs each.
   */
  connectionsPerIp?: boolean | number;
  /**
   * Upgrade requests of one client, sound or not. Beyond it the answer is 429 with `Retry-After`.
   *
   * `true` is `{ capacity: 100, interval: 60_000 }`: everybody behind one address may reconnect at once.
   */
  upgradesPerIp?: boolean | RateLimit;
  /**
   * Requests of one client that are no upgrades, sound or not. Beyond it the answer is 429 with `Retry-After`.
   *
   * `true` is `{ capacity: 100, interval: 60_000 }`: a page with its parts for each of a few people, or a call every
   * 600 ms.
   */
  requestsPerIp?: boolean | RateLimit;
  /**
   * Connections of the whole process, of all its servers, at which this server takes no more. The first request of one
   * more is answered 503 with `Retry-After: 1`, and where many such wait for their answer, further ones are closed at
   * once.
   *
   * `true` is 10_000: with the default `maxBackpressure` slow clients could make that many sockets hold 10 GiB.
   */
  connections?: boolean | number;
  /**
   * Upgrades of this server that may be under way at one time: their request has been read, and they are neither open nor
   * refused. Those wait for `handleSocketUpgrade`, and one more is answered 503 with `Retry-After: 1` without asking it.
   * It keeps clients that all come back at once from burying what the handler asks, a database for example.
   *
   * `true` is 1_000: at 50 ms for a decision that lets 20,000 clients in per second.
   */
  handshakes?: boolean | number;
}

/** The limits as the addon takes them, every one of them present; 0 is no limit. */
export interface NativeLimits extends NativeSocketLimits {
  connectionsPerIp: number;
  upgradesPerIp: NativeRate;
  requestsPerIp: NativeRate;
  connections: number;
  handshakes: number;
}

const PER_MINUTE = { capacity: 100, interval: 60_000 };

/** How each limit is read, with what `true` stands for. The same defaults stand in the documentation of `Limits`. */
const LIMITS: { readonly [K in keyof Limits]-?: LimitParser<NativeLimits[K]> } = {
  connectionsPerIp: count(100, 'connections'),
  upgradesPerIp: rate(PER_MINUTE, 'upgrades'),
  requestsPerIp: rate(PER_MINUTE, 'requests'),
  connections: count(10_000, 'connections'),
  handshakes: count(1_000, 'handshakes'),
  ...SOCKET_LIMITS,
};

const NAMES = Object.keys(LIMITS) as (keyof Limits)[];

/**
 * @throws WsBrokerError `WSB_INVALID_ARGUMENT` that names the limit
 */
export function parseLimits(value: unknown): NativeLimits {
  const limits = value === undefined ? {} : readProperties(value, NAMES, 'options.limits');
  const parsed = Object.entries(LIMITS).map(([key, parse]) => [
    key,
    parse(limits[key as keyof Limits], `options.limits.${key}`),
  ]);
  return Object.fromEntries(parsed) as NativeLimits;
}
