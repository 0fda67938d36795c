/** An HTTP request as handlers see it: fields are cut out of the batch when they are read. */

import { inspect } from 'node:util';
import type { RequestBlock } from './batch.cjs';
import { HeadersBuilder, type RequestHeaders } from './headers.cjs';
import type { HttpRequest } from './types.cjs';

/** The request of one event. */
export class PackedRequest implements HttpRequest {
  readonly #block: RequestBlock;
  #url: string | undefined;
  #headers: RequestHeaders | undefined;
  #abort: AbortController | undefined;
  #isAborted = false;

  constructor(block: RequestBlock) {
    this.#block = block;
  }

  get method(): string {
    return this.#block.method;
  }

  get url(): string {
    this.#url ??= this.#block.url;
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
    return this.#block.body;
  }

  get remoteAddress(): string {
    return this.#block.remoteAddress;
  }

  get protocol(): string | undefined {
    return this.#block.protocol || undefined;
  }

  get signal(): AbortSignal {
    if (this.#abort === undefined) {
      this.#abort = new AbortController();
      if (this.#isAborted) this.#abort.abort();
    }
    return this.#abort.signal;
  }

  /** The client went away. */
  abort(): void {
    this.#isAborted = true;
    this.#abort?.abort();
  }

  /** Getters do not show in a console by themselves. */
  [inspect.custom](): unknown {
    const { method, url, headers, remoteAddress, protocol, body } = this;
    return { method, url, headers, remoteAddress, ...(protocol && { protocol }), body };
  }

  #readHeaders(): RequestHeaders {
    const builder = new HeadersBuilder();
    this.#block.forEachHeader((name, value) => builder.add(name, value));
    return builder.build();
  }
}
