// The server that is attacked, in a process of its own: it echoes messages and answers requests. Argument: the start
// options as JSON. It tells its address, and what it has counted whenever it is asked.

import { registerWorkerThread, send, start, stats } from 'wsbroker';

registerWorkerThread({
  handleHttpRequest: ({ body }) => ({ body: `${body.length} bytes` }),
  handleSocketMessage: (data, socketId) => void send(socketId, data),
});

const server = start({ bind: '127.0.0.1:0', ...JSON.parse(process.argv[2]) });
process.on('message', () => process.send(stats()));
process.on('disconnect', () => process.exit());
process.send(server.address);
