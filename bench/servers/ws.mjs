// ws on node:http. A channel is a Set, a publish a loop over it that sends one prepared Buffer.

import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { answer, JOIN, kindOf, MAX_MESSAGE, nameIn, PUBLISH, ready } from './protocol.mjs';

const require = createRequire(process.env.BENCH_PEERS);
const { WebSocketServer } = require('ws');

const channels = new Map();

function join(channel, socket) {
  const members = channels.get(channel) ?? new Set();
  channels.set(channel, members);
  members.add(socket);
}

// Compression is off and nothing times out by default.
const options = { maxPayload: MAX_MESSAGE };
const server = createServer();
new WebSocketServer({ server, ...options }).on('connection', (socket) => {
  const joined = [];
  // Without a listener a connection that breaks would end the process.
  socket.on('error', () => {});
  socket.on('close', () => {
    for (const channel of joined) channels.get(channel).delete(socket);
  });
  socket.on('message', (data, isBinary) => {
    const kind = kindOf(data);
    if (kind === PUBLISH) {
      const members = channels.get(nameIn(data));
      for (const member of members) member.send(data, { binary: isBinary });
      return;
    }
    if (kind === JOIN) {
      const channel = nameIn(data);
      join(channel, socket);
      joined.push(channel);
    }
    socket.send(answer(data, kind), { binary: isBinary });
  });
});
server.listen(0, '127.0.0.1', 511, () => {
  ready({ port: server.address().port, version: require('ws/package.json').version, options });
});
