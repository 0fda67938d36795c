// Runs inside `npm version <new>`, which has just written package.json and package-lock.json: brings the
// platform packages and the crates to the same version and adds them to npm's commit.

import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { main, ROOT, run, StepFailed, say } from './setup.mjs';

await main(() => {
  const { version, neon } = readJson('package.json');
  if (!readText('CHANGELOG.md').includes(`\n## ${version}`)) {
    throw new StepFailed(`CHANGELOG.md has no heading "## ${version}": write what changed first.`);
  }
  const changed = ['Cargo.toml', 'Cargo.lock'];
  for (const platform of Object.keys(neon.platforms)) {
    const file = `platforms/${platform}/package.json`;
    write(file, `${JSON.stringify({ ...readJson(file), version }, null, 2)}\n`);
    changed.push(file);
  }
  write('Cargo.toml', setWorkspaceVersion(readText('Cargo.toml'), version));
  run('cargo', ['update', '--workspace', '--offline']);
  execFileSync('git', ['add', ...changed], { cwd: ROOT });
  say(`everything is at ${version}`);
});

function setWorkspaceVersion(manifest, version) {
  const pattern = /(^\[workspace\.package\][^[]*?^version\s*=\s*")[^"]*"/m;
  if (!pattern.test(manifest)) throw new StepFailed('Cargo.toml has no version in [workspace.package]');
  return manifest.replace(pattern, `$1${version}"`);
}

function readText(file) {
  return readFileSync(path.join(ROOT, file), 'utf8');
}

function readJson(file) {
  return JSON.parse(readText(file));
}

function write(file, text) {
  writeFileSync(path.join(ROOT, file), text);
}
