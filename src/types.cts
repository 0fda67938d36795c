/** The types of the public API, as they are documented. */

import type { CompressionOptions } from './compression.cjs';
import type { RequestHeaders } from './headers.cjs';
import type { Limits } from './limits.cjs';

/**
 * What can be sent. A string goes out as a text message, bytes as a binary one. Of a typed array or DataView the bytes
 * that it views count; what views a `SharedArrayBuffer` is copied first. A buffer that was transferred is refused.
 */
export type Data = string | Buffer | Uint8Array | ArrayBufferView | ArrayBuffer;

/**
 * The name of a channel: 1 to 512 bytes. A string stands for its UTF-8, so `'a'` and `Buffer.from('a')` are one
 * channel.
 */
export type ChannelName = Data;

/** One WebSocket connection: a positive safe integer, never used twice in a process. */
export type SocketId = number;

/** Bytes that the application tied to a socket, opaque to the broker. Undefined: there are none. */
export type Token = Buffer | undefined;

/**
 * Where the messages of a socket go. Each takes the route that its socket has when it is read.
 *
 * `'handler'`: to `handleSocketMessage`. Every socket begins with it, unless its upgrade decision says otherwise.
 *
 * `'echo'`: back to the sender, text as text and bytes as bytes.
 *
 * `{ relay: channel }`: to the subscribers that the channel has at that moment, but for the sender; with `echo: true` to the
 * sender too. The sender has to be a subscriber itself: otherwise its message is left out, and counted in
 * `stats().dropped.notSubscribed`.
 *
 * Of what is echoed or relayed no JavaScript hears: nobody checks, changes or stores it, and it goes on while the workers
 * are busy or blocked. All that holds for {@link sendToChannel} holds for it as well, `maxBackpressure`, `slowConsumer` and
 * compression for who receives, limits and rates for who sends; the messages of one sender arrive in order. Opens, drains
 * and closes still come to the handlers.
 */
export type MessageRoute = 'handler' | 'echo' | RelayRoute;

/** The route of messages that go from one subscriber of a channel to the others. */
export interface RelayRoute {
  /** The channel. */
  relay: ChannelName;
  /**
   * Whether the sender gets its message back as well.
   *
   * @defaultValue false
   */
  echo?: boolean | undefined;
}

/**
 * The options of {@link start}. Sizes are in bytes and times in milliseconds, all whole numbers. What can be turned off is
 * turned off by `false`; a time, rate or limit of 0 is refused, for it could also mean none at all.
 */
