/**
 * The door: every argument is checked here, once. What gets through is what the addon takes.
 */

import { bytesOf, isGone, lengthOf } from './bytes.cjs';
import { WsBrokerError } from './errors.cjs';
import type { NativeData } from './native.cjs';
import { didYouMean } from './suggest.cjs';

/** The longest channel name, in bytes of UTF-8. */
const MAX_CHANNEL_NAME = 512;

/** The longest token, in bytes of UTF-8. It travels with every event of its socket, so it is no place for documents. */
const MAX_TOKEN = 65_536;

/** One UTF-16 unit of a string is at most three bytes of UTF-8. */
const MAX_BYTES_PER_UNIT = 3;

/** What fits a close frame beside the code, in bytes (RFC 6455, section 5.5). */
const MAX_CLOSE_REASON = 123;

/** More than any list here has a use for. A Proxy of an array may say that it has any number. */
const MAX_ELEMENTS = 1_000_000;

const EXPECTED_SOCKET_ID = 'a socket id, a positive safe integer';
const EXPECTED_DATA = 'a string, a Buffer, another typed array or DataView, or an ArrayBuffer';

/**
 * Throws the error of a bad argument.
 *
 * @param name - as the caller knows it, for example `options.timeout`
 * @param expected - what would have been right
 * @param value - what came
 */
export function invalid(name: string, expected: string, value: unknown): never {
  throw new WsBrokerError('WSB_INVALID_ARGUMENT', `${name}: expected ${expected}, got ${describe(value)}`);
}

/** A value in a few words, for an error's message. */
export function describe(value: unknown): string {
  try {
    return describeAny(value);
  } catch {
    // A Proxy or a getter that throws: the caller has to hear of the argument, not of that.
    return 'a value that throws when it is looked at';
  }
}

function describeAny(value: unknown): string {
  switch (typeof value) {
    case 'string':
      return value.length <= 40
        ? JSON.stringify(value)
        : `${JSON.stringify(value.slice(0, 40))}… (a string of length ${value.length})`;
    case 'bigint':
      return `${value}n`;
    case 'function':
      return value.name ? `the function ${value.name}` : 'a function';
    case 'object':
      return value === null ? 'null' : describeObject(value);
    default:
      return String(value);
  }
}

function describeObject(value: object): string {
  if (isGone(value))
    return `${describeKind(value)} whose memory was transferred or cut off: pass a copy of what is needed`;
  if (ArrayBuffer.isView(value)) return `a ${value.constructor.name} of ${value.byteLength} bytes`;
  if (Array.isArray(value)) return `an array of length ${value.length}`;
  return describeKind(value);
}

function describeKind(value: object): string {
  const type = (Object.getPrototypeOf(value) as object | null)?.constructor;
  return type === undefined || type === Object ? 'an object' : `an instance of ${type.name}`;
}

/** A socket id. One that no socket has is none of this function's business. */
export function checkSocketId(value: unknown, name = 'socketId'): number {
  if (Number.isSafeInteger(value) && (value as number) > 0) return value as number;
  return invalid(name, EXPECTED_SOCKET_ID, value);
}

/** A string, or the bytes of a buffer as a view that no other thread can write to. Runs nothing of the application's. */
export function checkData(value: unknown, name = 'data'): NativeData {
  if (typeof value === 'string') return value;
  return bytesOf(value) ?? invalid(name, EXPECTED_DATA, value);
}

/** A channel name: 1 to 512 bytes. */
export function checkChannelName(value: unknown, name = 'channel'): NativeData {
  const data = checkData(value, name);
  if (!hasBytes(data) || !fitsBytes(data, MAX_CHANNEL_NAME)) {
    invalid(name, `a channel name of 1 to ${MAX_CHANNEL_NAME} bytes`, value);
  }
  return data;
}

function hasBytes(data: NativeData): boolean {
  return (typeof data === 'string' ? data.length : lengthOf(data)) > 0;
}

function fitsBytes(data: NativeData, limit: number): boolean {
  if (typeof data !== 'string') return lengthOf(data) <= limit;
  // Only names in between have to be measured.
  return data.length * MAX_BYTES_PER_UNIT <= limit || (data.length <= limit && Buffer.byteLength(data) <= limit);
}

