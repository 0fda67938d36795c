/** Who the client is: the options about proxies, and the addresses of bans. */

import { isIP } from 'node:net';
import { checkInteger, invalid, readElements } from './arguments.cjs';

/** More proxies than this are on no one's way. */
const MAX_HOPS = 100;

/** 2^31 - 1 seconds are 68 years; a longer ban is one until further notice. */
const MAX_BAN = 2_147_483_647;

const EXPECTED_NETWORK = "an IP address or a network such as '192.0.2.7', '192.0.2.0/24' or '2001:db8::/32'";

/** A number of hops or the addresses of proxies, as the addon takes it; 0 trusts nobody. */
export type NativeTrustProxy = number | string[];

/** For every peer, for none, or for these. */
export type NativeProxyProtocol = boolean | string[];

/**
 * @throws WsBrokerError `WSB_INVALID_ARGUMENT` that names the option
 */
export function parseTrustProxy(value: unknown): NativeTrustProxy {
  const name = 'options.trustProxy';
  if (value === undefined || value === false) return 0;
  if (typeof value === 'number') return checkInteger(value, name, 0, MAX_HOPS, 'hops');
  return parsePeers(value, name, `a number of proxies, or an array of their addresses: each ${EXPECTED_NETWORK}`);
}

/**
 * @throws WsBrokerError `WSB_INVALID_ARGUMENT` that names the option
 */
export function parseProxyProtocol(value: unknown): NativeProxyProtocol {
  const name = 'options.proxyProtocol';
  if (value === undefined) return false;
  if (typeof value === 'boolean') return value;
  return parsePeers(value, name, `true, false, or an array of the proxies' addresses: each ${EXPECTED_NETWORK}`);
}

function parsePeers(value: unknown, name: string, expected: string): string[] {
  const values = readElements(value, name) ?? invalid(name, expected, value);
  // An empty list would trust nobody, and who writes one means something else.
  if (values.length === 0) invalid(name, 'at least one address', values);
  return values.map((peer, index) => (peer === 'unix' ? peer : checkNetwork(peer, `${name}[${index}]`)));
}

/** An IP address or a network in CIDR notation. */
export function checkNetwork(value: unknown, name: string): string {
  if (typeof value === 'string' && isNetwork(value)) return value;
  return invalid(name, EXPECTED_NETWORK, value);
}

function isNetwork(value: string): boolean {
  const [, ip, prefix] = /^([0-9a-fA-F:.]+)(?:\/(0|[1-9]\d{0,2}))?$/.exec(value) ?? [];
  const version = isIP(ip ?? '');
  return version !== 0 && Number(prefix ?? 0) <= (version === 4 ? 32 : 128);
}

/**
 * How long a ban lasts, in ms; 0 for one until further notice.
 */
export function checkBanTime(value: unknown): number {
  if (value === undefined) return 0;
  if (typeof value === 'number' && value > 0 && value <= MAX_BAN) return Math.ceil(value * 1000);
  return invalid('seconds', `a number of seconds above 0 and up to ${MAX_BAN}`, value);
}
