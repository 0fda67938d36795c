// The rounds of the stress, in a process of their own. Arguments: the seed, how many seconds, how many I/O threads.
//
// What must hold, whatever clients and threads do:
//
// - every socket that opened has one close event, over all threads; those that a thread ended with are counted;
// - the messages of a client come in their order, none twice, and no answer reaches another client;
// - who stays in a channel gets everything that is published to it, in order;
// - `stop` resolves within its timeout;
// - afterwards nothing is open, subscribed, pending or queued, every thread has ended, and descriptors and memory are back;
// - no promise is rejected without somebody who hears of it.

import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import {
  ban,
  bufferedAmount,
  channelCount,
  connections,
  sendToChannel,
  start,
  stats,
  subscribers,
  unban,
} from 'wsbroker';
import { Ledger, MAX_CONNECTIONS, MAX_MESSAGES } from '../../test/helpers/ledger.mjs';
import { Random } from '../../test/helpers/random.mjs';
import { eventually, within } from '../../test/helpers/waiting.mjs';
import { settledMemory } from '../settled-memory.mjs';
import { ACTIONS, BANNED_ADDRESS, Client, Resident } from './clients.mjs';
import { Threads } from './threads.mjs';

/** A round is what the ledger has room for. The first one fills the pools of V8 and of the allocator. */
const ROUND_SECONDS = 20;
const WARM_UP_SECONDS = 5;

const WORKERS = 3;
const RESIDENTS = 10;
const MAX_CLIENTS = 120;

/** A busy machine is no failure, in ms. */
const MARGIN = 10_000;

/** By how much the process may have grown behind all rounds, in bytes, and in descriptors. */
const MEMORY_TOLERANCE = 24 << 20;
const DESCRIPTOR_TOLERANCE = 2;

const [seed, seconds, ioThreads] = process.argv.slice(2).map(Number);
const OPTIONS = {
  bind: '127.0.0.1:0',
  ioThreads,
  handlerTimeout: 400,
  closeTimeout: 500,
  headerTimeout: 1000,
  requestTimeout: 2000,
  heartbeat: { interval: 1000, timeout: 4000 },
  maxBackpressure: 1 << 20,
};

process.on('unhandledRejection', (reason) =>
  fail(`a promise was rejected and nobody heard: ${reason?.stack ?? reason}`),
);

try {
  console.log(`warm-up: ${await round(new Random(seed ^ 1), Math.min(WARM_UP_SECONDS, seconds))}`);
  const before = { ...(await settledMemory()), descriptors: descriptors() };
  const end = performance.now() + seconds * 1000;
  for (let n = 0; performance.now() < end; n += 1) {
    const left = (end - performance.now()) / 1000;
    console.log(`round ${n + 1}: ${await round(new Random(seed + n), Math.min(ROUND_SECONDS, left))}`);
  }
  const after = { ...(await settledMemory()), descriptors: descriptors() };
  const grown = (what) => after[what] - before[what];
  console.log(`grown by ${mebibytes(grown('outside'))} outside of the heap and ${grown('descriptors')} descriptors`);
  // What the allocators keep of a moment says little.
  if (seconds > ROUND_SECONDS) assert.ok(grown('outside') < MEMORY_TOLERANCE, 'memory is not back');
  assert.ok(grown('descriptors') <= DESCRIPTOR_TOLERANCE, 'descriptors are not back');
} catch (error) {
  fail(error.stack);
}

function fail(text) {
  console.error(`seed ${seed}, ${ioThreads} I/O threads: ${text}`);
  process.exit(1);
}

async function round(random, duration) {
  const world = {
    random,
    ledger: new Ledger(),
    faults: [],
    clients: new Set(),
    counts: Object.fromEntries(Object.keys(ACTIONS).map((name) => [name, 0])),
    made: 0,
    messages: 0,
    isOver: false,
  };
  const before = stats();
  const threads = new Threads(world);
  await threads.start(WORKERS);
  const server = start(OPTIONS);
  world.servers = [server];
  // Threads end with the last server, and what stands behind a handler that takes long would have to wait for others.
  const keeper = start(OPTIONS);
  const residents = Array.from({ length: RESIDENTS }, () => new Resident(world, server));
  await within(Promise.all(residents.map(({ opened }) => opened)), 'the residents are open', MARGIN);

  const end = performance.now() + duration * 1000;
  const isOver = () => {
    world.isOver ||= performance.now() > end || world.faults.length > 0 || isFull(world);
    return world.isOver;
  };
  const published = await Promise.all([
    publish(world, isOver),
    act(world, isOver),
    threads.churn(isOver),
    comeAndGo(world, isOver),
    banNowAndThen(world, isOver),
  ]);
  assert.deepEqual(world.faults, []);

  await calm(residents, published[0]);
  for (const client of world.clients) client.leave();
  await stop(server, 2000);
  await within(Promise.all([...world.clients].map(({ gone }) => gone)), 'all clients are gone', MARGIN);
  const missing = await closeEvents(world, before, threads);
  await stop(keeper, 1000);
  await threads.endByThemselves();
  await emptyRegistries();
  return check(world, before, threads, missing);
}

