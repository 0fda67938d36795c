/** Runs client code with the WebSocket that Node has built in, in a process of its own. */

import { existsSync } from 'node:fs';
import { ensureRuntimes, runtimesUnavailable } from '../../scripts/runtimes.mjs';
import { succeed } from './package.mjs';

/** What client code finds: `open(url, protocols)`, `next()` with the messages in their order, and the promise `closed`. */
const PRELUDE = `
  import assert from 'node:assert/strict';
  const messages = [];
  let wake;
  let closed;
  async function open(url, protocols = []) {
    const socket = new WebSocket(url, protocols);
    socket.binaryType = 'arraybuffer';
    socket.onmessage = ({ data }) => {
      messages.push(data);
      wake?.();
    };
    closed = new Promise((resolve) => (socket.onclose = resolve));
    await Promise.race([new Promise((resolve) => (socket.onopen = resolve)), closed]);
    assert.equal(socket.readyState, WebSocket.OPEN);
    return socket;
  }
  async function next() {
    while (messages.length === 0) await new Promise((resolve) => (wake = resolve));
    return messages.shift();
  }
`;

/**
 * The Nodes here that have a WebSocket: this one, behind a flag in Node 20, and the newer ones that the package is
 * tested with, where they can be had. Each has `run(t, code)`, which ends when the process has, and it must succeed.
 */
export function nodeWithWebSocket() {
  const own = typeof WebSocket === 'undefined' ? ['--experimental-websocket'] : [];
  const nodes = [{ name: `this one, ${process.version}`, binary: process.execPath, flags: own }];
  if (runtimesUnavailable() === undefined) {
    const newer = Object.entries(ensureRuntimes()).filter(([name]) => /^Node 2[246]$/.test(name));
    for (const [name, binary] of newer) nodes.push({ name, binary, flags: [] });
  }
  return nodes
    .filter(({ binary }) => existsSync(binary))
    .map(({ name, binary, flags }) => ({
      name,
      run: (t, code) =>
        succeed(binary, [...flags, '--input-type=module', '--eval', PRELUDE + code], {
          signal: t.signal,
          timeout: 60_000,
          killSignal: 'SIGKILL',
        }),
    }));
}