export interface StartOptions {
  /**
   * Where to listen: `'0.0.0.0:3000'`, `'[::]:3000'`, `'localhost:3000'`, `':3000'` (every interface, IPv6 and IPv4),
   * `'127.0.0.1:0'` (any free port, see {@link Server.address}) or `'unix:/run/app.sock'`.
   */
  bind: string;
  /**
   * The largest message taken from a client, in bytes. A larger one closes its socket with 1009. It bounds the memory
   * that a client can claim with one message; 1 MiB is far above what chat, game or telemetry messages need.
   *
   * @defaultValue 1_048_576
   */
  maxMessageSize?: number;
  /**
   * The largest request body, in bytes. A larger one is answered with 413. Bodies are held in memory as a whole until
   * their handler runs; 10 MiB lets a form with a picture through.
   *
   * @defaultValue 10_485_760
   */
  maxBodySize?: number;
  /**
   * The largest head of a request, in bytes, request line included. A larger one is answered with 431. 32 KiB are what
   * nginx passes on with its defaults, and twice what Node takes. 256 to 1,048,576.
   *
   * @defaultValue 32_768
   */
  maxHeaderSize?: number;
  /**
   * The most headers of a request. More are answered with 431. Browsers send some twenty, and a proxy adds a few. Above
   * 100 each request costs a little more. 1 to 1000.
   *
   * @defaultValue 100
   */
  maxHeaders?: number;
  /**
   * How many bytes may wait for one socket whose client reads slower than it is sent to. Times the number of sockets this is
   * what slow clients can claim together. What is sent in one task of the event loop, or has not been offered to the kernel
   * yet, does not count against a client: it may be sixteen times as much, see {@link drained} for more than that. A socket
   * that nothing waits for takes one message of any size.
   *
   * @defaultValue 1_048_576
   */
  maxBackpressure?: number;
  /**
   * How long a client may take to send the head of a request, in ms: of the first one from its connection on, of a later
   * one from its first byte on. After it the answer is 408, or nothing if nothing came, and the connection ends. It
   * bounds how long somebody can hold a connection by sending next to nothing; a head fits a few packets.
   *
   * @defaultValue 10_000
   */
  headerTimeout?: number;
  /**
   * How long a client may take to send the body of a request, in ms. After it the answer is 408. `maxBodySize` in that
   * time takes 350 KB/s.
   *
   * @defaultValue 30_000
   */
  bodyTimeout?: number;
  /**
   * How many bytes of a body have to come per second: on average since the body began, and after its first 5 s. Below
   * it the answer is 408. Somebody who sends a body byte by byte is done with long before `bodyTimeout`, and 240 bytes
   * are what a modem of 2,400 baud sends. `false` turns it off.
   *
   * @defaultValue 240
   */
  minBodyRate?: number | false;
  /**
   * How long a handler may take to answer a request or to decide on an upgrade, in ms. After it the answer is 504.
   * Common proxies give up after 60 s; half of it leaves them an answer to pass on.
   *
   * @defaultValue 30_000
   */
  requestTimeout?: number;
  /**
   * How long the answer to a request may wait for a client that takes nothing of it, in ms, before the connection is
   * reset. Each byte that the client takes begins the time anew. It bounds how long somebody can keep an answer in
   * memory; sockets have `maxBackpressure` and the heartbeat for that.
   *
   * @defaultValue 30_000
   */
  writeTimeout?: number;
  /**
   * How long a connection may wait for its next request, in ms, before it is ended. 65 s are above the 60 s after which
   * common load balancers let go of it: a server that does so first would now and then end a connection on which a
   * request is just coming, and the balancer would answer 502 for it.
   *
   * @defaultValue 65_000
   */
  keepAliveTimeout?: number;
  /**
   * The subprotocols that the application speaks, best first: 1 to 64 names, as in `['graphql-transport-ws']`. The first
   * of them that a client offers is chosen; the order is the server's, which knows best what it would rather speak.
   * What {@link UpgradeAcceptance.protocol} names goes before it. {@link HttpRequest.protocol} tells the choice.
   *
   * Without a common one the socket opens without a subprotocol, as RFC 6455 has it. Browsers then end it themselves;
   * to refuse others as well, `handleSocketUpgrade` can look at `request.protocol`.
   */
  protocols?: readonly string[];
  /**
   * Whose pages may open sockets: `'*'` for all; a list of origins as browsers send them (`'https://example.com'`,
   * `'http://localhost:3000'`, `'null'`), compared without case and default ports; or a function. Others are answered
   * with 403, without any handler. Browsers send the cookies of your host with a handshake from any page, so list your
   * origins where cookies log somebody in.
   *
   * A client that sends no `Origin` is no browser. A list lets it in, for only users of browsers can be tricked into a
   * handshake, and a program can send any `Origin` it likes. A function is given `undefined` for it.
   *
   * The function runs in the thread that called `start`, and must answer `true` or `false` at once; the request waits
   * at most `requestTimeout` for it. If it fails the answer is 500, and `handleError` of that thread is told, or stderr;
   * when its thread has ended, 503. Where an answer takes a database, take `handleSocketUpgrade`.
   *
   * @defaultValue '*'
   */
  origins?: '*' | readonly string[] | ((origin: string | undefined) => boolean);
  /**
   * Compresses messages for clients that offer permessage-deflate (RFC 7692), which browsers do; sockets of other clients
   * are plain. `true` takes the defaults of {@link CompressionOptions}. Off by default, as in other servers: it takes more
   * time than everything else that is done for a message, and a secret in a message beside what an attacker chose can be
   * told from its compressed size. `maxMessageSize` counts inflated bytes, and inflating stops there.
   *
   * @defaultValue false
   */
  compression?: boolean | CompressionOptions;
  /**
   * After `interval` ms of silence a client is sent a ping; after `timeout` ms without any sign of life its socket is
   * closed, with code 1006 in its close event. 45 s are below the 60 s after which common proxies cut a silent
   * connection, and 120 s leave a client on a bad network more than a minute for its answer. `false` turns both off. Each
   * may be given alone.
   *
   * @defaultValue { interval: 45_000, timeout: 120_000 }
   */
  heartbeat?: { interval?: number; timeout?: number } | false;
  /**
   * What happens beyond `maxBackpressure`: `'close'` closes the socket with 1013, `'drop'` leaves that message out for
   * that socket and counts it. A client that misses messages without knowing is usually worse off than one that
   * reconnects and asks for the state.
   *
   * @defaultValue 'close'
   */
  slowConsumer?: 'close' | 'drop';
  /**
   * How long the promise of a handler may take to settle, in ms. After it the socket is closed with 1011, `handleError`
   * is told with the code `WSB_HANDLER_TIMEOUT`, the messages that waited behind the promise are counted in
   * `stats().dropped.handlerTimeoutMessages`, and the close event comes although the handler has not ended. Of
   * `handleSocketClose` it is told alone. It counts for `handleSocketOpen`, `handleSocketMessage`, `handleSocketDrain` and
   * `handleSocketClose`; for requests and upgrades there is `requestTimeout`.
   *
   * A handler that blocks its thread without a promise cannot be interrupted, and the time in which a thread was blocked
   * is not held against the handlers that wait in it, but for a tenth of a second each time. `false`, the default, turns
   * it off: how long a handler may take the application alone knows.
   *
   * @defaultValue false
   */
  handlerTimeout?: number | false;
  /**
   * How long a client may take to answer a close frame, in ms, before its connection is cut. Several round trips of a
   * slow mobile network.
   *
   * @defaultValue 5_000
   */
  closeTimeout?: number;
  /**
   * What one client, and all of them together, may take of this server. Each limit is off unless it is given; `true`
   * stands for its default. See {@link Limits}.
   */
  limits?: Limits;
  /**
   * Which proxies are believed when they name the client in `X-Forwarded-For` or `Forwarded` (RFC 7239). Nobody is by
   * default: anybody can write these headers. Each proxy adds its own peer on the right, so they are read from the right:
   *
   * A number says how many proxies are between the clients and this server, as in Express: with 1 the client is the last
   * address of the list, with 2 the one before it. Use it only where nobody can reach the server past the proxies.
   *
   * An array holds the proxies' addresses or networks, and `'unix'` for peers on a Unix socket: the client is the last
   * address that is not one of them.
   *
   * An entry that names nobody (`unknown`, rubbish) makes the proxy that wrote it the client. A request in which both
   * headers stand and name different clients is answered 400, because one of them may be the client's own: the proxy
   * has to set both or remove one. The client becomes {@link HttpRequest.remoteAddress}, and is whose {@link Limits} count
   * and who may be banned.
   *
   * @defaultValue 0
   */
  trustProxy?: number | string[] | false;
  /**
   * Whether each connection has to begin with a PROXY header, version 1 or 2, as load balancers on the level of TCP
   * write it. The client that it names counts as the peer, also for `trustProxy`; a header that names nobody (`LOCAL`,
   * `UNKNOWN`) leaves the peer as it is. A connection that does not begin with a sound header within `headerTimeout` is
   * closed without an answer.
   *
   * An array of addresses or networks, and `'unix'` for peers on a Unix socket, tells who may connect and be believed;
   * others are closed. `true` believes everybody: use it only where nobody but the proxy can reach the server.
   *
   * @defaultValue false
   */
  proxyProtocol?: boolean | string[];
  /**
   * How many I/O threads the broker runs, 1 to 256. They are shared by all servers of the process, so the first
   * `start` decides, and a later one that asks for another number is refused. Left out, the environment variable
   * `WSBROKER_IO_THREADS` decides, and without it the machine: half of its cores, at least one, for the other half is busy
   * with the workers.
   */
  ioThreads?: number;
}

