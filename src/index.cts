/**
 * The public API. A process holds one broker: one set of sockets and one set of channels, shared by every thread that
 * loads this package. Any thread may call any of these functions.
 *
 * @module
 */

import {
  checkChannelName,
  checkCloseCode,
  checkCloseReason,
  checkNames,
  checkObject,
  checkSocketId,
  checkToken,
  unreadable,
} from './arguments.cjs';
import { checkBanTime, checkNetwork } from './clients.cjs';
import { corkForThisTask } from './cork.cjs';
import { WsBrokerError } from './errors.cjs';
import type { WorkerOptions } from './handlers.cjs';
import { toMessage } from './in-hand.cjs';
import { native } from './native.cjs';
import { checkRoute } from './route.cjs';
import { startServer } from './server.cjs';
import type { Stats } from './stats.cjs';
import type {
  Ban,
  ChannelName,
  Data,
  MessageRoute,
  Registration,
  Server,
  SocketId,
  StartOptions,
  Token,
  WorkerHandlers,
} from './types.cjs';
import { signalOfSocket, whenDrained } from './waiting.cjs';
import { WorkerThread } from './worker.cjs';

export type { CompressionOptions } from './compression.cjs';
export { ERROR_CODES, WsBrokerError, type WsBrokerErrorCode } from './errors.cjs';
export type { WorkerOptions } from './handlers.cjs';
export type { RequestHeaders } from './headers.cjs';
export type { Limits, RateLimit } from './limits.cjs';
export type { SocketLimits, SocketRateLimit } from './socket-limits.cjs';
export type { DropStats, LimitedStats, Stats, WorkerStats } from './stats.cjs';
export type {
  Ban,
  ChannelName,
  Data,
  ErrorContext,
  HttpRequest,
  HttpResponse,
  MessageRoute,
  Nothing,
  Registration,
  RelayRoute,
  Server,
  ServerAddress,
  SocketId,
  StartOptions,
  StopOptions,
  StopSummary,
  Token,
  UpgradeAcceptance,
  UpgradeDecision,
  WorkerHandlers,
} from './types.cjs';

/**
 * Starts a server. The port is open when this returns. It may be called several times, for several ports or a public
 * and a private one; all servers share the broker.
 *
 * @param options - where to listen, and the limits
 * @returns the server
 * @throws {@link WsBrokerError} at the call, and nothing is left half-started: `WSB_INVALID_ARGUMENT`,
 * `WSB_INVALID_ADDRESS`, `WSB_ADDRESS_IN_USE`, `WSB_PERMISSION_DENIED`, `WSB_NO_WORKER` when no thread has registered,
 * `WSB_NOT_SUPPORTED`, `WSB_IO_ERROR`
 *
 * @example
 * ```js
 * const server = start({ bind: ':3000' });
 * process.once('SIGTERM', () => server.stop());
 * ```
 */
export function start(options: StartOptions): Server {
  return startServer(options);
}

/**
 * Registers the calling thread, main or one of `worker_threads`, as one that handles events. Sockets are given to the
 * registered threads in turn as they are accepted, and HTTP requests one by one.
 *
 * A thread that ends is unregistered by itself. While a server runs and a worker is registered the process stays alive;
 * a thread of `worker_threads` stays from its registration until the last server has stopped.
 *
 * @param worker - the object with the handlers, which are called as its methods. Which of them it has is looked up once,
 * here
 * @param options - `serial`: whether the handlers of a socket wait for each other's promises
 * @returns the registration
 * @throws {@link WsBrokerError} `WSB_INVALID_ARGUMENT` when a handler is no function or its name is misspelt,
 * `WSB_ALREADY_REGISTERED`
 *
 * @example
 * ```js
 * registerWorkerThread({
 *   handleSocketMessage: (data, socketId) => send(socketId, data),
 * });
 * ```
 */
export function registerWorkerThread(worker: WorkerHandlers, options?: WorkerOptions): Registration {
  const registered = new WorkerThread(worker, options);
  return { unregister: () => registered.retire() };
}

