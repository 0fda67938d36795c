/** The broker in numbers. */

/** A moment's numbers. Sizes are in bytes; totals count since the process started, over all its servers. */
export interface Stats {
  /** Open sockets. */
  connections: number;
  /** Channels with at least one subscriber. */
  channels: number;
  /** Pairs of socket and channel. */
  subscriptions: number;
  /** Requests and upgrades that wait for an answer. */
  pendingRequests: number;
  /** Sockets that are not read at the moment because they are over a rate (`onExceed: 'pause'`). */
  pausedSockets: number;
  /** Servers that run. */
  listeners: number;
  /** I/O threads; 0 before the first server. */
  ioThreads: number;
  /** Times that a connection could not be accepted, for want of descriptors or memory; it waits in the kernel meanwhile. */
  acceptErrors: number;
  /** Sockets opened. */
  opened: number;
  /** Sockets closed. */
  closed: number;
  /** HTTP requests taken, without upgrades. */
  requests: number;
  /** Messages received. */
  messagesIn: number;
  /** Bytes received on sockets, frame headers included. */
  bytesIn: number;
  /** Messages queued for a socket; one sent to a channel counts once per subscriber. */
  messagesOut: number;
  /** Bytes handed to the kernel for sockets, frame headers included. */
  bytesOut: number;
  /** What was not delivered, by reason. */
  dropped: DropStats;
  /** Who was turned away, by reason. */
  limited: LimitedStats;
  /** The threads that are registered as workers. */
  workers: WorkerStats[];
}

/** What was not delivered, by reason. */
export interface DropStats {
  /** Messages left out because too much waited for their socket, whose client did not read it (`slowConsumer`). */
  slowConsumer: number;
  /** Messages left out because too much had been sent to their socket at once: sixteen times `maxBackpressure`. */
  queueFull: number;
  /** Opens and drains that a thread was given and had not finished when it ended. */
  workerEndedEvents: number;
  /** Messages queued for a socket that closed before its I/O thread had taken them. */
  socketClosed: number;
  /** Messages of sockets that relay to a channel and were not subscribed to it ({@link MessageRoute}). */
  notSubscribed: number;
  /** Messages that a worker held when its thread ended: given to it, and their handler had not finished. */
  workerEnded: number;
  /** Messages and pings left out because their socket was over a rate (`onExceed: 'drop'`). */
  overRate: number;
  /** Sockets closed because they were over a rate (`onExceed: 'close'`). */
  overRateCloses: number;
  /** Subscriptions refused because their socket was in as many channels as it may be (`channelsPerSocket`). */
  channelLimit: number;
  /** Handlers that did not come to an end within `handlerTimeout`. */
  handlerTimeouts: number;
  /** Messages that had waited behind such a handler, and that nobody handled. */
  handlerTimeoutMessages: number;
  /** Answers to requests that nobody waited for any more. */
  lateResponses: number;
  /** Requests answered 503: their worker ended, or no worker could take them. */
  unansweredRequests: number;
  /** Requests answered 504: no answer within `requestTimeout`. */
  timedOutRequests: number;
  /** Sockets closed because their client broke the protocol or a limit. */
  violations: number;
  /** Sockets cut because their client fell silent, or had left while nobody read what it had said before. */
  heartbeatTimeouts: number;
  /** Requests whose head or body came too slowly: `headerTimeout`, `bodyTimeout`, `minBodyRate`. */
  slowRequests: number;
  /** Connections cut because their client did not read an answer: `writeTimeout`. */
  unreadResponses: number;
}

/** Who was turned away, by reason. The first five are named after their {@link Limits}. */
export interface LimitedStats {
  /** Connections beyond `limits.connections`. */
  connections: number;
  /** Connections, or sockets behind a trusted proxy, beyond `limits.connectionsPerIp`. */
  connectionsPerIp: number;
  /** Upgrade requests beyond `limits.upgradesPerIp`. */
  upgradesPerIp: number;
  /** Requests beyond `limits.requestsPerIp`. */
  requestsPerIp: number;
  /** Upgrades beyond `limits.handshakes`. */
  handshakes: number;
  /** Upgrades from pages of an origin that may not connect (`origins`). */
  origins: number;
  /** Requests of which `X-Forwarded-For` and `Forwarded` name different clients (`trustProxy`). */
  contradictions: number;
  /** Connections and requests of banned clients. What a ban closed when it came is not counted here. */
  banned: number;
  /** Connections closed for want of a sound PROXY header (`proxyProtocol`), or from a peer that may not send one. */
  proxyProtocol: number;
}

/** What waits for one worker. */
export interface WorkerStats {
  /** Tells the workers of a process apart; never used twice. */
  id: number;
  /** Events that wait. */
  queuedEvents: number;
  /** Their size. */
  queuedBytes: number;
  /** Events that it is handling. */
  inHandEvents: number;
  /** Events that it has been given since it registered. */
  events: number;
  /** Its sockets are not read at the moment, because too much waits. */
  full: boolean;
}
