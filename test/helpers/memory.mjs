/** What this process has taken of the machine's memory. */

import { readFileSync } from 'node:fs';

/**
 * The most memory that this process has held until now, in bytes. Linux counts in `resourceUsage()` what the process
 * held that it was forked from.
 */
export function peak() {
  if (process.platform !== 'linux') return process.resourceUsage().maxRSS * 1024;
  return Number(readFileSync('/proc/self/status', 'utf8').match(/VmHWM:\s+(\d+) kB/)[1]) * 1024;
}
