// The engine's log: silent unless asked for, one line for what a peer did wrong.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runsTo } from './helpers/program.mjs';

/** A server that is sent an unmasked frame, which no client may send, and stops when it has closed that socket. */
const VIOLATED = `
  const { connect } = await import('node:net');
  const { registerWorkerThread, start } = await import('wsbroker');
  const closed = new Promise((resolve) => {
    registerWorkerThread({ handleSocketClose: (socketId, token, code) => resolve(code) });
  });
  const server = start({ bind: '127.0.0.1:0' });
  const client = connect(server.address.port, '127.0.0.1');
  client.on('error', () => {});
  client.write('GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\n' +
    'Sec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n\\r\\n');
  client.once('data', () => client.write(Buffer.from([0x81, 0x01, 0x61])));
  console.log(await closed);
  client.destroy();
  await server.stop();`;

test('a broken protocol is one line at debug level', async () => {
  const log = await runsTo({ stdout: '1002' }, VIOLATED, { WSBROKER_LOG: 'debug' });
  const lines = log.split('\n').filter((line) => line.includes('unmasked_frame'));
  assert.equal(lines.length, 1, log);
  assert.match(lines[0], /DEBUG .*a peer broke the protocol.* code=1002/);
});

test('without the variable nothing is written', async () => {
  assert.equal(await runsTo({ stdout: '1002' }, VIOLATED, { WSBROKER_LOG: undefined }), '');
});

test('an unknown level is told and changes nothing', async () => {
  const log = await runsTo({ stdout: '1002' }, VIOLATED, { WSBROKER_LOG: 'loud' });
  assert.match(log, /^wsbroker: WSBROKER_LOG is off, error, warn, info, debug or trace, not 'loud'\n$/);
});
