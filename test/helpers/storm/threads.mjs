/** The worker threads of the invariant test, of which one after the other is ended and replaced. */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { BLOCK, DONE, EXIT, HANG } from '../ledger.mjs';
import { within } from '../waiting.mjs';

const FIXTURE = new URL('../../fixtures/invariants-thread.mjs', import.meta.url);

/** How a thread ends, and how often in relation. */
const WAYS = { terminate: 3, block: 3, hang: 3, exit: 1 };
const ORDERS = { block: BLOCK, hang: HANG, exit: EXIT };

export class Threads {
  #ledger;
  #random;
  #alive = [];
  #started = 0;
  ended = 0;

  constructor(ledger, random) {
    this.#ledger = ledger;
    this.#random = random;
  }

  async start(count) {
    while (this.#alive.length < count) {
      const cell = this.#started;
      this.#started += 1;
      const worker = new Worker(FIXTURE, { workerData: { memory: this.#ledger.memory, cell } });
      await within(once(worker, 'message'), 'a thread registers');
      this.#alive.push({ worker, cell, exited: once(worker, 'exit') });
    }
  }

  /** Ends and replaces threads until `isOver`. */
  async churn(isOver) {
    while (!isOver()) {
      await delay(100 + this.#random.below(500));
      await this.#replaceOne(this.#random.weighted(WAYS), 20 + this.#random.below(200));
    }
  }

  async #replaceOne(way, pause) {
    const [victim] = this.#alive.splice(this.#random.below(this.#alive.length), 1);
    const count = this.#alive.length + 1;
    if (way !== 'terminate') {
      Atomics.store(this.#ledger.orders, victim.cell, ORDERS[way]);
      // A thread that happens to have no socket never comes to it, and is ended all the same.
      for (let n = 0; n < 50 && Atomics.load(this.#ledger.orders, victim.cell) !== DONE; n += 1) await delay(5);
      // Meanwhile events pile up behind the blocked handler or the promise.
      await delay(pause);
    }
    if (way === 'exit' && Atomics.load(this.#ledger.orders, victim.cell) === DONE) {
      await within(victim.exited, 'a thread exits');
    } else {
      await victim.worker.terminate();
    }
    this.ended += 1;
    await this.start(count);
  }

  /** Behind the last server nothing holds a thread any more. */
  async endByThemselves() {
    const codes = await within(Promise.all(this.#alive.map(({ exited }) => exited)), 'all threads end');
    assert.deepEqual(codes, Array(this.#alive.length).fill([0]));
  }
}
