// The generated parts of the README are what the source says, and its links lead somewhere.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import { execute, ROOT, remove, temporaryFolder } from './helpers/package.mjs';

const require = createRequire(import.meta.url);

const docs = (...args) => execute(process.execPath, ['scripts/docs.mjs', ...args], { cwd: ROOT });

let readme;

before(async () => {
  readme = await readFile(path.join(ROOT, 'README.md'), 'utf8');
});

describe('npm run docs', () => {
  let scratch;
  let copy;

  before(async () => {
    scratch = await temporaryFolder('docs');
    copy = path.join(scratch, 'README.md');
  });

  after(() => remove(scratch));

  it('finds nothing to change in the README', async () => {
    const { code, stderr } = await docs('--check');
    assert.equal(code, 0, stderr);
  });

  it('finds a line that was changed by hand, shows it, and puts it right', async () => {
    await writeFile(copy, readme);
    assert.equal((await docs('--readme', copy)).code, 0);
    const fresh = await readFile(copy, 'utf8');
    await writeFile(copy, fresh.replace(/^### Functions$/m, '### Procedures'));
    const checked = await docs('--check', '--readme', copy);
    assert.equal(checked.code, 1);
    assert.match(
      checked.stderr,
      /^(\d+) - ### Procedures\n\d+ \+ ### Functions\n\nREADME\.md is stale: run `npm run docs`/m,
    );
    assert.equal((await docs('--readme', copy)).code, 0);
    assert.equal(await readFile(copy, 'utf8'), fresh);
  });

  it('refuses a README that has lost a marker', async () => {
    await writeFile(copy, readme.replace('<!-- api:end -->', ''));
    const { code, stderr } = await docs('--check', '--readme', copy);
    assert.equal(code, 1);
    assert.match(stderr, /lacks the markers of "api"/);
  });
});

describe('the README', () => {
  it('has an entry for every function and class that the package exports', () => {
    const headings = new Set([...readme.matchAll(/^#### `(\w+)`$/gm)].map(([, name]) => name));
    const exported = Object.entries(require('wsbroker')).filter(([, value]) => typeof value === 'function');
    assert.ok(exported.length > 0);
    for (const [name] of exported) assert.ok(headings.has(name), name);
  });

  it('tells the defaults that `start` uses', () => {
    const { parseStartOptions } = require('../lib/options.cjs');
    const used = parseStartOptions({ bind: ':0' });
    const told = new Map([...readme.matchAll(/^\| `(\w+)\?` \| `[^|]*` \| `([\d_]+)` \|/gm)].map(([, ...row]) => row));
    const numeric = Object.keys(used).filter((name) => told.has(name));
    assert.ok(numeric.length >= 5, `only ${numeric} are told`);
    for (const name of numeric) assert.equal(Number(told.get(name).replaceAll('_', '')), used[name], name);
  });

  it('tells the reasons that the broker closes sockets with', async () => {
    const reasons = [];
    for (const file of ['shard/inbox.rs', 'limits/socket.rs']) {
      const source = await readFile(path.join(ROOT, 'crates/broker/src', file), 'utf8');
      reasons.push(...[...source.matchAll(/Self::\w+ => "([^"]+)"/g)].map(([, reason]) => reason));
    }
    assert.ok(reasons.length >= 5, `only ${reasons} are in the source`);
    for (const reason of reasons) assert.ok(readme.includes(`\`${reason}\``), reason);
  });

  for (const file of [
    'README.md',
    'ARCHITECTURE.md',
    'CONTRIBUTING.md',
    'SECURITY.md',
    'CHANGELOG.md',
    'docs/attacks.md',
    'docs/performance.md',
  ]) {
    it(`leads somewhere with every link: ${file}`, async () => {
      const text = await readFile(path.join(ROOT, file), 'utf8');
      const targets = [...text.matchAll(/\]\(([^)\s]+)\)|src="([^"]+)"/g)].map(([, link, source]) => link ?? source);
      for (const target of targets.filter((link) => !/^[a-z]+:/.test(link))) {
        const [relative, fragment] = target.split('#');
        assert.ok(existsSync(path.join(ROOT, path.dirname(file), relative)), target);
        if (relative === '' && fragment) assert.ok(anchors(text).has(fragment), target);
      }
    });
  }
});

/** The anchors that GitHub gives to the headings of a page: a second one of the same letters gets a number. */
function anchors(markdown) {
  const seen = new Map();
  const prose = markdown.replace(/^```[\s\S]*?^```$/gm, '');
  const names = [...prose.matchAll(/^#+ (.+)$/gm)].map(([, heading]) => {
    const anchor = heading
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-');
    const earlier = seen.get(anchor) ?? 0;
    seen.set(anchor, earlier + 1);
    return earlier === 0 ? anchor : `${anchor}-${earlier}`;
  });
  return new Set(names);
}
