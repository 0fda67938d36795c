/** The headers of a request, as an object that reads well whatever case a name is written in. */

import type { IncomingHttpHeaders } from 'node:http';

/**
 * Header names in lower case with their values. A header that came several times is one value joined by `, ` (`cookie`
 * by `; `), except `set-cookie`, which is an array. Reading by a name in any case works: `headers['Content-Type']`.
 */
export interface RequestHeaders extends Readonly<IncomingHttpHeaders> {}

/** What a header object is an instance of; its name is what a console shows. */
function HttpHeaders(this: unknown): void {}

/**
 * Where a lookup ends that found nothing under the name as written. Names in lower case, which is what nearly all code
 * writes, are plain properties of the object and never come here.
 */
HttpHeaders.prototype = new Proxy(Object.assign(Object.create(null), { constructor: HttpHeaders }), {
  get(_target, key, receiver) {
    const name = typeof key === 'string' ? key.toLowerCase() : key;
    if (Object.hasOwn(receiver, name)) return receiver[name];
    if (key === 'constructor') return HttpHeaders;
    // What every object has: hasOwnProperty, toString …
    return Reflect.get(Object.prototype, key, receiver);
  },
});

/** Joins what came several times as Node does. */
export class HeadersBuilder {
  readonly #headers: Record<string, string | string[]> = {};

  /** @param name - in lower case */
  add(name: string, value: string): void {
    const headers = this.#headers;
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

  build(): RequestHeaders {
    // At the end: assigning to an object whose prototype is a proxy takes four times as long.
    return Object.setPrototypeOf(this.#headers, HttpHeaders.prototype);
  }
}