/**
 * Sends a message to one socket. It never blocks: the message is queued, in the order of the calls of this thread.
 * The I/O threads are woken once for the calls made in one task of the event loop, at the latest when it ends.
 *
 * @param socketId - the socket
 * @param data - a string for a text message, bytes for a binary one
 * @returns true when queued; false when the socket is gone, or too much waits for it (`maxBackpressure`)
 * @throws {@link WsBrokerError} `WSB_INVALID_ARGUMENT`
 */
export function send(socketId: SocketId, data: Data): boolean {
  const id = checkSocketId(socketId);
  corkForThisTask();
  return native.send(id, toMessage(data));
}

/**
 * Sends a message to every socket that is subscribed to a channel at this moment. The message is encoded once.
 *
 * @param channel - the channel; one without subscribers is none, and no error
 * @param data - a string for a text message, bytes for a binary one
 * @param options - `except`: a socket that does not get it, usually the one whose message is passed on
 * @returns how many sockets it was queued for. One in more than 64 channels that has closed may be counted for some
 * milliseconds
 * @throws {@link WsBrokerError} `WSB_INVALID_ARGUMENT`
 */
export function sendToChannel(channel: ChannelName, data: Data, options?: { except?: SocketId | undefined }): number {
  const name = checkChannelName(channel);
  const except = options === undefined ? NOBODY : checkExcept(options);
  corkForThisTask();
  return native.sendToChannel(name, toMessage(data), except);
}

/** Is no socket's id. */
const NOBODY = 0;

const EXCEPT = ['except'] as const;

function checkExcept(value: unknown): number {
  const options = checkObject(value, 'options');
  checkNames(options, EXCEPT, 'options');
  let except: unknown;
  try {
    ({ except } = options);
  } catch (cause) {
    unreadable('options.except', cause);
  }
  return except === undefined ? NOBODY : checkSocketId(except, 'options.except');
}

/**
 * Sends a message to every open socket of the process.
 *
 * @param data - a string for a text message, bytes for a binary one
 * @returns how many sockets it was queued for
 * @throws {@link WsBrokerError} `WSB_INVALID_ARGUMENT`
 */
export function broadcast(data: Data): number {
  corkForThisTask();
  return native.broadcast(toMessage(data));
}

/**
 * Subscribes a socket to a channel. A channel exists while it has subscribers; a socket that closes leaves all of its
 * channels by itself.
 *
 * @param socketId - the socket
 * @param channel - the channel
 * @returns true when added; false when it already was, or the socket is gone
 * @throws {@link WsBrokerError} `WSB_INVALID_ARGUMENT`; `WSB_LIMIT_REACHED` when the socket is in as many channels as
 * `limits.channelsPerSocket` lets it
 */
export function subscribe(socketId: SocketId, channel: ChannelName): boolean {
  const most = native.subscribe(checkSocketId(socketId), checkChannelName(channel));
  if (typeof most === 'boolean') return most;
  throw new WsBrokerError(
    'WSB_LIMIT_REACHED',
    `subscribe: socket ${socketId} is in ${most} channels already, which is the limit of channelsPerSocket`,
  );
}

/**
 * Takes a socket out of a channel.
 *
 * @param socketId - the socket
 * @param channel - the channel
 * @returns true when removed; false when it was not subscribed
 * @throws {@link WsBrokerError} `WSB_INVALID_ARGUMENT`
 */
export function unsubscribe(socketId: SocketId, channel: ChannelName): boolean {
  return native.unsubscribe(checkSocketId(socketId), checkChannelName(channel));
}

/**
 * Subscribes everybody who is in one channel to another as well. It is a union at this moment: `from` is unchanged, and
 * who joins it later is not followed. A socket that is in as many channels as `limits.channelsPerSocket` lets it is left
 * out, and counted in `stats().dropped.channelLimit`.
 *
 * @param from - the channel whose subscribers are taken
 * @param to - the channel they are added to
 * @returns how many sockets were newly added to `to`
 * @throws {@link WsBrokerError} `WSB_INVALID_ARGUMENT`
 */
export function copySubscriptions(from: ChannelName, to: ChannelName): number {
  return native.copySubscriptions(checkChannelName(from, 'from'), checkChannelName(to, 'to'));
}

