// What the figures were measured on, and which of its cores are used.

import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import os from 'node:os';

/** The machine in words, for those who read the figures elsewhere. */
export function describeMachine() {
  return {
    processor: os.cpus()[0]?.model.trim() ?? os.arch(),
    cores: os.availableParallelism(),
    memoryGiB: Math.round(os.totalmem() / 2 ** 30),
    system: `${os.type()} ${os.release()} ${os.arch()}`,
  };
}

/**
 * A core for the server and another for the load, not two threads of one where there is a choice; `undefined` when this
 * process may use only one, or cannot pin.
 *
 * @returns {{ server: number, load: number } | undefined}
 */
export function chooseCores() {
  const allowed = allowedCores();
  const [server, next] = allowed;
  if (next === undefined || !canPin()) return undefined;
  const siblings = siblingsOf(server);
  return { server, load: allowed.slice(1).find((core) => !siblings.includes(core)) ?? next };
}

function allowedCores() {
  const status = readFileSync('/proc/self/status', 'utf8');
  return parseList(/^Cpus_allowed_list:\s*(\S+)/m.exec(status)?.[1] ?? '0');
}

function siblingsOf(core) {
  const file = `/sys/devices/system/cpu/cpu${core}/topology/thread_siblings_list`;
  return existsSync(file) ? parseList(readFileSync(file, 'utf8').trim()) : [core];
}

/** '0-2,5' → [0, 1, 2, 5] */
export function parseList(text) {
  return text.split(',').flatMap((range) => {
    const [first, last = first] = range.split('-').map(Number);
    return Array.from({ length: last - first + 1 }, (_, n) => first + n);
  });
}

function canPin() {
  try {
    execFileSync('taskset', ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

/** How many descriptors a process may have; a server needs one per socket. */
export function mostDescriptors() {
  const [, limit] = /^Max open files\s+\S+\s+(\S+)/m.exec(readFileSync('/proc/self/limits', 'utf8')) ?? [];
  return limit === 'unlimited' ? Number.POSITIVE_INFINITY : Number(limit);
}
