/** What a handler answers: checked, and packed for the addon. */

import {
  checkChannelName,
  checkData,
  checkNames,
  checkObject,
  checkToken,
  invalid,
  readElements,
} from './arguments.cjs';
import { TOKEN } from './handshake.cjs';
import { type NativeData, native } from './native.cjs';
import { checkDecidedRoute, TO_HANDLER } from './route.cjs';

/** What a header value may not hold: control characters, and what latin1 cannot express. */
const NO_HEADER_VALUE = /[^\t\x20-\x7e\x80-\xff]/;

const STATUS_TEXT = { 500: 'Internal Server Error\n', 503: 'Service Unavailable\n' };

const TEXT_PLAIN = 'content-type\ntext/plain; charset=utf-8\n';

/** For a call that knows them: these headers and no others. */
const TEXT_PLAIN_ALONE = 0;

const ACCEPTANCE = ['token', 'channels', 'route', 'protocol', 'headers'];

/** What a response may have. */
export const RESPONSE = ['status', 'headers', 'body'];

/**
 * Answers a request with what its handler returned.
 *
 * @returns the fields of it that nobody has read; undefined: there are none
 * @throws WsBrokerError `WSB_INVALID_ARGUMENT` when that is no response; nothing has been answered then
 */
export function respond(requestId: number, value: unknown): string[] | undefined {
  if (value === undefined || value === null) {
    native.respond(requestId, 200, '', '');
    return undefined;
  }
  const response = checkResponse(value);
  const unread = unreadOf(response);
  const { status, headers, body } = packResponse(response, 'response');
  native.respond(requestId, status, headers === TEXT_PLAIN ? TEXT_PLAIN_ALONE : headers, body);
  return unread;
}

/** Answers a request with a status alone. */
export function respondWithStatus(requestId: number, status: keyof typeof STATUS_TEXT): void {
  native.respond(requestId, status, TEXT_PLAIN_ALONE, STATUS_TEXT[status]);
}

/**
 * Answers an upgrade with what its handler returned.
 *
 * @returns the fields of a refusal that nobody has read; undefined: there are none
 * @throws WsBrokerError `WSB_INVALID_ARGUMENT` when that is no decision; nothing has been decided then
 */
export function decide(requestId: number, value: unknown): string[] | undefined {
  if (value === undefined || value === null || value === true) {
    native.accept(requestId, undefined, [], undefined, '', TO_HANDLER.kind, TO_HANDLER.channel);
  } else if (value === false) {
    native.refuse(requestId, 403, TEXT_PLAIN, 'Forbidden\n');
  } else {
    return decideByObject(requestId, value);
  }
  return undefined;
}

/** Refuses an upgrade because its handler failed. */
export function refuseWithStatus(requestId: number, status: keyof typeof STATUS_TEXT): void {
  native.refuse(requestId, status, TEXT_PLAIN, STATUS_TEXT[status]);
}

function decideByObject(requestId: number, value: unknown): string[] | undefined {
  if (typeof value !== 'object' || Array.isArray(value)) {
    invalid(
      'decision',
      'a boolean, a response { status, headers, body } or an acceptance { token, channels, route, protocol, headers }',
      value,
    );
  }
  const decision = checkObject(value, 'decision');
  const { status } = decision;
  if (status === undefined) {
    accept(requestId, decision);
    return undefined;
  }
  const unread = unreadOf(decision);
  const { headers, body } = decision;
  const refusal = packResponse({ status, headers, body }, 'decision');
  native.refuse(requestId, refusal.status, refusal.headers, refusal.body);
  return unread;
}

function accept(requestId: number, decision: Record<string, unknown>): void {
  // Strict, for a misspelt token or channel would let somebody in without it.
  checkNames(decision, ACCEPTANCE, 'decision');
  const { token, channels = [], route, protocol, headers } = decision;
  // What runs getters of the application's comes before bytes are looked at: it could take them away.
  const names =
    readElements(channels, 'decision.channels') ?? invalid('decision.channels', 'an array of channel names', channels);
  const { packed } = packHeaders(headers, 'decision.headers');
  const { kind, channel: routeChannel } = checkDecidedRoute(route);
  native.accept(
    requestId,
    checkToken(token, 'decision.token'),
    names.map((channel, index) => checkChannelName(channel, `decision.channels[${index}]`)),
    checkProtocol(protocol),
    packed,
    kind,
    routeChannel,
  );
}

/** Undefined, as nearly always: there are none. */
function unreadOf(response: object): string[] | undefined {
  let unread: string[] | undefined;
  for (const key in response) {
    if (key === 'status' || key === 'headers' || key === 'body' || !Object.hasOwn(response, key)) continue;
    unread ??= [];
    unread.push(key);
  }
  return unread;
}

function checkProtocol(value: unknown): string | undefined {
  if (value === undefined || (typeof value === 'string' && TOKEN.test(value))) return value;
  return invalid('decision.protocol', 'a subprotocol name without spaces', value);
}

interface PackedResponse {
  status: number;
  headers: string;
  body: NativeData;
}

function checkResponse(value: unknown): Record<string, unknown> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  return invalid('response', 'an object { status, headers, body } or nothing', value);
}

function packResponse(response: Record<string, unknown>, name: string): PackedResponse {
  const { status = 200, headers, body = null } = response;
  if (!Number.isInteger(status) || (status as number) < 200 || (status as number) > 599) {
    invalid(`${name}.status`, 'a whole number from 200 to 599', status);
  }
  const { packed, hasContentType } = packHeaders(headers, `${name}.headers`);
  return {
    status: status as number,
    headers: typeof body === 'string' && !hasContentType ? withTextPlain(packed) : packed,
    body: body === null ? '' : checkData(body, `${name}.body`),
  };
}

/** Not `packed + TEXT_PLAIN` for both: what V8 makes of that is compared with `TEXT_PLAIN` by its characters. */
function withTextPlain(packed: string): string {
  return packed === '' ? TEXT_PLAIN : packed + TEXT_PLAIN;
}

/** Clients stop far below: Node's at 2,000 lines, most proxies at some hundred. */
const MAX_HEADERS = 1000;

interface PackedHeaders {
  packed: string;
  hasContentType: boolean;
}

function packHeaders(value: unknown, name: string): PackedHeaders {
  let packed = '';
  let hasContentType = false;
  let count = 0;
  if (value === undefined) return { packed, hasContentType };
  const headers = checkObject(value, name);
  // A Map or a Headers object has no properties of its own: its headers would be lost without a word.
  if (Symbol.iterator in headers) invalid(name, 'a plain object; Object.fromEntries() makes one', value);
  for (const key of Object.keys(headers)) {
    const of = headers[key];
    if (of === undefined) continue;
    if (!TOKEN.test(key)) invalid(name, 'header names of letters, digits and -', key);
    hasContentType ||= key.toLowerCase() === 'content-type';
    for (const one of Array.isArray(of) ? of : [of]) {
      count += 1;
      if (count > MAX_HEADERS) invalid(name, `at most ${MAX_HEADERS} headers`, value);
      packed += `${key}\n${checkHeaderValue(one, `${name}[${JSON.stringify(key)}]`)}\n`;
    }
  }
  return { packed, hasContentType };
}

function checkHeaderValue(value: unknown, name: string): string {
  if (typeof value === 'number' && Number.isFinite(value)) return String(value);
  if (typeof value === 'string' && !NO_HEADER_VALUE.test(value)) return value;
  return invalid(name, 'a string without line breaks and control characters, a number, or an array of these', value);
}
