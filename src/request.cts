/** An HTTP request as handlers see it: fields are cut out of the batch when they are read. */

import { inspect } from 'node:util';
import type { Decoder } from './batch.cjs';
import { type RequestHeaders, readHeaders } from './headers.cjs';
import { AbortController } from './primordials.cjs';
import type { HttpRequest } from './types.cjs';

/** Words of a request block before the lengths of its headers. */
const BLOCK_WORDS = 8;

/** Names that need not be decoded. */
const METHODS = ['GET', 'POST', 'PUT', 'HEAD', 'DELETE', 'PATCH', 'OPTIONS'];

/** The packed request itself, whatever view of it is asked. */
const ITSELF = Symbol('itself');

/**
 * The request of one event, as it is packed.
 *
 * ```text
 * words     lengths of method, url, remote address; number of headers; bytes of their names; bytes of their values; bytes of
 *           the body; length of the subprotocol
 * words     per header: length of the name, length of the value
 * then      method, url, remote address, the name of each header with a line feed behind it, the values, body, subprotocol
 * ```
 */
export class PackedRequest implements HttpRequest {
  readonly #bytes: Decoder;
  readonly #words: Uint32Array;
  /** Index of the first word. */
  readonly #first: number;
  /** Byte offset of the method. */
  readonly #start: number;
  /** All values up to so many bytes. */
  readonly #decodedTogether: number;
  #url: string | undefined;
  #headers: RequestHeaders | undefined;
  #abort: AbortController | undefined;
  #isAborted = false;

  constructor(bytes: Decoder, words: Uint32Array, start: number, decodedTogether: number) {
    this.#decodedTogether = decodedTogether;
    this.#bytes = bytes;
    this.#words = words;
    this.#first = start >>> 2;
    this.#start = start + 4 * (BLOCK_WORDS + 2 * this.#word(3));
  }

  get method(): string {
    for (const method of METHODS) if (this.#isAtStart(method)) return method;
    return this.#latin1(this.#start, this.#word(0));
  }

  get url(): string {
    this.#url ??= this.#latin1(this.#start + this.#word(0), this.#word(1));
    return this.#url;
  }

  get path(): string {
    const { url } = this;
    const query = url.indexOf('?');
    return query === -1 ? url : url.slice(0, query);
  }

  get pathname(): string {
    return this.path;
  }

  get search(): string {
    const { url } = this;
    const query = url.indexOf('?');
    return query === -1 ? '' : url.slice(query);
  }

  get query(): string {
    return this.search.slice(1);
  }

  get headers(): RequestHeaders {
    this.#headers ??= this.#readHeaders();
    return this.#headers;
  }

  get body(): Buffer {
    const start = this.#headersStart() + this.#word(4) + this.#word(5);
    return this.#bytes.subarray(start, start + this.#word(6));
  }

  get remoteAddress(): string {
    return this.#latin1(this.#start + this.#word(0) + this.#word(1), this.#word(2));
  }

  get protocol(): string | undefined {
    const start = this.#headersStart() + this.#word(4) + this.#word(5) + this.#word(6);
    return this.#latin1(start, this.#word(7)) || undefined;
  }

  get signal(): AbortSignal {
    if (this.#abort === undefined) {
      this.#abort = new AbortController();
      if (this.#isAborted) this.#abort.abort();
    }
    return this.#abort.signal;
  }

  get [ITSELF](): this {
    return this;
  }

  /** The client went away. */
  abort(): void {
    const request = this[ITSELF];
    request.#isAborted = true;
    request.#abort?.abort();
  }

  /** What a log is to have of it: not the body, which may be anything. */
  toJSON(): object {
    const { method, url, headers, remoteAddress, protocol } = this;
    return { method, url, headers, remoteAddress, ...(protocol && { protocol }) };
  }

  /** Getters do not show in a console by themselves. */
  [inspect.custom](): unknown {
    return { ...this.toJSON(), body: this.body };
  }

  /** As they came: names in lower case, values as latin1, which is what Node does. */
  #readHeaders(): RequestHeaders {
    const namesStart = this.#headersStart();
    const start = namesStart + this.#word(4);
    const length = this.#word(5);
    // As texts are: pieces of one string take half the time that a call for each takes.
    const all = length <= this.#decodedTogether ? this.#latin1(start, length) : undefined;
    let at = 0;
    return readHeaders(this.#latin1(namesStart, this.#word(4)), (index) => {
      const from = at;
      at += this.#word(BLOCK_WORDS + 2 * index + 1);
      return all === undefined ? this.#latin1(start + from, at - from) : all.substring(from, at);
    });
  }

  #isAtStart(method: string): boolean {
    if (method.length !== this.#word(0)) return false;
    for (let at = 0; at < method.length; at += 1) {
      if (this.#bytes[this.#start + at] !== method.charCodeAt(at)) return false;
    }
    return true;
  }

  #headersStart(): number {
    return this.#start + this.#word(0) + this.#word(1) + this.#word(2);
  }

  #latin1(start: number, length: number): string {
    return this.#bytes.latin1Slice(start, start + length);
  }

  #word(index: number): number {
    return this.#words[this.#first + index] as number;
  }
}

/** What a request has as properties of its own, and `{ ...request }` copies. */
const FIELDS = [
  'method',
  'url',
  'path',
  'pathname',
  'search',
  'query',
  'headers',
  'body',
  'remoteAddress',
  'protocol',
] as const satisfies readonly (keyof HttpRequest)[];

function isField(key: string | symbol): key is (typeof FIELDS)[number] {
  return (FIELDS as readonly (string | symbol)[]).includes(key);
}

/**
 * A request whose fields are decoded when they are read, and its own properties all the same: whoever copies it, inherits
 * from it or puts a Proxy around it finds them. Getters defined on each request would be that too, and take ten times as
 * long to make.
 */
const VIEW: ProxyHandler<PackedRequest> = {
  // The receiver may be anything that has got to the request: the request's own fields are its own alone.
  get(request, key) {
    switch (key) {
      case 'method':
        return request.method;
      case 'url':
        return request.url;
      case 'path':
        return request.path;
      case 'headers':
        return request.headers;
      case 'body':
        return request.body;
      default:
        return Reflect.get(request, key);
    }
  },
  ownKeys(request) {
    return [...new Set([...FIELDS, ...Reflect.ownKeys(request)])];
  },
  getOwnPropertyDescriptor(request, key) {
    const own = Reflect.getOwnPropertyDescriptor(request, key);
    if (own !== undefined || !isField(key)) return own;
    return { value: request[key], writable: false, enumerable: true, configurable: true };
  },
  // What can get no more properties has to have those that it tells of.
  preventExtensions(request) {
    for (const key of FIELDS) {
      if (Object.hasOwn(request, key)) continue;
      Object.defineProperty(request, key, { value: request[key], enumerable: true, configurable: true });
    }
    return Reflect.preventExtensions(request);
  },
};

/** The request that is packed at this place. */
export function openRequest(bytes: Decoder, words: Uint32Array, start: number, decodedTogether: number): PackedRequest {
  return new Proxy(new PackedRequest(bytes, words, start, decodedTogether), VIEW);
}
