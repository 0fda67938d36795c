/** Runs a program of example/ as a user would, and talks to it with a client that is not ours. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import WebSocket from 'ws';
import { DEADLINE, within } from './waiting.mjs';

/** How long cargo may take to compile the engine on a slow machine. */
const COMPILING = 240_000;

const directory = fileURLToPath(new URL('../../example/', import.meta.url));

/** Starts a program of example/ on a free port, or the one in `env`, and waits for its address. Ended with the test `t`. */
export function startExample(t, script, env = {}) {
  return atItsAddress(runExample(t, script, { PORT: '0', ...env }), script);
}

/** Builds a Rust example of the engine and starts it, which takes as long as cargo has to compile. */
export function startRustExample(t, name) {
  const cargo = ['run', '--quiet', '--package', 'wsbroker-engine', '--example', name, '--', '127.0.0.1:0'];
  return atItsAddress(runProgram(t, 'cargo', cargo), name, COMPILING);
}

/** Waits until a program has told its address, and adds it to what is known of it. */
async function atItsAddress(child, script, milliseconds) {
  const address = () => /^listening on (http:\/\/\S+)$/m.exec(child.output)?.[1];
  await child.waitFor(address, `${script} prints its address`, milliseconds);
  const url = address();
  return Object.assign(child, { url, port: new URL(url).port, socketUrl: url.replace('http', 'ws') });
}

/** Starts a program of example/ and leaves it to the caller what to wait for. */
export function runExample(t, script, env) {
  return runProgram(t, process.execPath, [script], env);
}

function runProgram(t, command, args, env) {
  const child = spawn(command, args, {
    cwd: directory,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let ended = false;
  const exited = once(child, 'close').then(([code, signal]) => {
    ended = true;
    return { code, signal };
  });
  t.after(() => kill());

  const run = { output: '', errors: '', exited, waitFor, stop, kill };
  child.stdout.setEncoding('utf8').on('data', (text) => (run.output += text));
  child.stderr.setEncoding('utf8').on('data', (text) => (run.errors += text));
  return run;

  /** Waits until `condition()` is truthy; throws when the program ends before, or at the deadline. */
  async function waitFor(condition, what, milliseconds = DEADLINE) {
    const end = performance.now() + milliseconds;
    while (!condition()) {
      if (ended || performance.now() > end) {
        throw new Error(`${ended ? 'ended' : 'too late'} before: ${what}\n${run.output}${run.errors}`);
      }
      await delay(20);
    }
  }

  /** Asks the program to stop as a terminal or a service manager does. Resolves with `{ code, signal }`. */
  function stop(signal = 'SIGTERM') {
    child.kill(signal);
    return within(exited, `end after ${signal}`);
  }

  function kill() {
    child.kill('SIGKILL');
    return exited;
  }
}

/** A connected WebSocket whose messages wait, in their order, until `next()` asks for them. Ended with the test `t`. */
export async function connect(t, url, options) {
  const socket = new WebSocket(url, options);
  t.after(() => socket.terminate());
  const waiting = [];
  socket.on('message', (data, isBinary) => {
    waiting.push(isBinary ? data : data.toString());
    socket.emit('queued');
  });
  socket.on('error', () => {}); // 'close' follows, with 1006
  const closed = new Promise((resolve) => socket.once('close', (...args) => resolve(args))).then(([code, reason]) => ({
    code,
    reason: reason.toString(),
  }));
  await within(once(socket, 'open'), `connection to ${url}`);

  return {
    closed,
    send: (data) => socket.send(data),
    sendJson: (value) => socket.send(JSON.stringify(value)),
    close: (code, reason) => socket.close(code, reason),
    /** The next message: a string, or a Buffer for a binary one. */
    async next() {
      while (waiting.length === 0) {
        if (socket.readyState !== WebSocket.OPEN) throw new Error('closed before the next message');
        await within(Promise.race([once(socket, 'queued'), closed]), 'next message');
      }
      return waiting.shift();
    },
    async nextJson() {
      return JSON.parse(await this.next());
    },
    /** The next message, parsed, that fits; the ones before it are passed over. */
    async find(fits) {
      for (;;) {
        const message = await this.nextJson();
        if (fits(message)) return message;
      }
    },
  };
}

/** The HTTP status that a refused upgrade was answered with. */
export async function refusal(url, options) {
  const socket = new WebSocket(url, options);
  socket.on('error', () => {}); // 'unexpected-response' tells more
  const [, response] = await within(once(socket, 'unexpected-response'), `refusal of ${url}`);
  response.destroy();
  return response.statusCode;
}
