// Brings a checkout to the point where the package can be loaded: npm dependencies, the addon, the
// compiled TypeScript. Every step looks first and does nothing when its result is up to date.
// Runs before node_modules exists, so it imports nothing but Node itself.

import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

/** The root folder of the checkout. */
export const ROOT = fileURLToPath(new URL('..', import.meta.url));

/** The cargo library target that `neon dist` looks for, and the package that owns it. */
const ADDON_LIB = 'wsbroker';

const SOURCE_TO_OUTPUTS = [
  [/\.cts$/, ['.cjs', '.d.cts']],
  [/\.mts$/, ['.mjs', '.d.mts']],
];

/** A step that failed for a reason that has been told; scripts end with its exit code. */
export class StepFailed extends Error {
  constructor(message, exitCode = 1) {
    super(message);
    this.exitCode = exitCode;
  }
}

/** Runs a script's main function and turns a failed step into one line and an exit code. */
export async function main(run) {
  try {
    await run(process.argv.slice(2));
  } catch (error) {
    if (!(error instanceof StepFailed)) throw error;
    console.error(`\n${error.message}`);
    process.exitCode = error.exitCode;
  }
}

export function say(text) {
  console.error(`\x1b[1m» ${text}\x1b[0m`);
}

/** Runs a command in the checkout with the terminal as its input and output. */
export function run(command, args, options = {}) {
  const { status, signal, error } = spawnSync(command, args, { cwd: ROOT, stdio: 'inherit', ...options });
  if (error?.code === 'ENOENT') throw new StepFailed(`${command} was not found. ${remedy(command)}`);
  if (error) throw error;
  if (status !== 0) {
    throw new StepFailed(`${command} ${args.join(' ')}: ${signal ?? `exit code ${status}`}`, status ?? 1);
  }
}

/** Runs the JavaScript entry of an installed package: no shell, the same on every system. */
export function runBin(name, args, options) {
  const manifest = JSON.parse(readFileSync(path.join(ROOT, 'node_modules', name, 'package.json'), 'utf8'));
  const bin = typeof manifest.bin === 'string' ? manifest.bin : Object.values(manifest.bin)[0];
  run(process.execPath, [path.join(ROOT, 'node_modules', name, bin), ...args], options);
}

/** The command and leading arguments that run npm without a shell where npm says where it is. */
export function npmCommand() {
  const cli = process.env.npm_execpath;
  return cli?.endsWith('.js') ? [process.execPath, [cli]] : ['npm', []];
}

/** Installs the npm dependencies when node_modules does not hold what the lockfile names. */
export function ensureDependencies() {
  if (dependenciesMatchLockfile()) return;
  say('installing npm dependencies');
  const [command, leading] = npmCommand();
  // NODE_ENV=production or an `omit` in a user's npmrc would leave out the compiler.
  run(command, [...leading, 'ci', '--include=dev', '--include=optional', '--no-audit', '--no-fund'], {
    shell: command === 'npm' && process.platform === 'win32',
  });
}

function dependenciesMatchLockfile() {
  const installedFile = path.join(ROOT, 'node_modules', '.package-lock.json');
  if (!existsSync(installedFile)) return false;
  const wanted = JSON.parse(readFileSync(path.join(ROOT, 'package-lock.json'), 'utf8')).packages;
  const installed = JSON.parse(readFileSync(installedFile, 'utf8')).packages;
  return Object.entries(wanted).every(([where, { version, optional }]) => {
    // Optional packages for other platforms are rightly absent.
    if (where === '' || (optional && !installed[where])) return true;
    return installed[where]?.version === version && existsSync(path.join(ROOT, where, 'package.json'));
  });
}

/**
 * Builds the addon and puts it where `neon dist` puts it: `index.node` in the root, or the folder of the
 * platform named by NEON_BUILD_PLATFORM. Cargo itself knows what is up to date.
 *
 * @param {{ release?: boolean, cross?: boolean, cargoArgs?: string[] }} [options]
 */
export async function ensureAddon({ release = true, cross = false, cargoArgs = [] } = {}) {
  const library = await cargoBuild({ release, cross, cargoArgs });
  const output = addonPath();
  if (sameContents(library, output)) return;
  say(`placing ${path.relative(ROOT, output)}`);
  // `neon dist` keeps a newer file, which is wrong after a change from a debug to a release build.
  rmSync(output, { force: true });
  const { version, name } = JSON.parse(readFileSync(path.join(ROOT, 'package.json'), 'utf8'));
  runBin('@neon-rs/cli', ['dist', '--file', library], {
    env: { ...process.env, npm_package_name: name, npm_package_version: version },
  });
}

function addonPath() {
  const platform = process.env.NEON_BUILD_PLATFORM;
  return platform ? path.join(ROOT, 'platforms', platform, 'index.node') : path.join(ROOT, 'index.node');
}

