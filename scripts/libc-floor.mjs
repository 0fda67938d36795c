// node scripts/libc-floor.mjs <file.node>
//
// Fails when a Linux binary asks for a newer glibc than the oldest one that Node's own binaries run on,
// or, built for musl, for any glibc at all. The names of required symbol versions stand in the file as text.

import { readFileSync } from 'node:fs';
import { main, StepFailed, say } from './setup.mjs';

/** The glibc of RHEL 8 and Debian 10, which Node 20 and later are built against. */
const OLDEST_GLIBC = [2, 28];

await main(([file]) => {
  const text = readFileSync(file, 'latin1');
  const versions = [...new Set(text.match(/GLIBC_\d+\.\d+/g))].map((name) => name.slice('GLIBC_'.length).split('.'));
  const [newest] = versions.map((parts) => parts.map(Number)).sort(([a, b], [c, d]) => c - a || d - b);
  if (file.includes('-musl')) {
    if (newest || text.includes('libc.so.6')) throw new StepFailed(`${file} is for musl but needs glibc`);
    say(`${file} needs no glibc`);
    return;
  }
  if (!newest) throw new StepFailed(`${file} names no glibc version: is it a Linux binary?`);
  const [major, minor] = newest;
  if (major > OLDEST_GLIBC[0] || (major === OLDEST_GLIBC[0] && minor > OLDEST_GLIBC[1])) {
    throw new StepFailed(`${file} needs glibc ${newest.join('.')}, newer than ${OLDEST_GLIBC.join('.')}`);
  }
  say(`${file} needs glibc ${newest.join('.')} or newer`);
});
