/** The options that decide about opening handshakes: `protocols` and `origins`. */

import { isIPv6 } from 'node:net';
import { URL } from 'node:url';
import { invalid, readElements } from './arguments.cjs';
import { AsyncContext } from './async-context.cjs';
import type { NativeStartOptions } from './native.cjs';
import { isThenable, onRejection } from './promises.cjs';
import { reportHere } from './report.cjs';
import type { StartOptions } from './types.cjs';

/** A token in the sense of RFC 9110, section 5.6.2: what header names and subprotocols are made of. */
export const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;

/** The engine compares each handshake with all of them. */
const MAX_PROTOCOLS = 64;

/** Scheme, host (an IPv6 address in brackets) and port. */
const ORIGIN = /^[a-z][a-z0-9+.-]*:\/\/(?:\[([0-9a-f:.]+)\]|[a-z0-9._~-]+)(?::(\d{1,5}))?$/i;

/** What stands alone: pages without an origin of their own, and what some embedded browsers send. */
const OTHER_ORIGINS = ['null', 'file://'];

/** What the addon is answered. */
const VERDICT = { refused: 0, allowed: 1, failed: 2 };

/**
 * @throws WsBrokerError `WSB_INVALID_ARGUMENT` that names the element
 */
export function parseProtocols(value: unknown): string[] {
  if (value === undefined) return [];
  const expected = `an array of 1 to ${MAX_PROTOCOLS} subprotocols`;
  const names = readElements(value, 'options.protocols');
  if (names === undefined || names.length === 0 || names.length > MAX_PROTOCOLS) {
    return invalid('options.protocols', expected, value);
  }
  return names.map((name, index) => {
    const where = `options.protocols[${index}]`;
    if (typeof name !== 'string' || !TOKEN.test(name)) {
      return invalid(where, 'the name of a subprotocol: letters, digits, - . _ and the like', name);
    }
    if (names.indexOf(name) < index) invalid(where, 'each subprotocol once', name);
    return name;
  });
}

/**
 * @throws WsBrokerError `WSB_INVALID_ARGUMENT` that names the element
 */
export function parseOrigins(value: unknown): Pick<NativeStartOptions, 'origins' | 'judgeOrigin'> {
  if (value === undefined || value === '*') return { origins: undefined, judgeOrigin: undefined };
  if (typeof value === 'function') {
    return { origins: undefined, judgeOrigin: judge(value as OriginFunction) };
  }
  const origins = readElements(value, 'options.origins');
  if (origins === undefined || origins.length === 0) {
    return invalid('options.origins', "'*', an array of at least one origin, or a function", value);
  }
  return {
    origins: origins.map((origin, index) => checkOrigin(origin, `options.origins[${index}]`)),
    judgeOrigin: undefined,
  };
}

type OriginFunction = Exclude<StartOptions['origins'], '*' | readonly string[] | undefined>;

function checkOrigin(value: unknown, name: string): string {
  if (typeof value !== 'string') return invalid(name, "an origin such as 'https://example.com'", value);
  return isOrigin(value) ? value : invalid(name, whatToWrite(value), value);
}

function isOrigin(value: string): boolean {
  if (OTHER_ORIGINS.includes(value)) return true;
  const match = ORIGIN.exec(value);
  if (match === null) return false;
  const [, address, port] = match;
  return (
    (address === undefined || isIPv6(address)) && (port === undefined || (Number(port) > 0 && Number(port) < 65_536))
  );
}

/** Most of what is no origin is nearly one. */
function whatToWrite(value: string): string {
  const example = "such as 'https://example.com' or 'http://localhost:3000'";
  if (value === '*') return "an origin; '*' stands for all of them alone: origins: '*'";
  if (value.includes('*')) return `an origin without a pattern, ${example}; a function can compare as it likes`;
  if (!value.includes('://')) return `an origin with its scheme, ${example}`;
  const url = URL.canParse(value) ? new URL(value) : undefined;
  // Of a name in other letters browsers send the Punycode, and so does `URL`.
  if (url !== undefined && url.origin !== 'null') return `an origin without anything behind it: '${url.origin}'`;
  return `an origin, ${example}`;
}

/** The function as the addon calls it, in the context of the caller here: a number for an answer, and no exception. */
function judge(allows: OriginFunction): (origin: string | undefined) => number {
  const context = new AsyncContext();
  return (origin) => {
    try {
      const answer: unknown = context.run(() => allows(origin));
      if (typeof answer === 'boolean') return answer ? VERDICT.allowed : VERDICT.refused;
      // Nobody waits for it: at least its failure is not to end the process.
      if (isThenable(answer)) void onRejection(answer, () => {});
      invalid('options.origins(…)', 'true or false at once; handleSocketUpgrade may decide with a promise', answer);
    } catch (error) {
      reportHere(error, { handler: 'origins' });
      return VERDICT.failed;
    }
  };
}
