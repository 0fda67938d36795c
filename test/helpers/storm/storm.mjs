/**
 * Random traffic, and the model that knows what must come of it.
 *
 * The test's own thread alone says who is in which channel, so of what it sends itself the receivers and their order are
 * known exactly: the calls of one thread arrive at a socket in their order, directly or through any channel. What clients
 * send is handled by the worker threads, which send it on; how far each got is in the ledger.
 */

import assert from 'node:assert/strict';
import { setImmediate as turn } from 'node:timers/promises';
import {
  broadcast,
  close,
  connections,
  copySubscriptions,
  getToken,
  send,
  sendToChannel,
  subscribe,
  unsubscribe,
} from 'wsbroker';
import { MAX_CONNECTIONS, MAX_MESSAGES } from '../ledger.mjs';
import { eventually, within } from '../waiting.mjs';
import { Connection, CUT, KICKED, LEFT, numbered, OPEN, OPENING } from './connection.mjs';

const SOCKETS = 200;
const CHANNELS = 20;
/** In these channels are residents only, so that it is known how many get what a worker thread publishes. */
const RESIDENT_CHANNELS = 10;

/** How often in relation something happens. */
const ACTIONS = {
  say: 300,
  publish: 120,
  direct: 200,
  broadcast: 2,
  join: 130,
  leave: 110,
  copy: 2,
  kick: 4,
  depart: 5,
  cut: 5,
  flinch: 2,
};

/** Actions in one turn of the event loop; then the clients get theirs. */
const ACTIONS_PER_TURN = 40;

/** While more than this is under way the test only listens, so that the sockets' limits are no part of it. */
const MAX_OUTSTANDING = 20_000;

