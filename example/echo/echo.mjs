/** Sends every message back to where it came from: text as text, bytes as bytes. */
import { registerWorkerThread, send, start } from 'wsbroker';

registerWorkerThread({
  handleSocketMessage(data, socketId) {
    send(socketId, data);
  },
});

const server = start({ bind: `127.0.0.1:${process.env.PORT ?? 3000}` });

// Once the server has stopped, nothing keeps the process alive.
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => server.stop());

console.log(`listening on ${server.url}`);
