/**
 * The addon as TypeScript sees it. None of its functions throws and none checks its arguments: the callers do, see
 * `arguments.cts`.
 */

import type { NativeProxyProtocol, NativeTrustProxy } from './clients.cjs';
import type { NativeCompression } from './compression.cjs';
import { WsBrokerError } from './errors.cjs';
import type { NativeLimits } from './limits.cjs';
import { type LoadError, loadAddon } from './load.cjs';
import type { Stats } from './stats.cjs';
import type { Ban } from './types.cjs';

/** What the addon takes as data: a string as text, or bytes of this thread alone. */
export type NativeData = string | Uint8Array;

/**
 * What it takes as a message: data, or the offset in the batch in hand of a message that is passed on: a text as it came, of
 * large ones the one that was taken last; bytes as they are now in the buffer that they came in, which still must have them.
 */
export type NativeMessage = NativeData | number;

/** The options of a server, every one of them present. Times in ms, sizes in bytes. */
export interface NativeStartOptions {
  bind: string;
  maxMessageSize: number;
  maxBodySize: number;
  maxHeaderSize: number;
  /** A number of headers. */
  maxHeaders: number;
  maxBackpressure: number;
  headerTimeout: number;
  bodyTimeout: number;
  /** Bytes per second; 0 turns it off. */
  minBodyRate: number;
  requestTimeout: number;
  writeTimeout: number;
  keepAliveTimeout: number;
  protocols: string[];
  /** Undefined lets every origin in, unless there is a function. */
  origins: string[] | undefined;
  /** Must not throw. 0 refuses, 1 allows, everything else says that it failed. */
  judgeOrigin: ((origin: string | undefined) => number) | undefined;
  compression: NativeCompression;
  /** 0 turns the heartbeat off. */
  heartbeatInterval: number;
  heartbeatTimeout: number;
  dropsForSlowConsumers: boolean;
  /** 0 turns it off. */
  handlerTimeout: number;
  closeTimeout: number;
  limits: NativeLimits;
  trustProxy: NativeTrustProxy;
  proxyProtocol: NativeProxyProtocol;
  /** 0 leaves it to the environment variable or the machine. */
  ioThreads: number;
  /** Of the thread that starts the server. */
  isMainThread: boolean;
}

/** A server that runs, or why it does not. */
export type NativeStartResult =
  | { server: number; host: string; port: number; path?: undefined; code?: undefined }
  | { server: number; path: string; code?: undefined }
  | { code: string; message: string };

export interface Native {
  /** Another number for each copy of the addon that the process has loaded from a file of its own. */
  readonly place: number;
  /**
   * Makes this thread a worker.
   *
   * @param http - it answers HTTP requests
   * @param upgrade - it decides on upgrades
   * @param opens - it wants to know of sockets that open
   * @param sockets - it has to do with sockets
   * @param onEvents - called when there are events to `take`; must not throw. With an argument it is called elsewhere than in
   * the context of `asyncResource`
   * @param finishedMessages - its one element counts the messages whose handler has finished, and is read when the
   * worker ends. On an `ArrayBuffer` of its own: small arrays made without one are moved by the garbage collector
   * @param isLibuv - the event loop of this runtime is libuv's
   * @param asyncResource - what `onEvents` is executed for, as `node:async_hooks` has it; kept alive by the caller
   * @returns the worker's handle, or 0 when this thread is a worker already, and -1 when it is one by another instance of
   * the addon
   */
  register(
    http: boolean,
    upgrade: boolean,
    opens: boolean,
    sockets: boolean,
    onEvents: (isElsewhere?: number) => void,
    finishedEvents: Uint32Array<ArrayBuffer>,
    isMainThread: boolean,
    isLibuv: boolean,
    asyncResource: object,
  ): number;
  /**
   * No new events for this worker; it finishes what it was given and then calls `end`. The sockets it is busy with wait
   * for `release`, the others go on elsewhere at once.
   */
  retire(worker: number, busySockets: Float64Array<ArrayBuffer>): void;
  /** This worker, which has retired, is no longer busy with that socket. */
  release(worker: number, socketId: number): void;
  /** This worker has finished everything. */
  end(worker: number): void;
  /**
   * The next batch of events, laid out as `batch.cts` tells: in `store`, of so many bytes, or in a buffer of its own if
   * handlers may keep bytes of it or it does not fit. Undefined: there is none, and `onEvents` will be called.
   * From a batch to the next `take` or `uncork` the calls of this thread are collected. Throws when there is no memory for a
   * buffer, and gives the same batch at the next call.
   */
  take(worker: number, store: Buffer): Buffer | number | undefined;
  /** The batch that was taken last once more, in another buffer. */
  takeAgain(): Buffer;
  /** The next large text of the batch that was taken last; each is given once. */
  takeLargeText(isAscii: boolean): string;
  /** The close handler of this socket starts now; its close event is not given to another worker. */
  beginClose(worker: number, socketId: number): void;
  /** Calls of this thread wait for `uncork` before shards are woken for them. */
  cork(): void;
  /** Wakes each shard that something waits for, once. */
  uncork(): void;

