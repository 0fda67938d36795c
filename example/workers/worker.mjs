/** One of the workers: tells what it handles, and publishes every message to the sockets of all workers. */
import { workerData as number, parentPort } from 'node:worker_threads';
import { registerWorkerThread, sendToChannel } from 'wsbroker';

registerWorkerThread({
  handleHttpRequest(request) {
    console.log(`worker ${number}: ${request.method} ${request.path}`);
    return { headers: { 'content-type': 'text/plain' }, body: `answered by worker ${number}\n` };
  },

  // The socket is in the channel before its first message can arrive.
  handleSocketUpgrade: () => ({ channels: ['everyone'] }),

  handleSocketOpen(socketId) {
    console.log(`worker ${number}: socket ${socketId} opened`);
  },

  handleSocketMessage(data, socketId) {
    const receivers = sendToChannel('everyone', `worker ${number}, socket ${socketId}: ${data}`);
    console.log(`worker ${number}: published a message of socket ${socketId} to ${receivers} sockets`);
  },

  handleSocketClose(socketId, _token, code) {
    console.log(`worker ${number}: socket ${socketId} closed with ${code}`);
  },
});

parentPort.postMessage('ready');
