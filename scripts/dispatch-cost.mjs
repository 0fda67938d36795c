// node scripts/dispatch-cost.mjs [--storage none|used|entered] [--batch 16] [--messages 2000000]
//
// What the JavaScript between the addon and a handler costs for a message: batches of text messages are given by hand, and
// each handler answers with what it got. `--storage used` has each handler run in an `AsyncLocalStorage`, `entered` leaves
// one entered. On a busy machine instructions tell more than times: run it under
// `valgrind --tool=callgrind --smc-check=all-non-file` with 100,000 and with 200,000 messages, and take the difference.

import { AsyncLocalStorage, AsyncResource } from 'node:async_hooks';
import { createRequire } from 'node:module';
import { parseArgs } from 'node:util';

const { values } = parseArgs({
  options: {
    storage: { type: 'string', default: 'none' },
    batch: { type: 'string', default: '16' },
    messages: { type: 'string', default: '2000000' },
    /** Another checkout, to compare with. */
    package: { type: 'string', default: '..' },
  },
});
const [BATCH, MESSAGES] = [Number(values.batch), Number(values.messages)];
const BATCHES_PER_TURN = 7;
const ROUNDS = 5;

const require = createRequire(import.meta.url);
const addon = require(`${values.package}/index.node`);

/** A batch of text messages of 64 bytes from as many sockets, as src/batch.cts has it. */
function packBatch() {
  const [head, payload] = [28, 64];
  const batch = Buffer.alloc(BATCH * (head + payload), 'x');
  for (let n = 0; n < BATCH; n += 1) {
    const [message, textAndAscii, noToken] = [2, 3 << 8, 0xffff_ffff];
    const words = [message | textAndAscii, head + payload, n + 1, 0, noToken, payload, 0];
    for (const [at, word] of words.entries()) batch.writeUInt32LE(word, n * (head + payload) + 4 * at);
  }
  return batch;
}

const batch = packBatch();
let left = 0;
let onEvents;
let resource;
let sent = 0;
Object.assign(addon, {
  register(...args) {
    onEvents = args.find((arg) => typeof arg === 'function');
    // As the addon does it: the event loop enters what it was given at the registration.
    const given = args.at(-1);
    resource = typeof given === 'object' ? given : new AsyncResource('test');
    return 1;
  },
  take(_worker, store) {
    if (left === 0) return undefined;
    left -= 1;
    batch.copy(store);
    return batch.length;
  },
  send() {
    sent += 1;
    return true;
  },
  cork() {},
  uncork() {},
});

const { registerWorkerThread, send } = require(`${values.package}/lib/index.cjs`);
const storage = new AsyncLocalStorage();
const answer = (data, socketId) => void send(socketId, data);
const handlers = {
  none: answer,
  used: (data, socketId) => storage.run(socketId, answer, data, socketId),
  entered(data, socketId) {
    storage.enterWith(socketId);
    answer(data, socketId);
  },
};
registerWorkerThread({ handleSocketMessage: handlers[values.storage] });

function handle(messages) {
  for (let n = 0; n < messages; n += BATCH * BATCHES_PER_TURN) {
    left = BATCHES_PER_TURN;
    resource.runInAsyncScope(onEvents);
  }
}

handle(MESSAGES / 4);
let best = Number.POSITIVE_INFINITY;
for (let round = 0; round < ROUNDS; round += 1) {
  const began = process.hrtime.bigint();
  handle(MESSAGES / ROUNDS);
  best = Math.min(best, Number(process.hrtime.bigint() - began) / (MESSAGES / ROUNDS));
}
console.log(
  `${process.version}, storage ${values.storage}, batches of ${BATCH}: ${best.toFixed(1)} ns a message, ${sent} sent`,
);
