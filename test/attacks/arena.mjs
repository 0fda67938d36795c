/**
 * A server, somebody who attacks it, and a well-behaved client beside that. Each has a process of its own; this one is the
 * client's.
 */

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import WebSocket from 'ws';
import { within } from '../helpers/waiting.mjs';
import { ATTACKS } from './attacks.mjs';

const SERVER = fileURLToPath(new URL('server.mjs', import.meta.url));
const ATTACKER = fileURLToPath(new URL('attacker.mjs', import.meta.url));

/** How long the neighbour waits from an echo to its next message, in ms. */
const PACE = 2;

/** How long an attacker may take to come to its end once its time is over, in ms. */
const LAST_WORDS = 60_000;

/**
 * @returns what the attacker got, the round trips of the neighbour in ms before and during the attack, and the server's
 * memory in bytes: resident before, and at most during it
 */
export async function fight(name, { quiet, duration }) {
  const { options = {} } = ATTACKS[name];
  const server = fork(SERVER, [JSON.stringify(options)]);
  const gone = once(server, 'exit').then(([code, signal]) => {
    throw new Error(`the server ended: ${code ?? signal}`);
  });
  gone.catch(() => {});
  const alive = (promise, what, deadline) => within(Promise.race([promise, gone]), what, deadline);
  let attacker;
  let neighbour;
  try {
    const [{ port }] = await alive(once(server, 'message'), 'the address of the server');
    neighbour = await alive(Neighbour.open(port), 'a neighbour');
    const before = await alive(neighbour.measure(delay(quiet)), 'the quiet time', quiet + LAST_WORDS);
    const memory = watchMemory(server.pid);
    attacker = fork(ATTACKER, [name, String(port), String(duration)]);
    const ended = once(attacker, 'message').then(([message]) => message);
    const outcome = ended.catch(() => {});
    const during = await alive(neighbour.measure(outcome), `the end of the attack: ${name}`, duration + LAST_WORDS);
    const measured = memory();
    const counts = await alive(calm(server), 'the end of what the attacker began');
    return { outcome: await ended, before, during, memory: measured, counts };
  } finally {
    neighbour?.close();
    attacker?.kill('SIGKILL');
    server.removeAllListeners('exit');
    server.kill('SIGKILL');
  }
}

/** What the server counts once only the neighbour is left. */
async function calm(server) {
  for (;;) {
    const answered = once(server, 'message');
    server.send('counts');
    const [counts] = await answered;
    const { connections, pendingRequests, opened, closed } = counts;
    // A socket has left before its close event has come.
    if (connections === 1 && pendingRequests === 0 && opened - closed === 1) return counts;
    await delay(10);
  }
}

/** A client that sends a message, waits for its echo, and so on. */
class Neighbour {
  #client;

  static async open(port) {
    const client = new WebSocket(`ws://127.0.0.1:${port}`, { perMessageDeflate: false });
    await once(client, 'open');
    return new Neighbour(client);
  }

  constructor(client) {
    this.#client = client;
  }

  /** Round trips until the promise is settled, in ms and in order of size. */
  async measure(until) {
    let over = false;
    until.then(() => {
      over = true;
    });
    const times = [];
    while (!over) {
      const sent = performance.now();
      const message = `message ${times.length}`;
      const echoed = once(this.#client, 'message');
      this.#client.send(message);
      const [data] = await within(echoed, 'the echo of the neighbour');
      if (data.toString() !== message) throw new Error(`the neighbour got ${data} for ${message}`);
      times.push(performance.now() - sent);
      await delay(PACE);
    }
    return times.sort((a, b) => a - b);
  }

  close() {
    this.#client.terminate();
  }
}

/** From now on the kernel notes the largest resident size of this process; gives a function that tells it. */
function watchMemory(pid) {
  const read = (what) => {
    const [, kibibytes] = new RegExp(`^${what}:\\s+(\\d+) kB`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
    return Number(kibibytes) * 1024;
  };
  writeFileSync(`/proc/${pid}/clear_refs`, '5');
  const resident = read('VmRSS');
  return () => ({ resident, peak: read('VmHWM') });
}
