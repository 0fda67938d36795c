// A process that may open no more descriptors: what fails is told, and leaves nothing behind.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runsTo } from './helpers/program.mjs';

const skip = process.platform === 'win32' && 'Windows has no such limit';

test('a start that gets too few descriptors fails, and the next one that needs fewer does not', { skip }, async () => {
  const program = `
    const { readdirSync } = await import('node:fs');
    const { registerWorkerThread, start, stats } = await import('wsbroker');
    registerWorkerThread({ handleHttpRequest: () => ({ body: 'served' }) });
    const open = () => readdirSync('/dev/fd').length;
    console.log(open() > 0); // which opens what a console needs
    const before = open();
    for (let n = 0; n < 3; n++) {
      try {
        start({ bind: '127.0.0.1:0', ioThreads: 64 });
      } catch (error) {
        console.log(error.code, open() - before, stats().ioThreads);
      }
    }
    const server = start({ bind: '127.0.0.1:0', ioThreads: 1 });
    const answer = await fetch('http://127.0.0.1:' + server.address.port);
    console.log(await answer.text());
    await server.stop();`;
  const failed = 'WSB_IO_ERROR 0 0';
  const stdout = ['true', failed, failed, failed, 'served'].join('\n');
  assert.equal(await runsTo({ stdout }, program, { WSBROKER_IO_THREADS: undefined }, { descriptors: 64 }), '');
});

/** Has more clients than descriptors twice, and is served when they have gone. */
const CROWDED = `
  const { connect } = await import('node:net');
  const { setTimeout: wait } = await import('node:timers/promises');
  const { registerWorkerThread, start, stats } = await import('wsbroker');
  registerWorkerThread({ handleHttpRequest: () => ({ body: 'served' }) });
  const server = start({ bind: '127.0.0.1:0', ioThreads: 1 });
  for (let n = 0; n < 2; n++) {
    const before = stats().acceptErrors;
    const clients = Array.from({ length: 30 }, () => connect(server.address.port, '127.0.0.1').on('error', () => {}));
    while (stats().acceptErrors === before) await wait(1);
    for (const client of clients) client.destroy();
    const answer = await fetch('http://127.0.0.1:' + server.address.port, { headers: { connection: 'close' } });
    console.log(await answer.text());
  }
  await server.stop();`;

test('connections that cannot be accepted are counted and told once', { skip }, async () => {
  const stdout = 'served\nserved';
  const unset = { WSBROKER_LOG: undefined };
  const log = await runsTo({ stdout }, CROWDED, unset, { descriptors: 64 });
  assert.match(log, /^\S+ ERROR wsbroker_engine\S* connections cannot be accepted .*acceptErrors.*open files.*\n$/);
  assert.equal(await runsTo({ stdout }, CROWDED, { WSBROKER_LOG: 'off' }, { descriptors: 64 }), '');
});
