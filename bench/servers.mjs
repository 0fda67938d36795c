// The servers of the benchmark: how each is started, and what it can do.

import { existsSync } from 'node:fs';
import path from 'node:path';
import { ROOT } from '../scripts/setup.mjs';

/** Where a user who has uWebSockets.js puts it: it is not on npm. */
export const UWS_FOLDER = path.join(ROOT, 'target', 'bench', 'uWebSockets.js');

const BARE = path.join(ROOT, 'target', 'release', 'wsbroker-bare');

const program = (name) => path.join(ROOT, 'bench', 'servers', `${name}.mjs`);
const node = (name) => [process.execPath, '--expose-gc', program(name)];

/**
 * name → the server. `peer`: its entry in peers.json, where it is a package. `command`: given the binaries of the peers.
 * `dialect`: what its messages are wrapped in.
 *
 * @type {Record<string, { title: string, sockets: boolean, http: boolean, peer?: string, dialect?: string,
 *   command: (binaries: Record<string, string>) => string[] }>}
 */
export const SERVERS = {
  wsbroker: { title: 'wsbroker', sockets: true, http: true, command: () => node('wsbroker') },
  bun: {
    title: 'Bun.serve',
    sockets: true,
    http: true,
    peer: 'bun',
    command: ({ bun }) => [bun, program('bun')],
  },
  uws: { title: 'uWebSockets.js', sockets: true, http: true, command: () => node('uws') },
  deno: {
    title: 'Deno',
    sockets: true,
    http: true,
    peer: 'deno',
    command: ({ deno }) => [deno, 'run', '--allow-all', '--no-lock', '--v8-flags=--expose-gc', program('deno')],
  },
  ws: { title: 'ws', sockets: true, http: false, peer: 'ws', command: () => node('ws') },
  'socket.io': {
    title: 'Socket.IO',
    sockets: true,
    http: false,
    peer: 'socket.io',
    dialect: 'socket-io',
    command: () => node('socket.io'),
  },
  'node-http': { title: 'node:http', sockets: false, http: true, command: () => node('node-http') },
  // No server that anybody could use, and no peer: about what is left of one without work of its own.
  bare: { title: 'system calls alone', sockets: true, http: false, command: () => [BARE] },
};

/**
 * Who is measured: a server, and what it is started with. A variation takes part only in the works that name it.
 *
 * @type {Record<string, { server: string, title: string, env: Record<string, string> }>}
 */
export const CONTENDERS = {
  ...Object.fromEntries(Object.entries(SERVERS).map(([name, { title }]) => [name, { server: name, title, env: {} }])),
  'wsbroker, 1 shard': { server: 'wsbroker', title: 'wsbroker, 1 shard', env: { BENCH_IO_THREADS: '1' } },
  'wsbroker, 2 shards': { server: 'wsbroker', title: 'wsbroker, 2 shards', env: { BENCH_IO_THREADS: '2' } },
  'wsbroker, native echo': { server: 'wsbroker', title: 'wsbroker, native echo', env: { BENCH_ROUTE: 'echo' } },
  'wsbroker, native relay': { server: 'wsbroker', title: 'wsbroker, native relay', env: { BENCH_ROUTE: 'relay' } },
  'wsbroker, 2 workers': { server: 'wsbroker', title: 'wsbroker, 2 workers', env: { BENCH_WORKERS: '2' } },
};

/** Why a server cannot be run here, or undefined. */
export function unavailable(name) {
  if (name !== 'uws' || existsSync(path.join(UWS_FOLDER, 'package.json'))) return undefined;
  return `it is not on npm; put it into ${path.relative(ROOT, UWS_FOLDER)} to have it measured`;
}
