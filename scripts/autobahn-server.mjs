// The server that the Autobahn TestSuite talks to: it echoes through a handler in JavaScript, as an application would.
// Prints its address and ends with its standard input. See autobahn.mjs.
//
// The argument is how it compresses: `shared` or `dedicated`.

import { registerWorkerThread, send, start } from 'wsbroker';

/** The largest messages of the suite, in bytes: cases 9.1.6 and 9.2.6. */
const LARGEST_MESSAGE = 16 * 2 ** 20;

const compression = process.argv[2] === 'dedicated' ? { memory: 'dedicated' } : true;

const registration = registerWorkerThread({
  handleSocketMessage: (data, socketId) => void send(socketId, data),
});
const server = start({
  bind: '127.0.0.1:0',
  compression,
  maxMessageSize: LARGEST_MESSAGE,
  maxBackpressure: 2 * LARGEST_MESSAGE,
});
const { host, port } = server.address;
console.log(`ws://${host}:${port}`);

for await (const _ of process.stdin);
await server.stop();
registration.unregister();