async function cargoBuild({ release, cross, cargoArgs }) {
  // cargo-zigbuild links against an old glibc, or musl, from any host; see CONTRIBUTING.md.
  const args = [cross ? 'zigbuild' : 'build', '--package', addonPackage(), '--lib'];
  if (release) args.push('--release');
  args.push('--message-format=json-render-diagnostics', ...cargoArgs);

  const child = spawn('cargo', args, { cwd: ROOT, stdio: ['ignore', 'pipe', 'inherit'] });
  child.stdout.setEncoding('utf8');
  let messages = '';
  child.stdout.on('data', (chunk) => {
    messages += chunk;
  });
  const status = await new Promise((resolve, reject) => {
    child.on('error', (error) =>
      reject(error.code === 'ENOENT' ? new StepFailed(`cargo was not found. ${remedy('cargo')}`) : error),
    );
    child.on('close', resolve);
  });
  if (status !== 0) throw new StepFailed(`cargo ${args[0]}: exit code ${status}`, status ?? 1);

  const library = messages
    .split('\n')
    .filter((line) => line.includes('"compiler-artifact"'))
    .map((line) => JSON.parse(line))
    .find(({ target }) => target.name === ADDON_LIB && target.crate_types.includes('cdylib'))
    ?.filenames.find((file) => /\.(so|dylib|dll)$/.test(file));
  if (!library) throw new StepFailed(`cargo built no cdylib named ${ADDON_LIB}`);
  return library;
}

/** The name of the cargo package in crates/node. */
function addonPackage() {
  const manifest = readFileSync(path.join(ROOT, 'crates/node/Cargo.toml'), 'utf8');
  const name = /^\[package\][^[]*?^name\s*=\s*"([^"]+)"/ms.exec(manifest)?.[1];
  if (!name) throw new StepFailed('crates/node/Cargo.toml names no package');
  return name;
}

function sameContents(a, b) {
  if (!existsSync(b) || statSync(a).size !== statSync(b).size) return false;
  return readFileSync(a).equals(readFileSync(b));
}

/** Compiles src/ to lib/ when a source, the compiler or its options changed, or an output is missing. */
export function ensureLib() {
  const sources = listFiles(path.join(ROOT, 'src')).filter((file) => /\.[cm]ts$/.test(file));
  const outputs = sources.flatMap(outputsOf);
  const stampFile = path.join(ROOT, 'lib', '.stamp');
  const stamp = fingerprint([...sources, path.join(ROOT, 'tsconfig.json'), path.join(ROOT, 'package-lock.json')]);
  const current = existsSync(stampFile) ? readFileSync(stampFile, 'utf8') : '';
  if (current === stamp && outputs.every((file) => existsSync(file))) return;
  say('compiling TypeScript');
  runBin('typescript', ['--project', 'tsconfig.json', '--noEmitOnError']);
  // A renamed source must not live on in the package.
  const known = new Set(outputs);
  for (const file of listFiles(path.join(ROOT, 'lib'))) if (!known.has(file)) rmSync(file);
  writeFileSync(stampFile, stamp);
}

function outputsOf(source) {
  const relative = path.relative(path.join(ROOT, 'src'), source);
  const [pattern, endings] = SOURCE_TO_OUTPUTS.find(([sourceEnding]) => sourceEnding.test(source));
  return endings.map((ending) => path.join(ROOT, 'lib', relative.replace(pattern, ending)));
}

function fingerprint(files) {
  const hash = createHash('sha256');
  for (const file of [...files].sort()) hash.update(`${file}\0`).update(readFileSync(file)).update('\0');
  return hash.digest('hex');
}

function listFiles(folder) {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const full = path.join(folder, entry.name);
    return entry.isDirectory() ? listFiles(full) : [full];
  });
}

/** Everything that `import 'wsbroker'` needs inside the checkout. */
export async function ensureAll() {
  checkTools();
  ensureDependencies();
  await ensureAddon();
  ensureLib();
}

/** Says in one sentence what is too old or missing, before a tool says it in fifty lines. */
export function checkTools() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  // 20.11 brought --test-concurrency and --test-timeout together.
  if (major < 20 || (major === 20 && minor < 11)) {
    throw new StepFailed(`Node ${process.versions.node} is too old to work on this package: 20.11 or newer is needed.`);
  }
  try {
    execFileSync('cargo', ['--version'], { stdio: 'ignore' });
  } catch {
    throw new StepFailed(`cargo was not found. ${remedy('cargo')}`);
  }
}

function remedy(command) {
  if (command === 'cargo') return 'Install Rust with rustup (rustup.rs) and open a new shell.';
  return `Install ${command} and put it on PATH.`;
}