/** The options of {@link Server.stop}. */
export interface StopOptions {
  /**
   * How long sockets and requests may take to end by themselves, in ms. What is left then is cut.
   *
   * @defaultValue 10_000
   */
  timeout?: number;
  /**
   * Over how many ms the sockets are closed, evenly, so that their clients do not all come back at once; at most
   * `timeout`. Until its turn a socket goes on as before. Leave some of `timeout` for the last ones to answer.
   *
   * @defaultValue 0
   */
  spread?: number;
  /**
   * The close code that every socket of this server gets; 1001 says that the server goes away.
   *
   * @defaultValue 1001
   */
  code?: number;
  /**
   * The reason beside the code, at most 123 bytes of UTF-8.
   *
   * @defaultValue ''
   */
  reason?: string;
}

/** Where a server listens. */
export type ServerAddress = { readonly host: string; readonly port: number } | { readonly path: string };

/** A server that runs. */
export interface Server {
  /**
   * Where it listens: the IP address without brackets and the port that was really taken, or the path of the Unix
   * socket.
   */
  readonly address: ServerAddress;
  /**
   * The same as a URL without a path: `'http://127.0.0.1:3000'`, `'http://[::1]:3000'`. Of a server that listens on every
   * interface it is `'http://localhost:3000'`, which a browser of this machine can open; of a Unix socket `'unix:'` and its
   * path, as in {@link StartOptions.bind}.
   */
  readonly url: string;
  /**
   * Stops this server: no new connection, an answer for each request that is being handled, a close frame for each
   * socket (at once, or over `spread`), and after `timeout` the end of what is left. Then the port is free, and the
   * close event of every socket is on its way to its worker. Other servers of the process go on. A second call gives
   * the promise of the first.
   *
   * @returns a promise of how many sockets closed in time, and how many had to be cut
   * @throws {@link WsBrokerError} `WSB_INVALID_ARGUMENT`
   */
  stop(options?: StopOptions): Promise<StopSummary>;
}

