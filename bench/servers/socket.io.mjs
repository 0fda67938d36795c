// Socket.IO through its WebSocket transport. A message is an event named `m`, a channel is a room.

import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { answer, JOIN, kindOf, MAX_MESSAGE, nameIn, PUBLISH, ready } from './protocol.mjs';

const require = createRequire(process.env.BENCH_PEERS);
const { Server } = require('socket.io');

const options = { transports: ['websocket'], serveClient: false, maxHttpBufferSize: MAX_MESSAGE };
const server = createServer();
const io = new Server(server, options);
io.on('connection', (socket) => {
  socket.on('m', (data) => {
    const kind = kindOf(data);
    if (kind === PUBLISH) {
      io.to(nameIn(data)).emit('m', data);
      return;
    }
    if (kind === JOIN) socket.join(nameIn(data));
    socket.emit('m', answer(data, kind));
  });
});
server.listen(0, '127.0.0.1', 511, () => {
  ready({ port: server.address().port, version: require('socket.io/package.json').version, options });
});
