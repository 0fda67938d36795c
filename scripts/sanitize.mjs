// npm run sanitize -- address [test files]
// npm run sanitize -- thread [arguments of cargo test]
//
// `address` builds the addon with AddressSanitizer and runs tests of the package with it, or these files of test/: memory
// that is read or written behind its end, or after it was freed. Node itself is not built with it, but its memory is
// AddressSanitizer's as well. Memory that the engine would keep for the next message is freed, so that a late look is seen.
//
// `thread` builds the standard library, the engine and the addon's Rust with ThreadSanitizer and runs their tests: memory that
// two threads touch at once. It needs the source of the standard library, which rustup adds.
//
// Both need options of the compiler that are not stable, so they run with RUSTC_BOOTSTRAP=1 and whatever compiler there is.
// Linux with gcc or clang, x64 or arm64.

import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import path from 'node:path';
import { checkTools, ensureDependencies, ensureLib, main, ROOT, run, StepFailed, say } from './setup.mjs';

const WORK = path.join(ROOT, 'target/sanitize');

/** The tests in which values cross, threads end and memory changes hands; none that measures time or memory. */
const TEST_FILES = [
  'answers',
  'bytes',
  'channels',
  'exit',
  'failing-handlers',
  'handler-timeout',
  'http',
  'large-texts',
  'log',
  'memory-safety',
  'origins-thread',
  'routes',
  'short-texts',
  'sockets',
  'tokens',
  'wake-ups',
  'workers',
].map((name) => `test/${name}.test.mjs`);

/** What the tests need beside the addon. */
const PACKAGE = ['lib', 'test', 'scripts', 'example', 'crates', 'package.json', 'README.md'];

/** One file may take this long, in ms. */
const FILE_TIMEOUT = 300_000;

const COMMANDS = { address, thread };

await main(([command, ...rest]) => {
  checkTools();
  if (process.platform !== 'linux') throw new StepFailed('the sanitizers run on Linux');
  if (!Object.hasOwn(COMMANDS, command)) {
    throw new StepFailed(`expected ${Object.keys(COMMANDS).join(' or ')}, got ${command}`);
  }
  COMMANDS[command](rest);
});

function address(files) {
  ensureDependencies();
  ensureLib();
  const folder = path.join(WORK, 'address');
  const target = hostTarget();
  // Overflows and failed assertions are errors in a debug build; a bit of optimisation keeps the tests' deadlines.
  build('address', ['build', '--package', 'wsbroker-node', '--lib'], {
    RUSTFLAGS: '-Zsanitizer=address -Cforce-frame-pointers=yes --cfg wsbroker_sanitize',
  });
  const package_ = layPackage(folder, path.join(folder, target, 'debug/libwsbroker.so'));
  const runtime = shareRuntime(folder, 'asan');
  const reports = emptied(path.join(folder, 'reports'));
  const options = [
    `log_path=${path.join(reports, 'report')}`,
    // What Node holds at its end it leaves to the system.
    'detect_leaks=0',
    // Freed memory waits for a late look, but not so much that the tests which look at the process's memory find it.
    'quarantine_size_mb=32',
    'allow_addr2line=1',
  ];
  say(`node --test with AddressSanitizer`);
  const { status } = spawnSync(
    process.execPath,
    ['--test', '--test-reporter=spec', `--test-timeout=${FILE_TIMEOUT}`, '--test-concurrency=1', ...chosen(files)],
    { cwd: package_, stdio: 'inherit', env: { ...process.env, LD_PRELOAD: runtime, ASAN_OPTIONS: options.join(':') } },
  );
  tell('AddressSanitizer', reports);
  if (status !== 0) throw new StepFailed('a test failed, with nothing reported by AddressSanitizer');
  say('AddressSanitizer found nothing');
}

function chosen(files) {
  return files.length > 0 ? files : TEST_FILES;
}

/** The package with this addon in it. Links would be followed back to the checkout's own addon. */
function layPackage(folder, addon) {
  const laid = emptied(path.join(folder, 'package'));
  for (const part of PACKAGE) cpSync(path.join(ROOT, part), path.join(laid, part), { recursive: true });
  symlinkSync(path.join(ROOT, 'node_modules'), path.join(laid, 'node_modules'));
  cpSync(addon, path.join(laid, 'index.node'));
  return laid;
}

/**
 * The compiler brings the runtime for programs, to be linked statically. To get it into Node before anything else it has to
 * be a library, in which the part that runs before a program's constructors has no place.
 */
function shareRuntime(folder, name) {
  const libraries = output('rustc', ['--print', 'target-libdir']);
  const archive = readdirSync(libraries).find((file) => file.endsWith(`_rt.${name}.a`));
  if (!archive) throw new StepFailed(`the compiler brings no runtime of ${name} for this machine`);
  // Not libasan.so: by that name it takes itself for the one of gcc, and refuses.
  const [own, shared] = [path.join(folder, archive), path.join(folder, `${name}-runtime.so`)];
  cpSync(path.join(libraries, archive), own);
  run('ar', ['d', own, `${name}_preinit.cpp.o`]);
  const whole = ['-Wl,--whole-archive', own, '-Wl,--no-whole-archive'];
  run('cc', ['-shared', '-o', shared, ...whole, '-Wl,-z,nodelete', '-ldl', '-lpthread', '-lrt', '-lm', '-lresolv']);
  return shared;
}

function thread(args) {
  ensureStandardLibrarySource();
  const reports = emptied(path.join(WORK, 'thread/reports'));
  const tests =
    args.length > 0 ? args : ['--package', 'wsbroker-engine', '--package', 'wsbroker-node', '--lib', '--tests'];
  try {
    // Without its own build the standard library's atomics would be invisible, and much that is right be reported.
    build('thread', ['test', '-Zbuild-std', '--no-fail-fast', ...tests], {
      RUSTFLAGS: '-Zsanitizer=thread',
      TSAN_OPTIONS: `log_path=${path.join(reports, 'report')}`,
    });
  } finally {
    // A program of which there is a report ends with an exit code of its own, and cargo with it.
    tell('ThreadSanitizer', reports);
  }
  say('ThreadSanitizer found nothing');
}

/** Prints the reports and fails, if there are any. */
function tell(sanitizer, reports) {
  const found = readdirSync(reports);
  for (const report of found) console.error(readFileSync(path.join(reports, report), 'utf8'));
  if (found.length > 0) throw new StepFailed(`${sanitizer} reports ${found.length}: ${path.relative(ROOT, reports)}`);
}

function ensureStandardLibrarySource() {
  if (existsSync(path.join(output('rustc', ['--print', 'sysroot']), 'lib/rustlib/src/rust/library/std'))) return;
  say('installing rust-src');
  run('rustup', ['component', 'add', 'rust-src']);
}

/** With a target of its own a build leaves build scripts and macros without the sanitizer. */
function build(sanitizer, args, env) {
  const [command, ...rest] = args;
  run('cargo', [command, '--target', hostTarget(), '--target-dir', path.join(WORK, sanitizer), ...rest], {
    env: { ...process.env, RUSTC_BOOTSTRAP: '1', CARGO_PROFILE_DEV_OPT_LEVEL: '1', ...env },
  });
}

function hostTarget() {
  return /^host: (.+)$/m.exec(output('rustc', ['-vV']))[1];
}

function output(command, args) {
  return spawnSync(command, args, { cwd: ROOT, encoding: 'utf8' }).stdout.trim();
}

function emptied(folder) {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  return folder;
}
