// node:http, for the HTTP rows.

import { createServer } from 'node:http';
import { GREETING, ready } from './protocol.mjs';

const server = createServer((request, response) => {
  if (request.method === 'GET') {
    response.end(GREETING);
    return;
  }
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', () => response.end(Buffer.concat(chunks)));
});
server.listen(0, '127.0.0.1', 511, () => {
  ready({ port: server.address().port, version: process.versions.node, options: {} });
});