/** What {@link Server.stop} has done. */
export interface StopSummary {
  /** Sockets that closed in time. */
  closed: number;
  /** Sockets that were cut, and requests whose connection was. */
  forced: number;
}

/**
 * A request. Its fields are decoded when they are read, so a handler that looks at `path` alone pays for `path` alone.
 * `{ ...request }` copies all of them but `signal`, and the copy can be sent to another thread; `JSON.stringify(request)`
 * gives `method`, `url`, `headers`, `remoteAddress` and `protocol`.
 */
export interface HttpRequest {
  /** `'GET'`, `'POST'` … */
  readonly method: string;
  /**
   * Path and query as they came, for example `'/rooms/7?since=12'`, or `'*'` of an `OPTIONS`. Of a request for a whole URL
   * they are that URL's, whose host is then in `headers.host`.
   */
  readonly url: string;
  /** The URL up to its `?`. Nothing is decoded in it. */
  readonly path: string;
  /** The same as `path`. */
  readonly pathname: string;
  /** The query with its `?`, or an empty string. */
  readonly search: string;
  /** The query without its `?`, or an empty string. */
  readonly query: string;
  /** The headers: keys in lower case, though reading by any case works, and `in`. */
  readonly headers: RequestHeaders;
  /** The whole body; empty when there is none. It may share memory with other events: copy what is kept for long. */
  readonly body: Buffer;
  /**
   * The client's IP address, or `'unix'` for one that came through a Unix socket. Behind a proxy it is the proxy's, unless
   * {@link StartOptions.trustProxy} or {@link StartOptions.proxyProtocol} says otherwise.
   */
  readonly remoteAddress: string;
  /**
   * The subprotocol of a WebSocket, if there is one. In `handleSocketOpen` it is the one that the client was told, in
   * `handleSocketUpgrade` the one that the option `protocols` chooses; what the client offers is in
   * `headers['sec-websocket-protocol']`.
   */
  readonly protocol: string | undefined;
  /**
   * Aborts when the client goes away before it got its answer. One that only ends its own side of the connection and reads
   * on, as `nc -N` does, cannot be told from one that goes away, so the signal aborts for it too; but what the handler
   * answers is sent all the same. An upgrade is over with it.
   */
  readonly signal: AbortSignal;
}

/** An answer to a request. */
export interface HttpResponse {
  /**
   * 200 to 599.
   *
   * @defaultValue 200
   */
  status?: number;
  /**
   * Names in any case. An array gives one header per element. `content-length` follows from the body; a string body
   * without a `content-type` gets `text/plain; charset=utf-8`.
   */
  headers?: Readonly<Record<string, string | readonly string[] | number | undefined>>;
  /** A string goes out as UTF-8. A 204, 205 or 304 has no body whatever is given. */
  body?: Data | null;
}

/** What an accepted socket starts with. All of it is in place before its first message can arrive. */
export interface UpgradeAcceptance {
  /** The socket's token; a string stands for its UTF-8. */
  token?: Data | undefined;
  /** The channels it is subscribed to. */
  channels?: readonly ChannelName[];
  /**
   * Where its messages go; {@link setMessageRoute} changes it. To relay to one of its channels, name that in `channels` too.
   *
   * @defaultValue 'handler'
   */
  route?: MessageRoute | undefined;
  /**
   * The subprotocol, one of those that the client offered in `sec-websocket-protocol`; with another there is none.
   * Undefined leaves the choice to the option `protocols`.
   */
  protocol?: string | undefined;
  /** Further headers of the 101. */
  headers?: HttpResponse['headers'];
}

