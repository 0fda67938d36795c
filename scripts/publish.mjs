// node scripts/publish.mjs <folder of tarballs> [--dry-run]
//
// Publishes the tarballs of a release: every platform first, the main package last. A version that npm
// already has is left alone, so that a release that broke off can be run again.

import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { main, ROOT, run, StepFailed, say } from './setup.mjs';

await main(([folder, ...options]) => {
  const { name, version, neon } = JSON.parse(readFileSync(path.join(ROOT, 'package.json'), 'utf8'));
  const packages = [...Object.keys(neon.platforms).map((platform) => `${neon.org}/${platform}`), name];
  const tarballs = packages.map((packageName) => [packageName, tarballOf(folder, packageName, version)]);
  const expected = new Set(tarballs.map(([, file]) => path.basename(file)));
  const unexpected = readdirSync(folder).filter((file) => !expected.has(file));
  if (unexpected.length > 0) throw new StepFailed(`not part of ${version}: ${unexpected.join(', ')}`);

  // A prerelease must not become what `npm install` takes by itself.
  const tag = version.includes('-') ? 'next' : 'latest';
  for (const [packageName, file] of tarballs) {
    if (isPublished(packageName, version)) {
      say(`${packageName}@${version} is already published`);
      continue;
    }
    say(`publishing ${packageName}@${version} as ${tag}`);
    run('npm', ['publish', file, '--access=public', '--provenance', `--tag=${tag}`, ...options]);
  }
});

function tarballOf(folder, packageName, version) {
  const file = `${packageName.replace('@', '').replace('/', '-')}-${version}.tgz`;
  if (!readdirSync(folder).includes(file)) throw new StepFailed(`${file} is missing in ${folder}`);
  return path.resolve(folder, file);
}

function isPublished(packageName, version) {
  try {
    const known = execFileSync('npm', ['view', `${packageName}@${version}`, 'version'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    return known.trim() === version;
  } catch (error) {
    if (/E404/.test(error.stderr)) return false;
    throw error;
  }
}
