// A worker thread of the stress: it does what the clients say, and writes what happens into the ledger.

import { setTimeout as delay } from 'node:timers/promises';
import { parentPort, workerData } from 'node:worker_threads';
import {
  broadcast,
  close,
  copySubscriptions,
  registerWorkerThread,
  send,
  sendToChannel,
  setMessageRoute,
  setToken,
  subscribe,
  unsubscribe,
} from 'wsbroker';
import { Ledger } from '../../test/helpers/ledger.mjs';
import { Random } from '../../test/helpers/random.mjs';

const ledger = new Ledger(workerData.memory);
const random = new Random(workerData.seed);
const never = new Promise(() => {});
const large = 'l'.repeat(200_000);

const registration = registerWorkerThread({
  /** The query is the connection's number and what kind of client it is. */
  async handleSocketUpgrade({ query }) {
    const [token, kind] = query.split('&');
    if (random.oneIn(5)) await delay(random.below(20));
    if (kind === 'refuse') return { status: 403 };
    return { token, channels: kind === 'resident' ? ['residents'] : ['clients'] };
  },

  handleSocketOpen: (_socketId, _request, token) => ledger.opened(ledger.connection(token)),

  handleSocketMessage(data, socketId, token) {
    const [number, sequence, what] = data
      .toString('latin1', 0, 100)
      .split(' ')
      .map((part, at) => (at < 2 ? Number(part) : part));
    const connection = ledger.connection(token);
    ledger.begun(number, connection, sequence);
    return act(what, `e ${connection} ${sequence} `, socketId, data);
  },

  handleSocketClose: (_socketId, token, code) => ledger.closed(ledger.connection(token), code),

  async handleHttpRequest({ query, body }) {
    const [number, what] = query.split('&');
    if (what === 'later') await delay(random.below(50));
    if (what === 'never') await never;
    if (what === 'throw') throw new Error('asked for');
    return { body: `${number} ${body?.length ?? 0}` };
  },

  // Errors are asked for, and time-outs of handlers.
  handleError() {},
});

function act(what, answer, socketId, data) {
  switch (what) {
    case 'echo':
      send(socketId, answer + data.toString());
      return undefined;
    case 'bytes':
      send(socketId, Buffer.from(answer));
      return undefined;
    case 'later':
      return delay(random.below(50)).then(() => send(socketId, answer));
    case 'never':
      return never;
    case 'throw':
      throw new Error('asked for');
    case 'block': {
      const end = performance.now() + random.below(50);
      while (performance.now() < end);
      send(socketId, answer);
      return undefined;
    }
    case 'flood':
      for (let n = 0; n < 20; n += 1) send(socketId, large);
      return undefined;
    case 'join':
      for (let n = 0; n < 20; n += 1) subscribe(socketId, `channel ${random.below(200)}`);
      copySubscriptions('clients', `channel ${random.below(200)}`);
      send(socketId, answer);
      return undefined;
    case 'leave':
      for (let n = 0; n < 20; n += 1) unsubscribe(socketId, `channel ${random.below(200)}`);
      sendToChannel(`channel ${random.below(200)}`, 'to a channel', { except: socketId });
      send(socketId, answer);
      return undefined;
    case 'broadcast':
      broadcast('to all');
      send(socketId, answer);
      return undefined;
    case 'token':
      // The same in other memory.
      setToken(socketId, Buffer.from(answer.split(' ')[1]));
      send(socketId, answer);
      return undefined;
    case 'route':
      send(socketId, answer);
      setMessageRoute(socketId, 'echo');
      return undefined;
    case 'kick':
      close(socketId, 4000, 'kicked');
      return undefined;
    default:
      parentPort.postMessage(`a message that nobody has sent: ${data}`);
      return undefined;
  }
}

process.on('unhandledRejection', (reason) =>
  parentPort.postMessage(`a promise was rejected: ${reason?.stack ?? reason}`),
);
parentPort.on('message', () => registration.unregister());
parentPort.unref();
parentPort.postMessage('ready');
