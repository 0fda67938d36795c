/** GraphQL over WebSocket, by the package graphql-ws: many subscriptions at once on one socket. */
import { setTimeout as delay } from 'node:timers/promises';
import { buildSchema } from 'graphql';
import { GRAPHQL_TRANSPORT_WS_PROTOCOL, makeServer } from 'graphql-ws';
import { close, registerWorkerThread, send, signalOf, start } from 'wsbroker';

const schema = buildSchema(`
  type Query { running: Int! }
  type Subscription { ticks(every: Int!): Int! }
`);

/** Subscriptions that run. */
let running = 0;

async function* ticks({ every }, { signal }) {
  running += 1;
  try {
    for (let n = 0; ; n += 1) {
      yield { ticks: n };
      // A client that leaves ends the wait.
      await delay(every, undefined, { signal });
    }
  } catch (error) {
    if (error.name !== 'AbortError') throw error;
  } finally {
    running -= 1;
  }
}

const graphql = makeServer({
  schema,
  roots: { query: { running: () => running }, subscription: { ticks } },
  context: ({ extra }) => ({ signal: signalOf(extra.socketId) }),
});

/** Of each socket: what takes its messages, and its end. */
const sessions = new Map();

registerWorkerThread(
  {
    handleSocketOpen(socketId, request) {
      const session = { onMessage: undefined, closed: undefined };
      const socket = {
        protocol: request.protocol ?? '',
        send: (data) => void send(socketId, data),
        close: (code, reason) => void close(socketId, code, reason),
        onMessage: (callback) => {
          session.onMessage = callback;
        },
      };
      session.closed = graphql.opened(socket, { socketId });
      sessions.set(socketId, session);
    },

    // The promise of a subscription's message lasts as long as the subscription.
    handleSocketMessage: (data, socketId) => sessions.get(socketId)?.onMessage(String(data)),

    handleSocketClose(socketId, _token, code, reason) {
      const session = sessions.get(socketId);
      sessions.delete(socketId);
      return session?.closed(code, reason);
    },
  },
  // So the next message need not wait for it, nor the close.
  { serial: false },
);

const server = start({
  bind: `127.0.0.1:${process.env.PORT ?? 3000}`,
  protocols: [GRAPHQL_TRANSPORT_WS_PROTOCOL],
});
for (const name of ['SIGINT', 'SIGTERM']) process.once(name, () => server.stop());
console.log(`listening on ${server.url}`);