  start(options: NativeStartOptions): NativeStartResult;
  /** `onStopped` is called once, unless the answer is false: then this server was stopped before. */
  stop(
    server: number,
    timeout: number,
    spread: number,
    code: number,
    reason: string,
    onStopped: (closed: number, forced: number) => void,
  ): boolean;

  send(socketId: number, message: NativeMessage): boolean;
  /** `except`: a socket id, or 0 for none. */
  sendToChannel(channel: NativeData, message: NativeMessage, except: number): number;
  broadcast(message: NativeMessage): number;
  close(socketId: number, code: number, reason: string): boolean;
  /**
   * A handler of this socket did not come to an end in its time: closes the socket with 1011 if it is still open, and
   * counts the messages that had waited behind that handler.
   */
  handlerTimedOut(socketId: number, lostMessages: number): void;
  /** Counts messages that came behind such a handler later. */
  giveUpMessages(count: number): void;
  /** Reads nothing from this socket until `resume`. */
  pause(socketId: number): boolean;
  resume(socketId: number): boolean;
  /** A number: the socket is in so many channels, and may be in no more. */
  subscribe(socketId: number, channel: NativeData): boolean | number;
  unsubscribe(socketId: number, channel: NativeData): boolean;
  copySubscriptions(from: NativeData, to: NativeData): number;
  setToken(socketId: number, token: NativeData | undefined): boolean;
  getToken(socketId: number): Buffer | undefined;
  /** `kind` and `channel`: see `route.cts`. */
  setMessageRoute(socketId: number, kind: number, channel: NativeData): boolean;
  subscriberCount(channel: NativeData): number;
  subscribers(channel: NativeData): Float64Array;
  channels(socketId: number): Buffer[];
  channelCount(): number;
  connectionCount(): number;
  connections(): Float64Array;
  bufferedAmount(socketId: number): number;
  /** `onDrained` is called once: with 1 when nothing waits for the socket any more, with 0 when it has ended before. */
  whenDrained(socketId: number, onDrained: (isDrained: number) => void): void;
  /** `onClosed`, which must not throw, is called once when the socket begins to close. False: it is gone, and nothing is called. */
  whenClosed(socketId: number, onClosed: () => void): boolean;
  stats(): Stats;
  /** A time of 0 ms is until further notice. */
  ban(network: string, milliseconds: number): number;
  unban(network: string): boolean;
  bans(): Ban[];

  /** `headers` in all three: `name\nvalue\n` for each, in latin1. Here 0 stands for those of a plain text alone. */
  respond(requestId: number, status: number, headers: string | 0, body: NativeData): boolean;
  accept(
    requestId: number,
    token: NativeData | undefined,
    channels: NativeData[],
    protocol: string | undefined,
    headers: string,
    routeKind: number,
    routeChannel: NativeData,
  ): boolean;
  refuse(requestId: number, status: number, headers: string, body: NativeData): boolean;
}

/** Where a thread keeps which copy of the addon it has loaded first, for all copies of this module. */
const LOADED = Symbol.for('wsbroker.place');

function load(): Native {
  try {
    return loadAddon<Native>();
  } catch (error) {
    const { code, message, cause } = error as LoadError;
    if (code !== 'WSB_LOAD_FAILED') throw error;
    throw new WsBrokerError(code, message, { cause });
  }
}

/**
 * The addon, the same object at each import in a thread. A copy: what an addon exports is a dictionary to V8, and a
 * function that is looked up there is neither a constant nor called directly.
 */
export const native: Native = { ...load() };
warnOfAnotherCopy();

/**
 * Two copies of the package at different places have a broker each, and the sockets and channels of one are unknown to the
 * other. That may be meant, so it is no error. Each thread is told, of what it has loaded itself.
 */
function warnOfAnotherCopy(): void {
  const loaded = globalThis as { [LOADED]?: number };
  loaded[LOADED] ??= native.place;
  if (loaded[LOADED] === native.place) return;
  process.emitWarning(
    'wsbroker is loaded from two places. Each copy has a broker of its own, and knows nothing of the sockets and channels of ' +
      `the other; \`npm ls wsbroker\` shows who depends on which. This one is in ${__dirname}.`,
    { type: 'WsBrokerWarning', code: 'WSB_LOADED_TWICE' },
  );
}
