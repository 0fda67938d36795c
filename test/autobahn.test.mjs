// What `npm run autobahn` makes of the suite's results, and that the results in the repository are good. The suite itself
// takes too long for a test.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { autobahnTable, differences, formatResults, RESULTS_FILE, readResults } from '../scripts/autobahn-results.mjs';

const OK = { behavior: 'OK', behaviorClose: 'OK' };
const INFORMATIONAL = { behavior: 'INFORMATIONAL', behaviorClose: 'INFORMATIONAL' };
const NON_STRICT = { behavior: 'NON-STRICT', behaviorClose: 'OK' };
const UNCLEAN = { behavior: 'OK', behaviorClose: 'UNCLEAN' };

test('every case of the suite is in the repository, and OK or informational', () => {
  const { cases } = readResults();
  const sections = new Set(Object.keys(cases).map((id) => id.split('.')[0]));
  assert.deepEqual([...sections], ['1', '2', '3', '4', '5', '6', '7', '9', '10', '12', '13']);
  assert.equal(Object.keys(cases).length, 517);
  assert.deepEqual(differences(cases, cases, Object.keys(cases)), []);
});

test('the file is as it is written', () => {
  assert.equal(formatResults(readResults()), readFileSync(RESULTS_FILE, 'utf8'));
});

test('what is not good, what has changed and what is missing is told', () => {
  const before = { 1.1: OK, 1.2: INFORMATIONAL, 1.3: OK, 1.4: NON_STRICT, 1.5: OK };
  const now = { 1.1: OK, 1.2: OK, 1.3: UNCLEAN, 1.4: NON_STRICT, 1.6: OK };
  assert.deepEqual(differences(before, now, ['1.1', '1.2', '1.3', '1.4', '1.5', '1.6']), [
    '1.2: OK, was INFORMATIONAL',
    '1.3: OK, close UNCLEAN',
    '1.4: NON-STRICT, close OK',
    '1.6: OK, and not in the file',
    '1.5: did not run',
  ]);
  assert.deepEqual(differences(before, { 1.1: OK }, ['1.1']), [], 'only what was asked for has to run');
});

test('the table counts by section', () => {
  const cases = { 1.1: OK, 1.2: INFORMATIONAL, 9.1: UNCLEAN };
  const table = autobahnTable({
    suite: 'S 1',
    python: '2.7',
    wsbroker: '0',
    node: '20',
    system: 'L',
    date: 'D',
    cases,
  });
  assert.match(table, /^\| 1\.\* Framing \| 2 \| 1 \| 1 \| 0 \|$/m);
  assert.match(table, /^\| 9\.\* .* \| 1 \| 0 \| 0 \| 1 \|$/m);
  assert.match(table, /^\| \*\*all\*\* \| 3 \| 1 \| 1 \| 1 \|$/m);
  assert.match(table, /S 1 with Python 2\.7, wsbroker 0, Node 20, L, D\.$/);
});