/**
 * What {@link WorkerHandlers.handleSocketUpgrade} decides. Nothing or `true` accepts, `false` answers 403, a response
 * with a `status` is sent instead of the upgrade, and an acceptance accepts. A field that an acceptance does not have fails
 * it with 500; one that a response does not have is told to `handleError` once.
 */
export type UpgradeDecision = Nothing | boolean | (HttpResponse & { status: number }) | UpgradeAcceptance;

/** What a handler returns that says nothing. */
// biome-ignore lint/suspicious/noConfusingVoidType: a function without a return statement is meant as well
export type Nothing = void | undefined | null;

/** Where an error came from, for {@link WorkerHandlers.handleError}. */
export interface ErrorContext {
  /**
   * The handler that threw, rejected or hung, for example `'handleSocketMessage'`; `'origins'` for the function of that
   * option; `'events'` when a batch of events could not be read for want of memory, which is tried again.
   */
  handler: string;
  /** The socket it was called for. */
  socketId?: SocketId;
  /** The request it was called for. It may be missing when its client has left and the handler does not hold it either. */
  request?: HttpRequest;
}

/**
 * What a worker does with events; every handler is optional. They are called as methods of the object that was
 * registered, so an instance of a class works, with whatever else it has; but a function whose name is nearly that of a
 * handler that is missing is refused. Which handlers there are is looked at once, when the thread registers.
 *
 * All events of a socket go to one worker, in the order they happened. A handler may return a promise: the next handler
 * of that socket waits for it, those of other sockets do not. While much waits behind a promise, nothing more is read
 * from that socket.
 *
 * Bytes given to a handler stay valid as long as it holds them. They may share memory with other events that came
 * together with them: copy what is kept for long.
 */
export interface WorkerHandlers {
  /**
   * Answers a request that is no upgrade. Nothing: 200 with an empty body. An error: 500, and `handleError` is told.
   * No answer within `requestTimeout`: 504. While no worker has this handler: 426, or 404 if none has any handler of sockets
   * either. A field of the answer that is none of {@link HttpResponse} is told to `handleError` once.
   */
  handleHttpRequest?: (request: HttpRequest) => HttpResponse | Nothing | PromiseLike<HttpResponse | Nothing>;
  /**
   * Decides on a WebSocket upgrade, before the client gets its 101. An error: 500, and `handleError` is told. Without
   * this handler in any worker every upgrade is accepted.
   */
  handleSocketUpgrade?: (request: HttpRequest) => UpgradeDecision | PromiseLike<UpgradeDecision>;
  /**
   * A socket is open; called once, before any message of it. `request` is the one that was upgraded. Of a socket that
   * opened in a thread without this handler no other thread is told later.
   */
  handleSocketOpen?: (socketId: SocketId, request: HttpRequest, token?: Token) => unknown;
  /**
   * A message came: a string for a text message, a Buffer for a binary one. `token` is the socket's token when the
   * message was read. It is not called for messages that take another {@link MessageRoute}.
   */
  handleSocketMessage?: (data: string | Buffer, socketId: SocketId, token?: Token) => unknown;
  /** A socket for which more than half of `maxBackpressure` waited has taken all of it. */
  handleSocketDrain?: (socketId: SocketId, token?: Token) => unknown;
  /**
   * A socket is closed; called exactly once for each one that was opened, after its last message. `code` is what the
   * client sent, 1005 when it sent none, 1006 when the connection ended without a close frame. Where the broker closed
   * the socket it is the broker's: 1008 over a rate or for a ban, 1011 for a handler that hung, 1013 for a slow consumer.
   */
  handleSocketClose?: (socketId: SocketId, token: Token, code: number, reason: string) => unknown;
  /**
   * A handler threw or rejected, or did not settle within `handlerTimeout`. Without this handler errors go to stderr: the
   * first from each place in the code with its stack, and again after a minute, the others as a count, in a line a second.
   */
  handleError?: (error: unknown, context: ErrorContext) => unknown;
}

/** A ban that holds. */
export interface Ban {
  /** The IP address, or the network in CIDR notation, in its shortest form. */
  address: string;
  /** When it ends by itself, in ms as `Date.now()` counts them; undefined for one until {@link unban}. */
  expires: number | undefined;
}

/** A thread's registration as a worker. */
export interface Registration {
  /**
   * Gives the thread's sockets and events to the other workers. What this thread was given already it finishes. A
   * second call does nothing.
   */
  unregister(): void;
}
