// What the README shows of the results in docs/bench.

import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { ROOT } from '../scripts/setup.mjs';
import { versions } from './results.mjs';
import { CONTENDERS } from './servers.mjs';
import { threeDigits } from './statistics.mjs';

const RESULTS = path.join(ROOT, 'docs', 'bench', 'results.json');

/** Who has a column of their own; the others are in docs/bench/results.md. */
const PEERS = ['bun', 'ws', 'node-http'];

/** The chart and the table, or a sentence while there are no results. */
export function readmePart(file = RESULTS) {
  if (!existsSync(file)) return 'No results have been recorded yet: `npm run bench -- --write` does it.';
  const results = JSON.parse(readFileSync(file, 'utf8'));
  return [
    '![CPU time per message, memory per socket: bars for each server](docs/bench/chart.svg)',
    table(
      results.works.filter(({ curve, placement, goals }) => !curve && (placement === 'pinned' || goals.length > 0)),
    ),
    caption(results),
  ].join('\n\n');
}

function table(works) {
  const peers = PEERS.filter((name) => works.some(({ contenders }) => contenders[name]));
  const titles = peers.map((name) => CONTENDERS[name].title);
  const head = ['Work', 'Figure', 'wsbroker', ...titles, 'To the best peer'];
  const rows = works.map((work) => {
    const own = work.contenders[ownName(work)];
    return [
      work.title + (ownName(work) === 'wsbroker' ? '' : ` (${own.title})`),
      `${work.figure.title}, ${work.figure.unit}`,
      figure(own),
      ...peers.map((name) => figure(work.contenders[name])),
      ratio(own, work),
    ];
  });
  const line = (cells) => `| ${cells.join(' | ')} |`;
  return [line(head), line(head.map((_, at) => (at < 2 ? '---' : '--:'))), ...rows.map(line)].join('\n');
}

/** Some works are about a variation of this package only. */
function ownName({ contenders, goals }) {
  return contenders.wsbroker ? 'wsbroker' : goals[0].of;
}

function figure(contender) {
  return contender?.figure ? threeDigits(contender.figure.median) : '';
}

function ratio(own, { contenders, bestPeer }) {
  if (!own?.figure || !bestPeer) return '';
  return `${(own.figure.median / contenders[bestPeer].figure.median).toFixed(2)} × ${contenders[bestPeer].title}`;
}

function caption(results) {
  const { date, machine, rounds, pinned } = results;
  const where = `${machine.processor}, ${machine.cores} cores, ${machine.system}`;
  const how = pinned ? 'server and load pinned to a core each' : 'nothing pinned';
  return `${date}; ${where}; ${versions(results)}. Medians of ${rounds} interleaved rounds, ${how}; less is better.`;
}
