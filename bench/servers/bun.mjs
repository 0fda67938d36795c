// Bun.serve, with its own publish.

import { answer, GREETING, JOIN, kindOf, MAX_MESSAGE, nameIn, PUBLISH, ready } from './protocol.mjs';

// No compression and 16 MiB of backpressure are its defaults; the timeout would close idle sockets after two minutes.
const options = { idleTimeout: 0, maxPayloadLength: MAX_MESSAGE };
const server = Bun.serve({
  hostname: '127.0.0.1',
  port: 0,
  fetch(request, server) {
    if (server.upgrade(request)) return undefined;
    if (request.method === 'GET') return new Response(GREETING);
    return request.bytes().then((body) => new Response(body));
  },
  websocket: {
    ...options,
    message(socket, data) {
      const kind = kindOf(data);
      if (kind === PUBLISH) {
        server.publish(nameIn(data), data);
        return;
      }
      if (kind === JOIN) socket.subscribe(nameIn(data));
      socket.send(answer(data, kind));
    },
  },
});
ready({ port: server.port, version: Bun.version, options });
