// Packs the package as a release does and installs the tarballs into empty folders, all of it offline.

import { execFile } from 'node:child_process';
import { cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { npmCommand } from '../../scripts/setup.mjs';

export const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** This machine's platform by the name of its package, as the loader sees it. */
export const PLATFORM = createRequire(import.meta.url)('@neon-rs/load').currentPlatform();

/** What a fresh clone has that packing needs; `lib` is compiled there. */
const PACK_INPUTS = [
  'package.json',
  'package-lock.json',
  'tsconfig.json',
  'src',
  'scripts',
  'platforms',
  'README.md',
  'LICENSE',
  'CHANGELOG.md',
];

export async function readJson(file) {
  return JSON.parse(await readFile(path.join(ROOT, file), 'utf8'));
}

/** A folder of its own under the system's temporary folder; remove it with `rm`. */
export function temporaryFolder(name) {
  return mkdtemp(path.join(os.tmpdir(), `wsbroker-${name}-`));
}

/**
 * Runs a program to its end.
 *
 * @returns {Promise<{ code: number, stdout: string, stderr: string }>}
 */
export function execute(command, args, options = {}) {
  return new Promise((resolve, reject) => {
    execFile(command, args, { timeout: 120_000, maxBuffer: 1 << 24, ...options }, (error, stdout, stderr) => {
      if (error && typeof error.code !== 'number') reject(error);
      else resolve({ code: error?.code ?? 0, stdout, stderr });
    });
  });
}

/** The same, for a program that must succeed. */
export async function succeed(command, args, options) {
  const result = await execute(command, args, options);
  if (result.code !== 0) {
    throw new Error(`${command} ${args.join(' ')}: exit code ${result.code}\n${result.stdout}\n${result.stderr}`);
  }
  return result;
}

function npm(args, cwd) {
  const [command, leading] = npmCommand();
  // The npm that runs the tests must not lend its lifecycle variables (its package, its config) to this one.
  const env = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^npm_(package|lifecycle)/.test(name)),
  );
  return succeed(command, [...leading, ...args, '--loglevel=error'], { cwd, env });
}

/**
 * `npm pack` of the main package, of this machine's platform package, and of the one dependency.
 * A copy of the checkout is packed: npm's `prepack` rewrites package.json while it runs.
 *
 * @returns {Promise<{ main: Packed, platform: Packed, dependency: Packed, manifestAfter: string }>}
 *   where Packed is `{ file, files }`: the tarball and the paths inside it
 */
export async function packAll(folder) {
  const stage = path.join(folder, 'checkout');
  await mkdir(stage);
  for (const input of PACK_INPUTS) await cp(path.join(ROOT, input), path.join(stage, input), { recursive: true });
  await symlink(path.join(ROOT, 'node_modules'), path.join(stage, 'node_modules'), 'junction');
  const platformFolder = path.join(stage, 'platforms', PLATFORM);
  await cp(path.join(ROOT, 'index.node'), path.join(platformFolder, 'index.node'));

  const main = await pack(stage, folder);
  return {
    main,
    platform: await pack(platformFolder, folder),
    dependency: await pack(path.join(ROOT, 'node_modules/@neon-rs/load'), folder, ['--ignore-scripts']),
    manifestAfter: await readFile(path.join(stage, 'package.json'), 'utf8'),
  };
}

async function pack(source, destination, options = []) {
  const { stdout } = await npm(['pack', '--json', `--pack-destination=${destination}`, ...options], source);
  // Scripts print before the report does. npm 11 reports an array, later ones an object by package name.
  const report = JSON.parse(stdout.slice(stdout.search(/^[[{]/m)));
  const [{ filename, files }] = Object.values(report);
  return { file: path.join(destination, filename), files: files.map((entry) => entry.path).sort() };
}

/** `npm install` of tarballs into an empty folder. What they do not bring cannot come from elsewhere. */
export async function installInto(folder, tarballs, options = []) {
  await mkdir(folder);
  await writeFile(path.join(folder, 'package.json'), JSON.stringify({ private: true }));
  await npm(
    ['install', '--offline', '--no-audit', '--no-fund', ...options, ...tarballs.map(({ file }) => file)],
    folder,
  );
  return folder;
}

/** Gives an installed project the compiler's own type packages, as `npm i -D @types/node` would. */
export async function lendNodeTypes(folder) {
  await mkdir(path.join(folder, 'node_modules/@types'), { recursive: true });
  for (const name of ['@types/node', 'undici-types']) {
    await symlink(path.join(ROOT, 'node_modules', name), path.join(folder, 'node_modules', name), 'junction');
  }
}

/** What the compiler has to say about the programs of a folder, in strict TypeScript and what else is asked for. */
export async function compileStrictly(folder, more = {}) {
  const compilerOptions = {
    module: 'node16',
    moduleResolution: 'node16',
    target: 'es2022',
    lib: ['es2023'],
    strict: true,
    noEmit: true,
    types: ['node'],
    ...more,
  };
  await writeProgram(folder, 'tsconfig.json', JSON.stringify({ compilerOptions }));
  const tsc = path.join(ROOT, 'node_modules/typescript/bin/tsc');
  const { stdout } = await execute(process.execPath, [tsc, '-p', '.', '--pretty', 'false'], { cwd: folder });
  return stdout;
}

export async function writeProgram(folder, name, text) {
  await writeFile(path.join(folder, name), text);
  return name;
}

export async function listPlatformFolders() {
  return (await readdir(path.join(ROOT, 'platforms'))).sort();
}

export function remove(folder) {
  return rm(folder, { recursive: true, force: true });
}
