// One measurement: a server is started, loaded, and ended.

import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { ROOT, StepFailed } from '../scripts/setup.mjs';
import { CONTENDERS, SERVERS, UWS_FOLDER } from './servers.mjs';

const LOAD = path.join(ROOT, 'target', 'release', 'wsbroker-load');

/** A server that is not ready after so long does not start, in ms. */
const START = 20_000;

/** A server that has not ended so long after it was told is killed, in ms. */
const END = 5000;

/** Beside the window: connecting, warming up, waiting for the last messages, in ms. */
const LOAD_BESIDE_WINDOW = 150_000;

/** To look where the cores are takes some ms. */
const LOOK = 10_000;

/** The load generator found faults and still told what it measured. */
const EXIT_FAULTS = 3;

export class Runner {
  #peers;
  #cores;
  #window;

  /**
   * @param {{ manifest: string, binaries: Record<string, string> }} peers
   * @param {{ server: number, load: number } | undefined} cores
   * @param {{ seconds: number, warmUp: number, warmUpCount: number }} window
   */
  constructor(peers, cores, window) {
    this.#peers = peers;
    this.#cores = cores;
    this.#window = window;
  }

  /**
   * Measures a work once.
   *
   * @returns {Promise<{ about?: object, report?: object, error?: string }>} `about`: what the server said of itself;
   *   `error`: why there is no report
   */
  async measure(work, contenderName) {
    const contender = CONTENDERS[contenderName];
    const pinned = work.placement === 'pinned';
    const server = this.#startServer(contender, pinned);
    try {
      const about = await ready(server);
      const { code, output, errors } = await this.#load(
        work,
        SERVERS[contender.server],
        server.pid,
        about.port,
        pinned,
      );
      if (code === 0 || code === EXIT_FAULTS) return { about, report: JSON.parse(output) };
      return { about, error: errors.trim() || `the load generator ended with ${code}` };
    } catch (error) {
      return { error: `${error.message}${server.errors ? `: ${server.errors.trim()}` : ''}` };
    } finally {
      await end(server.child);
    }
  }

  /** How far the two cores are from each other: from one to the other and back, in ns; `undefined` if that cannot be told. */
  distance() {
    const { server, load } = this.#cores;
    try {
      const output = execFileSync(LOAD, ['distance', String(server), String(load)], {
        encoding: 'utf8',
        timeout: LOOK,
      });
      return JSON.parse(output).details.nanoseconds;
    } catch {
      return undefined;
    }
  }

  #startServer({ server, env }, pinned) {
    const command = SERVERS[server].command(this.#peers.binaries);
    const [file, ...args] = pinned ? this.#on('server', command) : command;
    const child = spawn(file, args, {
      cwd: ROOT,
      env: { ...process.env, NODE_ENV: 'production', BENCH_PEERS: this.#peers.manifest, BENCH_UWS: UWS_FOLDER, ...env },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    const started = { child, pid: child.pid, errors: '' };
    child.stdin.on('error', () => {});
    child.stderr.setEncoding('utf8').on('data', (text) => {
      started.errors += text;
    });
    return started;
  }

  async #load(work, { dialect = 'plain' }, pid, port, pinned) {
    const { seconds, warmUp, warmUpCount } = this.#window;
    const own = ['--address', `127.0.0.1:${port}`, '--pid', String(pid), '--dialect', dialect];
    const window = ['--seconds', String(seconds), '--warm-up', String(warmUp)];
    if (!work.load.includes('--warm-up-count')) window.push('--warm-up-count', String(warmUpCount));
    const command = [LOAD, ...work.load, ...own, ...window];
    const [file, ...args] = pinned ? this.#on('load', command) : command;
    const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let [output, errors] = ['', ''];
    child.stdout.setEncoding('utf8').on('data', (text) => {
      output += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text) => {
      errors += text;
    });
    const timer = setTimeout(() => child.kill('SIGKILL'), seconds * 1000 + LOAD_BESIDE_WINDOW);
    const [code, signal] = await once(child, 'close');
    clearTimeout(timer);
    return { code: code ?? signal, output, errors };
  }

  #on(who, command) {
    if (!this.#cores) throw new StepFailed('two cores and `taskset` are needed to pin');
    return ['taskset', '--cpu-list', String(this.#cores[who]), ...command];
  }
}

/** What the server says when it listens. */
async function ready({ child }) {
  const lines = createInterface({ input: child.stdout });
  const timeout = AbortSignal.timeout(START);
  const line = await Promise.race([
    once(lines, 'line', { signal: timeout }).then(([text]) => text),
    once(child, 'exit', { signal: timeout }).then(() => undefined),
    once(child, 'error', { signal: timeout }).then(([error]) => Promise.reject(error)),
  ]).catch((error) => {
    throw error.name === 'AbortError' ? new Error('the server was not ready in time') : error;
  });
  if (line === undefined) throw new Error('the server ended before it was ready');
  return JSON.parse(line);
}

/** The end of its standard input tells a server to end. */
async function end(child) {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  const ended = once(child, 'exit');
  child.stdin.end();
  const timer = setTimeout(() => child.kill('SIGKILL'), END);
  await ended;
  clearTimeout(timer);
}
