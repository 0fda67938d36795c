// The packages that this one is compared with, in exactly the versions of peers.json, in a folder of their own.

import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { npmCommand, ROOT, run, StepFailed, say } from '../scripts/setup.mjs';

const FOLDER = path.join(ROOT, 'target', 'bench', 'peers');

/** The packages that hold nothing but a binary, and where it is inside. */
const BINARIES = {
  bun: { package: /^@oven\/bun-/, file: 'bin/bun' },
  deno: { package: /^@deno\//, file: 'deno' },
};

/**
 * Installs what is missing of the peers that are wanted.
 *
 * @param {string[]} wanted their names
 * @returns {{ manifest: string, binaries: Record<string, string> }} `manifest`: a package.json beside which the
 *   packages are found
 */
export function ensurePeers(wanted) {
  const { npm, ...platforms } = JSON.parse(readFileSync(path.join(ROOT, 'bench/peers.json'), 'utf8'));
  if (wanted.every((name) => isInCheckout(name, npm[name]))) {
    return { manifest: path.join(ROOT, 'package.json'), binaries: {} };
  }
  const platform = platforms[`${process.platform}-${process.arch}`];
  if (!platform) throw new StepFailed(`bench/peers.json names no packages for ${process.platform}-${process.arch}`);
  const manifest = JSON.stringify({ private: true, dependencies: { ...npm, ...platform } }, null, 2);
  const manifestFile = path.join(FOLDER, 'package.json');
  if (!existsSync(manifestFile) || readFileSync(manifestFile, 'utf8') !== manifest) install(manifest);
  const binaries = Object.entries(BINARIES).map(([name, binary]) => {
    const owner = Object.keys(platform).find((packageName) => binary.package.test(packageName));
    return [name, path.join(FOLDER, 'node_modules', owner, binary.file)];
  });
  return { manifest: manifestFile, binaries: Object.fromEntries(binaries) };
}

/** The tests use one of the peers too; a quick look at the benchmark then needs nothing from outside. */
function isInCheckout(name, version) {
  const file = path.join(ROOT, 'node_modules', name, 'package.json');
  return version !== undefined && existsSync(file) && JSON.parse(readFileSync(file, 'utf8')).version === version;
}

// Installed aside and renamed, so that an interrupted installation leaves no half.
function install(manifest) {
  say('installing the peers from npm');
  mkdirSync(path.dirname(FOLDER), { recursive: true });
  const aside = mkdtempSync(`${FOLDER}-`);
  try {
    writeFileSync(path.join(aside, 'package.json'), manifest);
    const [command, leading] = npmCommand();
    const args = ['install', '--ignore-scripts', '--no-audit', '--no-fund', '--no-package-lock', '--loglevel=error'];
    run(command, [...leading, ...args], { cwd: aside, stdio: ['ignore', 'ignore', 'inherit'] });
    rmSync(FOLDER, { recursive: true, force: true });
    renameSync(aside, FOLDER);
  } finally {
    rmSync(aside, { recursive: true, force: true });
  }
}