/**
 * Ties bytes to a socket. Its handlers get them with every event that is read from now on.
 *
 * @param socketId - the socket
 * @param token - the bytes, at most 65,536, a string for its UTF-8, or undefined to clear it
 * @returns true; false when the socket is gone
 * @throws {@link WsBrokerError} `WSB_INVALID_ARGUMENT`
 */
export function setToken(socketId: SocketId, token: Data | undefined): boolean {
  return native.setToken(checkSocketId(socketId), checkToken(token));
}

/**
 * The bytes that are tied to a socket.
 *
 * @param socketId - the socket
 * @returns a copy of the token; undefined when none is set, or the socket is gone
 * @throws {@link WsBrokerError} `WSB_INVALID_ARGUMENT`
 */
export function getToken(socketId: SocketId): Token {
  return native.getToken(checkSocketId(socketId));
}

/**
 * Changes where the messages of a socket go that are read from now on. Those that were read before go where they would
 * have gone: what waits for `handleSocketMessage` is still handled, perhaps after later ones have been relayed.
 *
 * @param socketId - the socket
 * @param route - `'handler'`, `'echo'`, or `{ relay: channel, echo?: boolean }`, see {@link MessageRoute}
 * @returns true; false when the socket is gone
 * @throws {@link WsBrokerError} `WSB_INVALID_ARGUMENT`
 *
 * @example
 * ```js
 * subscribe(socketId, 'match 7');
 * setMessageRoute(socketId, { relay: 'match 7' });
 * ```
 */
export function setMessageRoute(socketId: SocketId, route: MessageRoute): boolean {
  const id = checkSocketId(socketId);
  const { kind, channel } = checkRoute(route);
  corkForThisTask();
  return native.setMessageRoute(id, kind, channel);
}

/**
 * Closes a socket with a close frame. What was sent before goes out before. From now on the socket is gone for all
 * calls; its close event comes when the client has answered, or after `closeTimeout`.
 *
 * @param socketId - the socket
 * @param code - 1000 to 1003, 1007 to 1014, or 3000 to 4999, which are the application's own from 4000 on
 * (RFC 6455, section 7.4). Default 1000
 * @param reason - at most 123 bytes of UTF-8. Default empty
 * @returns true when it was open
 * @throws {@link WsBrokerError} `WSB_INVALID_ARGUMENT`
 */
export function close(socketId: SocketId, code = 1000, reason = ''): boolean {
  const id = checkSocketId(socketId);
  const checkedCode = checkCloseCode(code);
  const checkedReason = checkCloseReason(reason);
  corkForThisTask();
  return native.close(id, checkedCode, checkedReason);
}

/**
 * How many sockets are subscribed to a channel. One that was in many channels and has just closed may be counted for some
 * milliseconds more, while its I/O thread takes it out of them in pieces.
 *
 * @param channel - the channel
 * @returns the number; 0 for a channel that does not exist
 * @throws {@link WsBrokerError} `WSB_INVALID_ARGUMENT`
 */
export function subscriberCount(channel: ChannelName): number {
  return native.subscriberCount(checkChannelName(channel));
}

/**
 * The sockets that are subscribed to a channel.
 *
 * @param channel - the channel
 * @returns their ids, in no particular order
 * @throws {@link WsBrokerError} `WSB_INVALID_ARGUMENT`
 */
export function subscribers(channel: ChannelName): SocketId[] {
  return Array.from(native.subscribers(checkChannelName(channel)));
}

/**
 * The channels that a socket is subscribed to.
 *
 * @param socketId - the socket
 * @returns their names as bytes, in no particular order; empty when the socket is gone
 * @throws {@link WsBrokerError} `WSB_INVALID_ARGUMENT`
 */
export function channels(socketId: SocketId): Buffer[] {
  return native.channels(checkSocketId(socketId));
}

/** How many channels there are: names with at least one subscriber. */
export function channelCount(): number {
  return native.channelCount();
}

/** How many sockets are open: from the moment their upgrade is accepted until they begin to close. */
export function connectionCount(): number {
  return native.connectionCount();
}

/** The ids of all open sockets at this moment, in no particular order. */
export function connections(): Iterable<SocketId> {
  return Array.from(native.connections());
}

