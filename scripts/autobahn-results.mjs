// The results of the Autobahn TestSuite: the file in the repository, what differs from it, the table.

import { readFileSync } from 'node:fs';
import path from 'node:path';
import { ROOT } from './setup.mjs';

export const RESULTS_FILE = path.join(ROOT, 'test/autobahn/results.json');

/** The suite's own names of its sections. */
const SECTIONS = {
  1: 'Framing',
  2: 'Pings and pongs',
  3: 'Reserved bits',
  4: 'Opcodes',
  5: 'Fragmentation',
  6: 'UTF-8 handling',
  7: 'Close handling',
  9: 'Limits and performance',
  10: 'Miscellaneous',
  12: 'Compression, different payloads',
  13: 'Compression, different parameters',
};

/** NON-STRICT, UNIMPLEMENTED, FAILED and every unclean close are findings. */
const GOOD = new Set(['OK', 'INFORMATIONAL']);

export function readResults() {
  return JSON.parse(readFileSync(RESULTS_FILE, 'utf8'));
}

/** One line for each case, so that a change of one is a change of one line. */
export function formatResults({ cases, ...head }) {
  const lines = Object.entries(cases).map(
    ([id, { behavior, behaviorClose }]) =>
      `    "${id}": { "behavior": "${behavior}", "behaviorClose": "${behaviorClose}" }`,
  );
  const top = JSON.stringify(head, null, 2).slice(0, -2);
  return `${top},\n  "cases": {\n${lines.join(',\n')}\n  }\n}\n`;
}

/** What is not good, and what is otherwise than it was, a line each. `asked` are the cases that had to run. */
export function differences(before, now, asked) {
  const findings = [];
  for (const [id, result] of Object.entries(now)) {
    if (!isGood(result)) findings.push(`${id}: ${describe(result)}`);
    else if (before[id] === undefined) findings.push(`${id}: ${describe(result)}, and not in the file`);
    else if (describe(before[id]) !== describe(result)) {
      findings.push(`${id}: ${describe(result)}, was ${describe(before[id])}`);
    }
  }
  for (const id of asked) if (now[id] === undefined) findings.push(`${id}: did not run`);
  return findings;
}

function isGood({ behavior, behaviorClose }) {
  return GOOD.has(behavior) && GOOD.has(behaviorClose);
}

function describe({ behavior, behaviorClose }) {
  return behavior === behaviorClose ? behavior : `${behavior}, close ${behaviorClose}`;
}

/** The cases by section, and what they were run with. */
export function autobahnTable({ suite, python, wsbroker, node, system, date, cases }) {
  const sections = new Map();
  for (const [id, result] of Object.entries(cases)) {
    const number = id.split('.')[0];
    const section = sections.get(number) ?? { cases: 0, OK: 0, INFORMATIONAL: 0, other: 0 };
    section.cases += 1;
    section[isGood(result) ? result.behavior : 'other'] += 1;
    sections.set(number, section);
  }
  const sum = (key) => [...sections.values()].reduce((total, section) => total + section[key], 0);
  const row = (name, value) => [name, value('cases'), value('OK'), value('INFORMATIONAL'), value('other')];
  const rows = [
    ['Section', 'Cases', 'OK', 'Informational', 'Anything else'],
    ['---', '--:', '--:', '--:', '--:'],
    ...[...sections].map(([number, section]) => row(`${number}.* ${SECTIONS[number] ?? ''}`, (key) => section[key])),
    row('**all**', sum),
  ];
  const table = rows.map((cells) => `| ${cells.join(' | ')} |`).join('\n');
  return `${table}\n\n${suite} with Python ${python}, wsbroker ${wsbroker}, Node ${node}, ${system}, ${date}.`;
}