export class Storm {
  #server;
  #ledger;
  #random;
  /** Those that the server may hold: all but the ones that it has closed, or has noticed the end of. */
  #connections = new Set();
  /** Those of them that are open and that nobody has ended. */
  #open = [];
  #knownIds = new Set();
  #channels = Array.from({ length: CHANNELS }, (_, n) => ({
    name: `channel ${n}`,
    isForResidents: n < RESIDENT_CHANNELS,
    members: new Set(),
  }));
  #lastNumber = 0;
  /** Every connection there ever was, by number - 1. */
  all = [];
  /** What clients said, by number - 1: `{ connection, toResidents }`. */
  said = [];
  /** How often a message that a handler sent on has come, by number. */
  received = new Uint16Array(MAX_MESSAGES);
  faults = [];

  constructor(server, ledger, random) {
    this.#server = server;
    this.#ledger = ledger;
    this.#random = random;
  }

  /** Runs until `isOver`; half of the sockets are residents. */
  async run(isOver) {
    for (let n = 0; n < SOCKETS; n += 1) this.#connect(n % 2 === 0);
    while (!isOver()) {
      for (let n = 0; n < ACTIONS_PER_TURN; n += 1) {
        this[this.#random.weighted(ACTIONS)]();
      }
      this.#forgetEnded();
      do await turn();
      while (this.#outstanding() > MAX_OUTSTANDING && !isOver());
    }
    // Handshakes that a terminated thread held are made anew.
    await eventually(() => assert.equal(this.#open.length, SOCKETS));
  }

  #outstanding() {
    return this.#open.reduce((sum, { outstanding }) => sum + outstanding, 0);
  }

  #anyOpen() {
    return this.#random.of(this.#open);
  }

  #fault(connection, text) {
    this.faults.push(`connection ${connection.number} (${connection.state}): ${text}`);
  }

  #expect(isRight, text) {
    if (!isRight) this.faults.push(text);
  }

  #connect(isResident) {
    const number = this.all.length + 1;
    assert.ok(number < MAX_CONNECTIONS);
    const connection = new Connection(this.#server, number, {
      isResident,
      decidesLater: this.#random.oneIn(4),
      reportFault: (...fault) => this.#fault(...fault),
      onDelivery: (message) => {
        this.received[message] += 1;
      },
    });
    this.all.push(connection);
    this.#connections.add(connection);
    connection.settled.then(() => this.#settle(connection));
    connection.closed.then(() => this.#gone(connection));
    return connection;
  }

  #settle(connection) {
    if (connection.state !== OPENING) return;
    if (!connection.hasOpened) {
      this.#expect(connection.refused === 503, `a handshake was refused with ${connection.refused}`);
      this.#replace(connection);
      return;
    }
    for (const id of connections()) {
      const token = this.#knownIds.has(id) ? undefined : getToken(id);
      if (token === undefined) continue; // gone in between, or known
      this.#knownIds.add(id);
      this.all[Number(token) - 1].id = id;
    }
    this.#expect(connection.id !== undefined, `connection ${connection.number} is open and not in connections()`);
    connection.state = OPEN;
    this.#open.push(connection);
  }

  #gone(connection) {
    if (connection.state === OPEN) {
      this.#fault(connection, `was closed with ${connection.seenCloseCode} by nobody`);
      this.#replace(connection);
    }
    if (connection.state !== KICKED) return;
    const { missing, seenCloseCode, closeCode } = connection;
    this.#expect(missing.length === 0, `connection ${connection.number} was closed before it got ${missing}`);
    this.#expect(seenCloseCode === closeCode, `a client saw the code ${seenCloseCode} instead of ${closeCode}`);
  }

  /** The connection has no further part; another one takes its place. */
  #replace(connection) {
    this.#connections.delete(connection);
    this.#connect(connection.isResident);
  }

  /** The connection is ended, by the server or by its client; the server may take a client for a member until it notices. */
  #end(connection, state, closeCode) {
    if (connection.state === OPEN) this.#open.splice(this.#open.indexOf(connection), 1);
    connection.state = state;
    connection.closeCode = closeCode;
    if (state === KICKED) for (const channel of connection.channels) channel.members.delete(connection);
    this.#replace(connection);
    if (state !== KICKED) this.#connections.add(connection);
  }

  /** Those that their clients have ended are forgotten when the server has noticed. */
  #forgetEnded() {
    for (const connection of this.#connections) {
      const { number, state, channels } = connection;
      if ((state !== LEFT && state !== CUT) || Atomics.load(this.#ledger.closes, number) === 0) continue;
      this.#connections.delete(connection);
      for (const { members } of channels) members.delete(connection);
    }
  }

  /** Sends to all of these: those that are open must get it, those that are opening or have ended may. */
  #deliver(candidates, call) {
    this.#lastNumber += 1;
    const count = call(numbered(this.#lastNumber));
    let certain = 0;
    for (const connection of candidates) {
      connection.expect(this.#lastNumber);
      if (connection.state === OPEN) certain += 1;
    }
    const isRight = count >= certain && count <= candidates.size;
    this.#expect(isRight, `queued for ${count} of ${certain} to ${candidates.size} sockets`);
  }

  publish() {
    const { name, members } = this.#random.of(this.#channels);
    const except = this.#random.oneIn(4) ? this.#random.of([...members]) : undefined;
    const candidates = new Set(members);
    candidates.delete(except);
    this.#deliver(candidates, (data) => sendToChannel(name, data, { except: except?.id }));
  }

  broadcast() {
    this.#deliver(this.#connections, broadcast);
  }

  direct() {
    const connection = this.#random.of([...this.#connections]);
    if (connection.id === undefined) return;
    this.#lastNumber += 1;
    const isQueued = send(connection.id, numbered(this.#lastNumber));
    if (isQueued) connection.expect(this.#lastNumber);
    this.#expect(isQueued || connection.state !== OPEN, 'a socket that is open did not take a message');
  }

  join() {
    const connection = this.#anyOpen();
    const channel = this.#random.of(this.#channels);
    if (!connection || (channel.isForResidents && !connection.isResident)) return;
    const isNew = !channel.members.has(connection);
    channel.members.add(connection);
    connection.channels.add(channel);
    this.#expect(subscribe(connection.id, channel.name) === isNew, `subscribe did not answer ${isNew}`);
  }

  leave() {
    const connection = this.#anyOpen();
    const channel = this.#random.of(connection ? [...connection.channels] : []);
    if (!channel) return;
    channel.members.delete(connection);
    connection.channels.delete(channel);
    this.#expect(unsubscribe(connection.id, channel.name), 'unsubscribe of a member did not answer true');
  }

  /** Between the channels of residents, where the number is known. */
  copy() {
    const [from, to] = [0, 0].map(() => this.#random.of(this.#channels.slice(0, RESIDENT_CHANNELS)));
    const added = [...from.members].filter((connection) => !to.members.has(connection));
    for (const connection of added) {
      to.members.add(connection);
      connection.channels.add(to);
    }
    const count = copySubscriptions(from.name, to.name);
    this.#expect(count === added.length, `copySubscriptions answered ${count} instead of ${added.length}`);
  }

  /** A client says something to its handler, which sends it back, to another socket or to a channel. */
  say() {
    const connection = this.#anyOpen();
    if (connection) this.#say(connection, this.#random.weighted({ echo: 3, direct: 3, publish: 1 }));
  }

  #say(connection, what) {
    const number = this.said.length + 1;
    assert.ok(number < MAX_MESSAGES);
    connection.sequence += 1;
    const message = { number, connection: connection.number, sequence: connection.sequence };
    let toResidents = connection.isResident;
    if (what === 'direct') {
      const target = this.#anyOpen();
      message.to = target.id;
      toResidents = target.isResident;
    }
    if (what === 'publish') {
      const channel = this.#random.of(this.#channels);
      message.channel = channel.name;
      toResidents = channel.isForResidents;
    }
    if (this.#random.oneIn(10)) message.later = true;
    if (this.#random.oneIn(20)) message.pad = 'y'.repeat(this.#random.below(20_000));
    this.said.push({ connection, toResidents });
    connection.client.send(JSON.stringify(message));
    return number;
  }

  kick() {
    const connection = this.#anyOpen();
    if (!connection) return;
    const code = 4000 + this.#random.below(1000);
    this.#expect(close(connection.id, code, 'kicked'), 'close of an open socket did not answer true');
    this.#expect(!send(connection.id, 'x'), 'a closed socket took a message');
    this.#end(connection, KICKED, code);
  }

  depart() {
    const connection = this.#anyOpen();
    if (!connection || connection.isResident) return;
    const code = 3000 + this.#random.below(1000);
    connection.client.close(code, 'leaving');
    this.#end(connection, LEFT, code);
  }

  cut() {
    const connection = this.#anyOpen();
    if (!connection || connection.isResident) return;
    connection.client.terminate();
    this.#end(connection, CUT, 1006);
  }

  /** A client that is gone before its handshake is over. */
  flinch() {
    const isOpening = ({ state, isResident }) => state === OPENING && !isResident;
    const connection = [...this.#connections].find(isOpening);
    if (!connection) return;
    connection.client.terminate();
    this.#end(connection, CUT, 1006);
  }

  /** Waits until everything that was said has been handled, and everything that was sent has come. */
  async calm() {
    // Behind all that a socket said before comes its last message, and the handler's answer to it.
    const last = this.#open.map((connection) => this.#say(connection, 'echo'));
    await eventually(() => assert.equal(last.filter((number) => this.received[number] !== 1).length, 0));
    await eventually(() => assert.equal(this.#outstandingForCertain(), 0));
  }

  #outstandingForCertain() {
    return this.#open.reduce((sum, { missing }) => sum + missing.length, 0);
  }

  /** Stops the server, which closes those that are left. */
  async end() {
    const left = this.#open.splice(0);
    for (const connection of left) {
      connection.state = KICKED;
      connection.closeCode = 1001;
    }
    const summary = await this.#server.stop({ timeout: 10_000 });
    await within(Promise.all(this.all.map(({ closed }) => closed)), 'all clients are closed');
    this.#connections.clear();
    return { summary, left: left.length };
  }
}
