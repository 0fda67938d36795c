// npm run docs            writes the generated parts of the README
// npm run docs -- --check fails with a diff when one of them is stale
//
// A generated part stands between `<!-- name:begin -->` and `<!-- name:end -->`:
//
//   api          the reference, from the exports of src/index.cts
//   options      the options of `start` with their defaults, from the JSDoc of StartOptions
//   errors       the error codes, from ERROR_CODES
//   bench        the chart and the table of the benchmark, from docs/bench/results.json
//   autobahn     the results of the Autobahn TestSuite, from test/autobahn/results.json
//   close-codes  the close codes, from the table in crates/broker/src/codec/close.rs
//
// `--readme <file>` works on another file.

import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { readmePart } from '../bench/readme.mjs';
import { autobahnTable, readResults } from './autobahn-results.mjs';
import { ensureDependencies, main, ROOT, StepFailed, say } from './setup.mjs';

/** The part that every README must have. */
const REQUIRED = 'api';

/** So many lines of a stale part tell enough. */
const DIFF_LINES = 60;

await main(async (args) => {
  ensureDependencies();
  const file = path.resolve(ROOT, optionValue(args, '--readme') ?? 'README.md');
  const current = readFileSync(file, 'utf8');
  const wanted = await fillIn(current);
  if (current === wanted) {
    say(`${path.basename(file)} is up to date`);
    return;
  }
  if (args.includes('--check')) {
    console.error(difference(current, wanted));
    throw new StepFailed(`${path.basename(file)} is stale: run \`npm run docs\` and commit the result.`);
  }
  writeFileSync(file, wanted);
  say(`${path.basename(file)} written`);
});

function optionValue(args, name) {
  const index = args.indexOf(name);
  return index < 0 ? undefined : args[index + 1];
}

async function fillIn(readme) {
  // Loaded late: it needs the compiler, which `ensureDependencies` has just installed.
  const { readApi } = await import('./api-reference.mjs');
  const api = readApi(path.join(ROOT, 'src/index.cts'), path.join(ROOT, 'tsconfig.json'));
  const { closeCodesTable } = await import('./close-codes.mjs');
  const hasOptions = readme.includes(marker('options', 'begin'));
  const parts = {
    api: () => api.markdown({ without: hasOptions ? ['StartOptions'] : [] }),
    options: () => api.propertyTable('StartOptions'),
    errors: () => api.constantTable('ERROR_CODES', ['Code', 'Meaning']),
    bench: () => readmePart(),
    autobahn: () => autobahnTable(readResults()),
    'close-codes': () => closeCodesTable(),
  };
  let filled = readme;
  for (const [name, make] of Object.entries(parts)) {
    const begin = filled.indexOf(marker(name, 'begin'));
    const end = filled.indexOf(marker(name, 'end'));
    if (begin < 0 && end < 0 && name !== REQUIRED) continue;
    if (begin < 0 || end < begin) throw new StepFailed(`the README lacks the markers of "${name}"`);
    const head = filled.slice(0, begin + marker(name, 'begin').length);
    filled = `${head}\n\n${make()}\n\n${filled.slice(end)}`;
  }
  return filled;
}

function marker(name, edge) {
  return `<!-- ${name}:${edge} -->`;
}

/** What `after` has otherwise than `before`, line by line, with the line numbers of `before`. */
function difference(before, after) {
  const [old, now] = [before.split('\n'), after.split('\n')];
  const common = commonLengths(old, now);
  const lines = [];
  let [i, j] = [0, 0];
  while (i < old.length || j < now.length) {
    if (i < old.length && j < now.length && old[i] === now[j]) {
      i += 1;
      j += 1;
    } else if (j >= now.length || (i < old.length && common[i + 1][j] >= common[i][j + 1])) {
      lines.push(`${i + 1} - ${old[i]}`);
      i += 1;
    } else {
      lines.push(`${i + 1} + ${now[j]}`);
      j += 1;
    }
  }
  const rest = lines.length > DIFF_LINES ? [`… and ${lines.length - DIFF_LINES} lines more`] : [];
  return [...lines.slice(0, DIFF_LINES), ...rest].join('\n');
}

/** [i][j] → the length of the longest common subsequence of the lines from i on and those from j on. */
function commonLengths(old, now) {
  const lengths = Array.from({ length: old.length + 1 }, () => new Uint32Array(now.length + 1));
  for (let i = old.length - 1; i >= 0; i -= 1) {
    for (let j = now.length - 1; j >= 0; j -= 1) {
      lengths[i][j] = old[i] === now[j] ? lengths[i + 1][j + 1] + 1 : Math.max(lengths[i + 1][j], lengths[i][j + 1]);
    }
  }
  return lengths;
}
