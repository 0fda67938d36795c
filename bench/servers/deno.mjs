// Deno.serve. It has no publish: a channel is a Set, a publish a loop over it, as its users write it.

import { Buffer } from 'node:buffer';
import process from 'node:process';
import { answer, GREETING, JOIN, kindOf, nameIn, PUBLISH, ready } from './protocol.mjs';

globalThis.Buffer ??= Buffer;
globalThis.process ??= process;

const channels = new Map();

function join(channel, socket) {
  const members = channels.get(channel) ?? new Set();
  channels.set(channel, members);
  members.add(socket);
}

function serve(socket) {
  const joined = [];
  socket.binaryType = 'arraybuffer';
  socket.onerror = () => {};
  socket.onclose = () => {
    for (const channel of joined) channels.get(channel).delete(socket);
  };
  socket.onmessage = ({ data }) => {
    const message = typeof data === 'string' ? data : new Uint8Array(data);
    const kind = kindOf(message);
    if (kind === PUBLISH) {
      for (const member of channels.get(nameIn(message))) member.send(data);
      return;
    }
    if (kind === JOIN) {
      const channel = nameIn(message);
      join(channel, socket);
      joined.push(channel);
    }
    socket.send(answer(message, kind));
  };
}

// It would close a socket whose peer does not answer its pings within two minutes.
const options = { idleTimeout: 0 };
Deno.serve(
  {
    hostname: '127.0.0.1',
    port: 0,
    onListen: ({ port }) => ready({ port, version: Deno.version.deno, options }),
  },
  (request) => {
    if (request.headers.get('upgrade') === 'websocket') {
      const { socket, response } = Deno.upgradeWebSocket(request, options);
      serve(socket);
      return response;
    }
    if (request.method === 'GET') return new Response(GREETING);
    return request.arrayBuffer().then((body) => new Response(body));
  },
);
