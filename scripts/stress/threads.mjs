/** The worker threads of the stress: they are terminated, or unregister and end by themselves, and others take their place. */

import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { within } from '../../test/helpers/waiting.mjs';

const PROGRAM = new URL('thread.mjs', import.meta.url);

const WAYS = { terminate: 2, retire: 1 };

/** In ms. */
const DEADLINE = 20_000;

export class Threads {
  #world;
  #alive = [];
  ended = 0;

  constructor(world) {
    this.#world = world;
  }

  async start(count) {
    while (this.#alive.length < count) {
      const seed = this.#world.random.below(2 ** 32);
      const worker = new Worker(PROGRAM, { workerData: { memory: this.#world.ledger.memory, seed } });
      worker.on('error', (error) => this.#world.faults.push(`a thread failed: ${error.stack}`));
      const exited = once(worker, 'exit');
      await within(once(worker, 'message'), 'a thread registers', DEADLINE);
      worker.on('message', (fault) => this.#world.faults.push(fault));
      this.#alive.push({ worker, exited });
    }
  }

  async churn(isOver) {
    const { random } = this.#world;
    const count = this.#alive.length;
    while (!isOver()) {
      await delay(100 + random.below(600));
      // A successor first, or after a while without anybody.
      if (random.oneIn(2)) await this.start(count + 1);
      const [victim] = this.#alive.splice(random.below(this.#alive.length), 1);
      if (random.weighted(WAYS) === 'terminate') {
        await victim.worker.terminate();
      } else {
        victim.worker.postMessage('retire');
        await delay(random.below(200));
        await victim.worker.terminate();
      }
      this.ended += 1;
      await this.start(count);
    }
  }

  /** Behind the last server nothing holds a thread any more. */
  async endByThemselves() {
    await within(Promise.all(this.#alive.map(({ exited }) => exited)), 'all threads end', DEADLINE);
  }
}
