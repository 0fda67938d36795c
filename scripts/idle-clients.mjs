// Many sockets that are open and say next to nothing, held by processes of their own, so that neither their memory nor
// their descriptors are the server's.

import { fork } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const PROGRAM = fileURLToPath(new URL('idle-client-process.mjs', import.meta.url));

/** Sockets per process: the handshakes of several processes are made at the same time. */
const SOCKETS_PER_PROCESS = 2500;

/** What a server with these sockets needs beside them: files, listeners, the event loops' own descriptors. */
const OTHER_DESCRIPTORS = 200;

/** Why this machine cannot hold so many sockets in one process, or undefined. Node uses the hard limit by itself. */
export function tooManySockets(count) {
  if (process.platform !== 'linux') return undefined;
  const [, hardLimit] = /^Max open files\s+\S+\s+(\S+)/m.exec(readFileSync('/proc/self/limits', 'utf8')) ?? [];
  if (hardLimit === 'unlimited' || Number(hardLimit) >= count + OTHER_DESCRIPTORS) return undefined;
  return `${count} sockets need ${count + OTHER_DESCRIPTORS} file descriptors, this process may have ${hardLimit} (ulimit -Hn)`;
}

export class IdleClients {
  #processes = [];

  /** `compressed`: the bytes of a first message that is compressed (permessage-deflate is offered), 0 for a plain one. */
  constructor({ host, port }, count, { compressed = 0 } = {}) {
    for (let left = count; left > 0; left -= SOCKETS_PER_PROCESS) {
      const sockets = Math.min(left, SOCKETS_PER_PROCESS);
      this.#processes.push(new ClientProcess([host, String(port), String(sockets), String(compressed)]));
    }
  }

  /** Every socket is open, has sent one message and got it back, and nothing else. */
  open() {
    return this.#all('open');
  }

  /** Every socket got one more message, which is this. Call it before the message is sent. */
  receive(message) {
    return this.#all('receive', message);
  }

  /** Every socket was closed by the server with this code. Call it before they are. */
  closed(code) {
    return this.#all('closed', code);
  }

  /** Ends the processes, and with them their sockets, without a close frame. */
  async end() {
    await Promise.all(this.#processes.map((each) => each.end()));
  }

  async #all(...command) {
    await Promise.all(this.#processes.map((each) => each.ask(command)));
  }
}

class ClientProcess {
  #child;
  #exited;

  constructor(args) {
    this.#child = fork(PROGRAM, args);
    this.#exited = new Promise((resolve) => this.#child.once('exit', resolve));
  }

  /** Sends a command and waits for its answer: `done`, or what went wrong. */
  async ask(command) {
    const answered = new Promise((resolve) => this.#child.once('message', resolve));
    this.#child.send(command);
    const answer = await Promise.race([answered, this.#exited.then((code) => `the process ended with ${code}`)]);
    if (answer !== 'done') throw new Error(`idle clients: ${command.join(' ')}: ${answer}`);
  }

  async end() {
    this.#child.kill('SIGKILL');
    await this.#exited;
  }
}