/**
 * Waits until nothing that was sent to a socket waits for it any more. Who has much to send, more than
 * {@link StartOptions.maxBackpressure}, sends it in pieces and waits between them: so the client is given the time that it
 * takes to read, and neither it nor the limit for what is sent at once ends the socket.
 *
 * @param socketId - the socket
 * @returns a promise of true; of false when the socket is gone, or goes before
 * @throws {@link WsBrokerError} `WSB_INVALID_ARGUMENT`
 *
 * @example
 * ```js
 * const history = ['…', '…'];
 * registerWorkerThread({
 *   async handleSocketOpen(socketId) {
 *     for (const message of history) {
 *       if (!send(socketId, message)) return;
 *       if (bufferedAmount(socketId) > 65_536 && !(await drained(socketId))) return;
 *     }
 *   },
 * });
 * ```
 */
export function drained(socketId: SocketId): Promise<boolean> {
  return whenDrained(checkSocketId(socketId));
}

/**
 * Tells when a socket closes, for what a handler has begun and nobody needs then: a query, a subscription, a loop. It aborts
 * when the closing begins, whoever begins it, also while a promise of the socket's handler is pending, and works in every
 * thread. A client that asks and leaves at once is still sent what is answered in time: do not give this signal to what it
 * should get all the same.
 *
 * @param socketId - the socket
 * @returns the signal, the same for each call of a thread; one that is aborted when the socket is gone
 * @throws {@link WsBrokerError} `WSB_INVALID_ARGUMENT`
 *
 * @example
 * ```js
 * registerWorkerThread({
 *   async handleSocketMessage(data, socketId) {
 *     const response = await fetch(`http://prices.internal/${data}`, { signal: signalOf(socketId) });
 *     send(socketId, await response.text());
 *   },
 * });
 * ```
 */
export function signalOf(socketId: SocketId): AbortSignal {
  return signalOfSocket(checkSocketId(socketId));
}

/**
 * How many bytes wait for a socket: sent, and not yet handed to the kernel.
 *
 * @param socketId - the socket
 * @returns the number of bytes, frame headers included; 0 when the socket is gone
 * @throws {@link WsBrokerError} `WSB_INVALID_ARGUMENT`
 */
export function bufferedAmount(socketId: SocketId): number {
  return native.bufferedAmount(checkSocketId(socketId));
}

/**
 * Keeps an IP address or a network out of every server of the process. New connections are closed as soon as they are
 * accepted, and requests that come through a trusted proxy are answered 403. What is open is closed: sockets with 1008
 * and the reason `banned`, other connections at once.
 *
 * How many bans there are is up to the application; each takes some 100 bytes until it ends. A client with IPv6 usually
 * has a network of 64 bits to itself: ban that rather than one address of it.
 *
 * Each call looks at every open socket of the process, some 10 ns each, before it returns: ban when somebody misbehaves,
 * and whole lists before the first server starts.
 *
 * @param address - an IPv4 or IPv6 address, or a network in CIDR notation; `::/0` stands for IPv6 alone
 * @param seconds - how long it lasts, above 0, fractions allowed. Default: until {@link unban}. Banning the same address
 * again replaces the time
 * @returns how many sockets it closed
 * @throws {@link WsBrokerError} `WSB_INVALID_ARGUMENT`
 */
export function ban(address: string, seconds?: number): number {
  const network = checkNetwork(address, 'address');
  const time = checkBanTime(seconds);
  corkForThisTask();
  return native.ban(network, time);
}

/**
 * Lifts a ban.
 *
 * @param address - the address or network that was banned; one within a banned network stays banned
 * @returns true when there was such a ban
 * @throws {@link WsBrokerError} `WSB_INVALID_ARGUMENT`
 */
export function unban(address: string): boolean {
  return native.unban(checkNetwork(address, 'address'));
}

/** The bans that hold at this moment, IPv4 first, in the order of their addresses. */
export function bans(): Ban[] {
  return native.bans();
}

/** Everything above in numbers, and what was dropped for which reason. */
export function stats(): Stats {
  return native.stats();
}
