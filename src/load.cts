/**
 * Finds and loads the native addon for this platform.
 *
 * The binary comes from one of the `@wsbroker/*` packages that npm chose by os, cpu and libc, or, in a
 * checkout, from `index.node` in the package's root folder.
 *
 * @module
 */

import { existsSync } from 'node:fs';
import path from 'node:path';
import { currentPlatform } from '@neon-rs/load';

/**
 * The prebuilt binaries. The names are spelled out because bundlers only see a `require` of a literal.
 */
const PREBUILT: Readonly<Record<string, () => unknown>> = {
  'linux-x64-gnu': () => require('@wsbroker/linux-x64-gnu'),
  'linux-arm64-gnu': () => require('@wsbroker/linux-arm64-gnu'),
  'linux-x64-musl': () => require('@wsbroker/linux-x64-musl'),
  'linux-arm64-musl': () => require('@wsbroker/linux-arm64-musl'),
  'darwin-x64': () => require('@wsbroker/darwin-x64'),
  'darwin-arm64': () => require('@wsbroker/darwin-arm64'),
  'win32-x64-msvc': () => require('@wsbroker/win32-x64-msvc'),
};

/** What a build in a checkout leaves behind. It wins: whoever built it wants to run it. */
const LOCAL_BUILD = path.join(__dirname, '..', 'index.node');

const BUILD_FROM_SOURCE = 'build it from source: clone the repository and run `npm run build` (needs Rust)';

/** The addon could not be loaded. `cause` holds the error of the runtime's own loader. */
export class LoadError extends Error {
  /** Always `'WSB_LOAD_FAILED'`. */
  readonly code = 'WSB_LOAD_FAILED';

  constructor(message: string, cause: unknown) {
    super(message, { cause });
    this.name = 'LoadError';
  }
}

/**
 * Loads the addon.
 *
 * @typeParam T - the shape of the addon's exports
 * @returns the addon's exports, the same object at each call in a thread
 * @throws {@link LoadError} that names the platform, the real reason and what to do
 */
export function loadAddon<T>(): T {
  const platform = detectPlatform();
  // A broken local build is told, not hidden behind a published binary of other code.
  if (existsSync(LOCAL_BUILD)) {
    return attempt(platform, LOCAL_BUILD, () => require(LOCAL_BUILD)) as T;
  }
  const prebuilt = PREBUILT[platform];
  if (!prebuilt) {
    const supported = Object.keys(PREBUILT).join(', ');
    throw new LoadError(
      `wsbroker has no prebuilt binary for ${platform}. There is one for ${supported}; for others, ${BUILD_FROM_SOURCE}.`,
      undefined,
    );
  }
  return attempt(platform, `@wsbroker/${platform}`, prebuilt) as T;
}

function detectPlatform(): string {
  try {
    return currentPlatform();
  } catch {
    // The stock detection knows no more than these two either.
    return `${process.platform}-${process.arch}`;
  }
}

function attempt(platform: string, source: string, load: () => unknown): unknown {
  try {
    return load();
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    // Node appends the chain of requiring files to "Cannot find module".
    const [summary] = reason.split('\nRequire stack:', 1);
    throw new LoadError(
      `wsbroker could not load its native addon for ${platform} from ${source}: ${summary}\n${remedy(source, error, reason)}`,
      error,
    );
  }
}

function remedy(source: string, error: unknown, reason: string): string {
  if (source === LOCAL_BUILD) {
    return 'This file is the result of a local build. Run `npm run build` again, or delete it to use the prebuilt binary.';
  }
  if ((error as NodeJS.ErrnoException | null)?.code === 'MODULE_NOT_FOUND') {
    return (
      `The package ${source} is not installed. Install again without \`--omit=optional\` or \`--no-optional\`, on the ` +
      'system that runs it (a node_modules folder copied from another system, or a lockfile made on one by an old npm, ' +
      `lacks this package), or add it: \`npm install ${source}\`. Otherwise, ${BUILD_FROM_SOURCE}.`
    );
  }
  if (/GLIBC|musl|ld-linux|libc\.so/.test(reason)) {
    return (
      "The binary does not fit this system's C library. Prebuilt binaries need glibc 2.28 or newer, or musl 1.2; " +
      `delete node_modules and install again on this very system, or ${BUILD_FROM_SOURCE}.`
    );
  }
  return (
    `The file in ${source} is damaged or belongs to another system. Delete node_modules and install again; ` +
    `if it stays, ${BUILD_FROM_SOURCE}.`
  );
}
