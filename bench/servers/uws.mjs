// uWebSockets.js, if its user has put it there: it is not on npm. BENCH_UWS is its folder.

import { createRequire } from 'node:module';
import path from 'node:path';
import { answer, GREETING, JOIN, kindOf, MAX_MESSAGE, nameIn, PUBLISH, ready } from './protocol.mjs';

const require = createRequire(import.meta.url);
const uws = require(process.env.BENCH_UWS);
const { version } = require(path.join(process.env.BENCH_UWS, 'package.json'));

// By default it takes 16 KiB a message, leaves out what goes beyond 64 KiB of backpressure, and closes idle sockets
// after two minutes.
const options = { idleTimeout: 0, maxPayloadLength: MAX_MESSAGE, maxBackpressure: MAX_MESSAGE };
const app = uws.App();
const decoder = new TextDecoder();

app.ws('/*', {
  compression: uws.DISABLED,
  ...options,
  message(socket, message, isBinary) {
    // Its memory is valid until this returns; text comes as bytes.
    const data = isBinary ? new Uint8Array(message) : decoder.decode(message);
    const kind = kindOf(data);
    if (kind === PUBLISH) {
      app.publish(nameIn(data), data, isBinary);
      return;
    }
    if (kind === JOIN) socket.subscribe(nameIn(data));
    socket.send(answer(data, kind), isBinary);
  },
});
app.get('/', (response) => {
  response.end(GREETING);
});
app.post('/', (response) => {
  const chunks = [];
  response.onAborted(() => {});
  response.onData((chunk, isLast) => {
    chunks.push(Buffer.from(chunk.slice(0)));
    if (isLast) response.cork(() => response.end(Buffer.concat(chunks)));
  });
});
app.listen('127.0.0.1', 0, (socket) => {
  ready({ port: uws.us_socket_local_port(socket), version, options });
});