/** A token: bytes, or undefined for none. A string stands for its UTF-8. */
export function checkToken(value: unknown, name = 'token'): NativeData | undefined {
  if (value === undefined) return undefined;
  const token = checkData(value, name);
  return fitsBytes(token, MAX_TOKEN) ? token : invalid(name, `a token of at most ${MAX_TOKEN} bytes`, value);
}

/** A close code that an application may send (RFC 6455, section 7.4). */
export function checkCloseCode(value: unknown, name = 'code'): number {
  if (Number.isInteger(value) && isCloseCode(value as number)) return value as number;
  return invalid(name, 'a close code: 1000 to 1003, 1007 to 1014, or 3000 to 4999', value);
}

function isCloseCode(code: number): boolean {
  // 1004 is reserved; 1005, 1006 and 1015 stand for the absence of a code and never travel.
  return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) || (code >= 3000 && code <= 4999);
}

/** The reason of a close: at most 123 bytes of UTF-8. */
export function checkCloseReason(value: unknown, name = 'reason'): string {
  if (typeof value === 'string' && fitsBytes(value, MAX_CLOSE_REASON)) return value;
  return invalid(name, `a string of at most ${MAX_CLOSE_REASON} bytes`, value);
}

/** An integer from `min` to `max`. `unit` is told in the message, for example `ms`. */
export function checkInteger(value: unknown, name: string, min: number, max: number, unit: string): number {
  if (Number.isInteger(value) && (value as number) >= min && (value as number) <= max) return value as number;
  return invalid(name, `a whole number of ${unit} from ${min} to ${max}`, value);
}

/** An object with properties to read. */
export function checkObject(value: unknown, name: string): Record<string, unknown> {
  if (typeof value === 'object' && value !== null && !isArray(value, name)) return value as Record<string, unknown>;
  return invalid(name, 'an object', value);
}

/**
 * Refuses a property that nobody reads: a misspelt limit would be no limit.
 */
export function checkNames(options: object, known: readonly string[], name: string): void {
  for (const key of namesOf(options, name)) {
    if (!known.includes(key)) {
      throw new WsBrokerError('WSB_INVALID_ARGUMENT', `${name}: ${nobodyReads(key, known)}`);
    }
  }
}

/** The names of the properties that an object has itself. */
function namesOf(options: object, name: string): string[] {
  try {
    return Object.keys(options);
  } catch (cause) {
    return unreadable(name, cause);
  }
}

/** What to say of a property that nobody reads. */
export function nobodyReads(key: string, known: readonly string[]): string {
  return `there is no ${JSON.stringify(key)}; expected ${known.join(', ')}${didYouMean(key, known)}`;
}

/**
 * Reads the properties of an object that may have these and no others. Each is read once: a getter may give something else
 * the next time.
 */
export function readProperties<K extends string>(
  value: unknown,
  known: readonly K[],
  name: string,
): Partial<Record<K, unknown>> {
  const object = checkObject(value, name);
  checkNames(object, known, name);
  const properties: Partial<Record<K, unknown>> = {};
  for (const key of known) {
    try {
      properties[key] = object[key];
    } catch (cause) {
      unreadable(`${name}.${key}`, cause);
    }
  }
  return properties;
}

/** The elements of an array, each read once, however it says that it is iterated; undefined for what is none. */
export function readElements(value: unknown, name: string): unknown[] | undefined {
  if (!isArray(value, name)) return undefined;
  const elements: unknown[] = [];
  try {
    const length = Math.min(value.length, MAX_ELEMENTS + 1);
    for (let index = 0; index < length; index += 1) elements.push(value[index]);
  } catch (cause) {
    return unreadable(name, cause);
  }
  if (elements.length > MAX_ELEMENTS) invalid(name, `at most ${MAX_ELEMENTS} elements`, value);
  return elements;
}

function isArray(value: unknown, name: string): value is readonly unknown[] {
  try {
    return Array.isArray(value);
  } catch (cause) {
    return unreadable(name, cause); // a Proxy that has been revoked
  }
}

/** Throws the error of an argument with a getter, or a trap of a Proxy, that throws. */
export function unreadable(name: string, cause: unknown): never {
  throw new WsBrokerError('WSB_INVALID_ARGUMENT', `${name}: threw an error when it was looked at`, { cause });
}
