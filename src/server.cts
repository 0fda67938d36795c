/** A server: started at once or not at all, stopped once. */

import { isIPv6 } from 'node:net';
import { WsBrokerError, type WsBrokerErrorCode } from './errors.cjs';
import { native } from './native.cjs';
import { parseStartOptions, parseStopOptions } from './options.cjs';
import { IntrinsicPromise } from './primordials.cjs';
import type { Server, ServerAddress, StopOptions, StopSummary } from './types.cjs';

/**
 * @throws WsBrokerError when the options are wrong or the address cannot be used
 */
export function startServer(options: unknown): Server {
  const result = native.start(parseStartOptions(options));
  if (result.code !== undefined) {
    // The engine knows no other codes than `ERROR_CODES`; a test compares the two.
    throw new WsBrokerError(result.code as WsBrokerErrorCode, result.message);
  }
  const address = result.path === undefined ? { host: result.host, port: result.port } : { path: result.path };
  return new RunningServer(result.server, Object.freeze(address));
}

class RunningServer implements Server {
  readonly address: ServerAddress;
  readonly url: string;
  readonly #server: number;
  #stopped: Promise<StopSummary> | undefined;

  constructor(server: number, address: ServerAddress) {
    this.#server = server;
    this.address = address;
    this.url = urlOf(address);
  }

  stop(options?: StopOptions): Promise<StopSummary> {
    const { timeout, spread, code, reason } = parseStopOptions(options);
    this.#stopped ??= new IntrinsicPromise((resolve) => {
      native.stop(this.#server, timeout, spread, code, reason, (closed, forced) => resolve({ closed, forced }));
    });
    return this.#stopped;
  }
}

/** Listening on one of these is listening on every interface; no client can connect to them everywhere. */
const EVERY_INTERFACE = ['0.0.0.0', '::'];

function urlOf(address: ServerAddress): string {
  if ('path' in address) return `unix:${address.path}`;
  const { host, port } = address;
  if (EVERY_INTERFACE.includes(host)) return `http://localhost:${port}`;
  return `http://${isIPv6(host) ? `[${host}]` : host}:${port}`;
}
