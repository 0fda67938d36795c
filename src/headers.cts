/** The headers of a request, as an object that reads well whatever case a name is written in. */

import type { IncomingHttpHeaders } from 'node:http';

/**
 * Header names in lower case with their values. A header that came several times is one value joined by `, ` (`cookie`
 * by `; `), except `set-cookie`, which is an array. Any case works for reading and for `in`: `headers['Content-Type']`.
 */
export interface RequestHeaders extends Readonly<IncomingHttpHeaders> {}

/** The names of a request's headers in lower case, each with a line feed behind it. */
export type HeaderNames = string;

/** Clients of one kind send the same names: a few dozen lists of them are all that most servers see. */
const MOST_KNOWN = 256;

/** Longer lists are not kept. Browsers send some 300 bytes of names. */
const MOST_BYTES = 1024;

const known = new Map<HeaderNames, HeaderList>();

/**
 * Makes the object of these names, whose values are given one after the other.
 */
export function readHeaders(names: HeaderNames, nextValue: (index: number) => string): RequestHeaders {
  let list = known.get(names);
  if (list === undefined) {
    list = new HeaderList(names);
    if (names.length <= MOST_BYTES) {
      if (known.size >= MOST_KNOWN) known.clear();
      known.set(names, list);
    }
  }
  return list.fill(nextValue);
}

/** What a header object is an instance of; its name is what a console shows. */
class HttpHeaders {}

/** What every object has, hasOwnProperty, toString …, must not be what a client says it is. */
const COMMON: object = HttpHeaders.prototype;

/** The names of a request's headers, as they came, and what all header objects with these names share. */
class HeaderList {
  readonly #names: readonly string[];
  /** No name needs a closer look. */
  readonly #isPlain: boolean;
  readonly #prototype: object;

  constructor(names: HeaderNames) {
    this.#names = names.split('\n').slice(0, -1);
    const unique = new Set(this.#names);
    this.#isPlain = unique.size === this.#names.length && !unique.has('set-cookie') && !unique.has('__proto__');
    this.#prototype = new Proxy(Object.create(COMMON), new AnyCase(unique));
  }

  fill(nextValue: (index: number) => string): RequestHeaders {
    const headers: Record<string, string | string[]> = {};
    const names = this.#names;
    for (let index = 0; index < names.length; index += 1) {
      const name = names[index] as string;
      if (this.#isPlain) headers[name] = nextValue(index);
      else add(headers, name, nextValue(index));
    }
    // At the end: assigning to an object whose prototype is a proxy takes four times as long.
    return Object.setPrototypeOf(headers, this.#prototype);
  }
}

/** Joins what came several times as Node does. */
function add(headers: Record<string, string | string[]>, name: string, value: string): void {
  const before = Object.hasOwn(headers, name) ? headers[name] : undefined;
  if (Array.isArray(before)) {
    before.push(value);
  } else if (before !== undefined) {
    headers[name] = `${before}${name === 'cookie' ? '; ' : ', '}${value}`;
  } else if (name === '__proto__') {
    // A name like others on the wire, but assigning to it would set the prototype.
    Object.defineProperty(headers, name, { value, writable: true, enumerable: true, configurable: true });
  } else {
    headers[name] = name === 'set-cookie' ? [value] : value;
  }
}

/**
 * Where a lookup ends that found nothing under the name as written. Names in lower case, which is what nearly all code
 * writes, are plain properties of the object and seldom come here.
 */
class AnyCase implements ProxyHandler<object> {
  readonly #names: ReadonlySet<string>;

  constructor(names: ReadonlySet<string>) {
    this.#names = names;
  }

  get(_target: object, key: string | symbol, receiver: object): unknown {
    if (typeof key === 'symbol' || key in COMMON) return Reflect.get(COMMON, key, receiver);
    const name = key.toLowerCase();
    if (name === key) return undefined;
    return !(name in COMMON) || Object.hasOwn(receiver, name) ? Reflect.get(receiver, name) : undefined;
  }

  // A Proxy is not told which object is asked: it is one with these names.
  has(_target: object, key: string | symbol): boolean {
    if (typeof key === 'symbol' || key in COMMON) return key in COMMON;
    const name = key.toLowerCase();
    return name !== key && this.#names.has(name);
  }
}
