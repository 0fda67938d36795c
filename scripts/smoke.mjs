// node scripts/smoke.mjs <version | folder of tarballs>
//
// Installs the package into an empty folder as a user does and runs the smoke fixture there.
// The workflows run it on every platform, before and after publishing.

import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

/** A registry may take minutes until it serves what was just published, in ms. */
const PUBLISH_DELAY = 10 * 60_000;
const RETRY_AFTER = 20_000;

const FIXTURE = fileURLToPath(new URL('../test/fixtures/runtime-smoke.cjs', import.meta.url));

const [source] = process.argv.slice(2);
if (!source) throw new Error('usage: node scripts/smoke.mjs <version | folder of tarballs>');

const project = mkdtempSync(path.join(os.tmpdir(), 'wsbroker-smoke-'));
try {
  await installInto(project);
  copyFileSync(FIXTURE, path.join(project, 'smoke.cjs'));
  execFileSync(process.execPath, ['smoke.cjs'], { cwd: project, stdio: 'inherit', timeout: 60_000 });
} finally {
  rmSync(project, { recursive: true, force: true });
}

async function installInto(folder) {
  writeFileSync(path.join(folder, 'package.json'), JSON.stringify({ private: true }));
  // Node 20 has no WebSocket client of its own.
  const packages = globalThis.WebSocket ? wanted() : [...wanted(), 'ws'];
  const deadline = Date.now() + (existsSync(source) ? 0 : PUBLISH_DELAY);
  for (;;) {
    try {
      execFileSync('npm', ['install', '--no-audit', '--no-fund', '--prefer-online', ...packages], {
        cwd: folder,
        stdio: 'inherit',
        // npm is a batch file on Windows. Every argument is a version or a path made here.
        shell: process.platform === 'win32',
      });
      return;
    } catch (error) {
      if (Date.now() > deadline) throw error;
      await sleep(RETRY_AFTER);
    }
  }
}

function wanted() {
  if (!existsSync(source)) return [`wsbroker@${source}`];
  return readdirSync(source)
    .filter((name) => name.endsWith('.tgz'))
    .map((name) => path.resolve(source, name));
}
