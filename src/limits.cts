/** `options.limits`: what one client, and all of them together, may take. Parsed once; off is 0. */

import { checkInteger, checkNames, checkObject, invalid } from './arguments.cjs';

/** 2^31 - 1: the largest capacity, and the longest interval in ms, that the engine counts exactly. */
const MAX_RATE = 2_147_483_647;

/** 2^32 - 1, more than a machine can have open. */
const MAX_COUNT = 4_294_967_295;

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
 * {@link Stats.limited}.
 *
 * A client is an IPv4 address or an IPv6 network of 64 bits, for that is what one customer gets; see
 * {@link StartOptions.trustProxy} and {@link StartOptions.proxyProtocol} for clients behind a proxy. A peer on a Unix
 * socket has no address, and without a proxy that names the client no limit per IP applies to it.
 */
export interface Limits {
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
}

/** A rate as the addon takes it; a capacity of 0 is no limit. */
export interface NativeRate {
  capacity: number;
  interval: number;
}

/** The limits as the addon takes them, every one of them present; 0 is no limit. */
export interface NativeLimits {
  connectionsPerIp: number;
  upgradesPerIp: NativeRate;
  requestsPerIp: NativeRate;
  connections: number;
}

const PER_MINUTE = { capacity: 100, interval: 60_000 };

/** How each limit is read, with what `true` stands for. The same defaults stand in the documentation of `Limits`. */
const LIMITS: { readonly [K in keyof Limits]-?: (value: unknown, name: string) => NativeLimits[K] } = {
  connectionsPerIp: count(100, 'connections'),
  upgradesPerIp: rate(PER_MINUTE, 'upgrades'),
  requestsPerIp: rate(PER_MINUTE, 'requests'),
  connections: count(10_000, 'connections'),
};

/**
 * @throws WsBrokerError `WSB_INVALID_ARGUMENT` that names the limit
 */
export function parseLimits(value: unknown): NativeLimits {
  const limits = value === undefined ? {} : checkObject(value, 'options.limits');
  checkNames(limits, Object.keys(LIMITS), 'options.limits');
  const parsed = Object.entries(LIMITS).map(([key, parse]) => [key, parse(limits[key], `options.limits.${key}`)]);
  return Object.fromEntries(parsed) as NativeLimits;
}

function isOff(value: unknown): boolean {
  return value === undefined || value === false;
}

function count(standard: number, unit: string) {
  return (value: unknown, name: string): number => {
    if (isOff(value)) return 0;
    if (value === true) return standard;
    if (typeof value !== 'number') invalid(name, `true, or a whole number of ${unit} from 1 to ${MAX_COUNT}`, value);
    return checkInteger(value, name, 1, MAX_COUNT, unit);
  };
}

function rate(standard: NativeRate, unit: string) {
  return (value: unknown, name: string): NativeRate => {
    if (isOff(value)) return { capacity: 0, interval: 0 };
    if (value === true) return standard;
    if (typeof value !== 'object' || value === null) {
      invalid(name, `true, or { capacity, interval }: so many ${unit} at once, all back after so many ms`, value);
    }
    const given = checkObject(value, name);
    checkNames(given, Object.keys(standard), name);
    return {
      capacity: checkInteger(given.capacity, `${name}.capacity`, 1, MAX_RATE, unit),
      interval: checkInteger(given.interval, `${name}.interval`, 1, MAX_RATE, 'ms'),
    };
  };
}
