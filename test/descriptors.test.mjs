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
