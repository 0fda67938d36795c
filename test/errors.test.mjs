// Errors are data: one class, stable codes, all of them documented.

import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import * as esm from 'wsbroker';

const root = new URL('..', import.meta.url);

async function sourceFiles(folder) {
  const names = await readdir(new URL(folder, root), { recursive: true });
  const sources = names.filter((name) => /\.(rs|cts|mts)$/.test(name));
  return Promise.all(sources.map((name) => readFile(new URL(`${folder}/${name}`, root), 'utf8')));
}

test('import and require give one instance', () => {
  const cjs = createRequire(import.meta.url)('wsbroker');
  const exported = (module) => new Map(Object.entries(module).sort(([one], [other]) => (one < other ? -1 : 1)));
  assert.deepEqual(exported(esm), exported(cjs));
  assert.equal(esm.send, cjs.send, 'the very same function');
});

test('an error is an Error with a code', () => {
  assert.throws(
    () => esm.send('1', ''),
    (error) => {
      assert.ok(error instanceof esm.WsBrokerError && error instanceof Error);
      assert.equal(error.code, 'WSB_INVALID_ARGUMENT');
      assert.match(error.stack, /^WsBrokerError: socketId: expected .*\n\s+at .*errors\.test\.mjs|\n\s+at /);
      return true;
    },
  );
});

test('every code that the engine, the addon or the package knows is in the table, and no other', async () => {
  const sources = (await Promise.all(['crates/broker/src', 'crates/node/src', 'src'].map(sourceFiles))).flat();
  const used = new Set(sources.flatMap((source) => source.match(/(?<=['"])WSB_[A-Z_]+(?=['"])/g) ?? []));
  used.delete('WSB_LOADED_TWICE'); // of a warning of the process
  assert.deepEqual([...used].sort(), Object.keys(esm.ERROR_CODES).sort());
  for (const text of Object.values(esm.ERROR_CODES)) assert.match(text, /^[A-Z`].*\.$/);
});