function isFull({ made, messages }) {
  return made > MAX_CONNECTIONS * 0.8 || messages > MAX_MESSAGES * 0.8;
}

/** Numbers to a channel in which the residents stay; how many there were. */
async function publish({ random }, isOver) {
  let number = 0;
  while (!isOver()) {
    for (let n = random.below(5); n >= 0; n -= 1) {
      number += 1;
      const text = `p ${number} ${'x'.repeat(random.below(500))}`;
      sendToChannel('residents', random.oneIn(3) ? Buffer.from(text) : text);
    }
    await delay(random.below(5));
  }
  return number;
}

/** Clients come, do something and go. */
async function act(world, isOver) {
  const { random, clients, counts } = world;
  while (!isOver()) {
    if (clients.size < MAX_CLIENTS) {
      const name = random.weighted(ACTIONS);
      counts[name] += 1;
      new Client(world, random.of(world.servers), name);
    }
    await delay(random.below(3));
  }
}

/** Servers beside the first one, which are stopped while they are busy. */
async function comeAndGo(world, isOver) {
  const { random } = world;
  while (!isOver()) {
    const server = start(OPTIONS);
    world.servers.push(server);
    await delay(50 + random.below(500));
    world.servers.splice(world.servers.indexOf(server), 1);
    await stop(server, random.of([0, 1, 50, 300]), random.oneIn(3) ? random.below(100) : undefined);
  }
}

async function stop(server, timeout, spread) {
  const begin = performance.now();
  const summary = await within(
    server.stop({ timeout, ...(spread && timeout > spread ? { spread } : {}) }),
    'stop',
    timeout + MARGIN,
  );
  const took = performance.now() - begin;
  assert.ok(took < timeout + MARGIN, `stop({ timeout: ${timeout} }) took ${took} ms: ${JSON.stringify(summary)}`);
}

async function banNowAndThen({ random }, isOver) {
  while (!isOver()) {
    await delay(random.below(300));
    ban(BANNED_ADDRESS, 0.02 + random.below(100) / 1000);
    if (random.oneIn(3)) unban(BANNED_ADDRESS);
  }
}

/** Everything that was published has come, and no thread that is idle has anything queued. */
async function calm(residents, published) {
  await eventually(() => {
    for (const resident of residents) assert.equal(resident.last, published, 'the last that was published has come');
  }, MARGIN);
  await eventually(() => {
    for (const id of subscribers('residents')) assert.equal(bufferedAmount(id), 0);
    for (const { queuedEvents, full } of stats().workers)
      assert.deepEqual({ queuedEvents, full }, { queuedEvents: 0, full: false });
  }, MARGIN);
}

async function emptyRegistries() {
  await eventually(() => {
    const { connections: open, channels, subscriptions, pendingRequests, listeners, pausedSockets, workers } = stats();
    assert.deepEqual(
      { open, channels, subscriptions, pendingRequests, listeners, pausedSockets, workers },
      { open: 0, channels: 0, subscriptions: 0, pendingRequests: 0, listeners: 0, pausedSockets: 0, workers: [] },
    );
  }, MARGIN);
  assert.deepEqual([channelCount(), [...connections()]], [0, []]);
}

/**
 * Every socket that has opened has closed, and its close event has come.
 *
 * @returns how many are missing: a thread may be terminated between the call of a close handler and its first statement,
 *   which is the record here
 */
async function closeEvents({ ledger }, before, threads) {
  const missing = () => {
    const { opened, closed } = stats();
    assert.equal(closed - before.closed, opened - before.opened, 'every socket has closed');
    return opened - before.opened - ledger.closes.reduce((sum, count) => sum + count, 0);
  };
  // One behind a handler that takes long comes when its time is over.
  await eventually(() => assert.equal(missing(), 0), MARGIN).catch(() => {});
  const mayBeMissing = 1 + Math.floor(threads.ended / 20);
  assert.ok(missing() >= 0 && missing() <= mayBeMissing, `${missing()} close events are missing`);
  return missing();
}

function check({ ledger, faults, made, messages, counts }, before, threads, missing) {
  assert.deepEqual(faults, []);
  assert.deepEqual(ledger.faultsSeen(), {});
  const { opened, dropped } = stats();
  const lost = dropped.workerEnded - before.dropped.workerEnded;
  const what = Object.entries(counts).map(([name, count]) => `${name} ${count}`);
  return (
    `${made} clients (${what.join(', ')}), ${opened - before.opened} sockets, ${messages} messages, ` +
    `${threads.ended} threads ended with ${lost} messages, ${missing} close events missing`
  );
}

function descriptors() {
  return process.platform === 'linux' ? readdirSync('/proc/self/fd').length : 0;
}

function mebibytes(bytes) {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}
