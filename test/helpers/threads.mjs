/** Worker threads for the tests, see test/fixtures/thread.mjs. */

import assert from 'node:assert/strict';
import { Worker } from 'node:worker_threads';
import { stopAll } from './serving.mjs';
import { within } from './waiting.mjs';

const FIXTURE = new URL('../fixtures/thread.mjs', import.meta.url);

/** One thread: `events` has what it told, `finished` how many messages it has handled. */
class Thread {
  #shared = new Int32Array(new SharedArrayBuffer(8));
  #watchers = new Set();
  events = [];

  constructor(workerData) {
    this.worker = new Worker(FIXTURE, { workerData: { ...workerData, shared: this.#shared.buffer }, stderr: true });
    this.id = this.worker.threadId;
    this.ended = new Promise((resolve) => this.worker.on('exit', resolve));
    this.worker.on('error', () => {}); // a test that lets it crash looks at the exit code
    this.worker.on('message', (event) => {
      this.events.push(event);
      for (const watch of this.#watchers) watch();
    });
  }

  get finished() {
    return Atomics.load(this.#shared, 0);
  }

  /** Events of a kind, without their kind. */
  of(kind) {
    return this.events.filter(([first]) => first === kind).map(([, ...rest]) => rest);
  }

  /** Waits until the thread has told of `count` events of a kind; gives the last of these. */
  told(kind, count = 1) {
    let watch;
    const arrived = new Promise((resolve) => {
      watch = () => this.of(kind).length >= count && resolve(this.of(kind)[count - 1]);
      this.#watchers.add(watch);
      watch();
    });
    return within(arrived, `thread ${this.id} tells of ${count} ${kind}`).finally(() => this.#watchers.delete(watch));
  }
}

/** Starts threads one after the other, so that sockets are dealt to them in this order. Ended with the test. */
export async function startThreads(t, count, workerData = {}) {
  const threads = [];
  for (let n = 0; n < count; n += 1) {
    const thread = new Thread(workerData);
    t.after(async () => {
      await stopAll(); // while there is somebody to handle the close events
      await thread.worker.terminate();
    });
    threads.push(thread);
    await thread.told('ready');
  }
  return threads;
}

/** Asks over a client's socket; the answer to `who` is the id of the thread that handles it. */
export async function ask(client, question = 'who') {
  client.send(question);
  return client.inbox.next(`an answer to '${question}'`);
}

export async function handlerOf(client, threads) {
  const id = Number(await ask(client));
  const thread = threads.find((one) => one.id === id);
  assert.ok(thread, `thread ${id} is one of ${threads.map((one) => one.id)}`);
  return thread;
}
