// Deno.serve. It has no publish: a channel is a Set, a publish a loop over it, as its users write it.

import { Buffer } from 'node:buffer';
import process from 'node:process';
import { answer, GREETING, JOIN, kindOf, nameIn, PUBLISH, ready } from './protocol.mjs';

globalThis.Buffer ??= Buffer;
globalThis.process ??= process;

const channels = new Map();

function join(channel, socket) {
  let members = channels.get(channel);
  if (!members) channels.set(channel, (members = new Set()));
  members.add(socket);
  (socket.channels ??= []).push(channel);
}

function serve(socket) {
  socket.binaryType = 'arraybuffer';
  socket.onerror = () => {};
  socket.onclose = () => {
    for (const channel of socket.channels ?? []) channels.get(channel).delete(socket);
  };
  socket.onmessage = ({ data }) => {
    const message = typeof data === 'string' ? data : new Uint8Array(data);
    const kind = kindOf(message);
    if (kind === PUBLISH) {
      for (const member of channels.get(nameIn(message))) member.send(data);
      return;
    }
    if (kind === JOIN) join(nameIn(message), socket);
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
