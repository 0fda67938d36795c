// The results as Markdown, which a terminal shows well enough too.

import { each } from './results.mjs';
import { median, threeDigits } from './statistics.mjs';

/** The whole report. */
export function markdown(results) {
  const rows = results.works.filter(({ curve }) => !curve);
  const curves = results.works.filter(({ curve }) => curve);
  return [
    header(results),
    '## What it costs the server',
    figures(rows),
    '## Throughput and latency',
    'Latencies in µs: half, 99 % and 99.9 % of them are at most this. ⚠ marks a load generator that was busy for more than 95 % of the window: the rate may be its own.',
    throughput(rows),
    ...(curves.length > 0 ? ['## Growth', figures(curves, false)] : []),
    faults(results.works),
  ].join('\n\n');
}

function header({ works, node, short, machine, rounds, window, servers, skipped, pinned }) {
  const used = Object.values(servers).map(({ title, version, options }) => {
    const set = Object.entries(options).map(([name, value]) => `${name}: ${JSON.stringify(value)}`);
    return `- ${title} ${version}: ${set.length > 0 ? set.join(', ') : 'default options'}`;
  });
  return [
    `${machine.processor}, ${machine.cores} cores, ${machine.memoryGiB} GiB, ${machine.system}. Node ${node}.`,
    `${each(works, 'date')}, commit ${each(works, 'commit')}. Medians of ${rounds} interleaved rounds, windows of ${window.seconds} s.`,
    pinned
      ? `Server on core ${pinned.server}, load on core ${pinned.load}, unless a row says unpinned.`
      : 'Nothing was pinned.',
    ...distanceOf(works),
    ...(short
      ? ['**Short windows and fewer sockets than the rows say: this shows that everything works, not how fast.**']
      : []),
    '',
    ...used,
    ...Object.entries(skipped).map(([name, reason]) => `- ${name}: not measured, ${reason}`),
  ].join('\n');
}

/** Where the two cores were, if somebody has looked. */
function distanceOf(works) {
  const noted = works.flatMap(({ distance }) => distance ?? []);
  if (noted.length === 0) return [];
  const sum = (key) => noted.reduce((total, distance) => total + distance[key], 0);
  const nanoseconds = noted.map((distance) => distance.nanoseconds);
  const [middle, most] = [median(nanoseconds), Math.max(...nanoseconds)].map(threeDigits);
  return [
    `From one core to the other and back: ${middle} ns, median of ${noted.length} rows, and at most ${most}. Runs repeated because the cores had moved apart: ${sum('repeated')}; counted all the same: ${sum('apart')}.`,
  ];
}

function figures(works, withGoals = true) {
  const names = columns(works);
  const head = ['work', 'figure', ...names, ...(withGoals ? ['to the best peer', 'goal'] : [])];
  const rows = works.map((work) => [
    work.title,
    `${work.figure.title}, ${work.figure.unit}`,
    ...names.map((name) => figureCell(work.contenders[name])),
    ...(withGoals ? [ratioCell(work), work.goals.map(goalCell).join('<br>') || '-'] : []),
  ]);
  return table(head, rows);
}

function throughput(works) {
  const rows = works.flatMap((work) =>
    Object.values(work.contenders)
      .filter(({ rate }) => rate !== undefined)
      .map(({ title, rate, latency, loadBusy, loadLimited }) => [
        work.title,
        title,
        threeDigits(rate),
        ...['p50', 'p99', 'p999'].map((key) => threeDigits(latency?.[key])),
        `${Math.round(loadBusy * 100)} %${loadLimited > 0 ? ' ⚠' : ''}`,
      ]),
  );
  return table(['work', 'server', 'a second', 'p50', 'p99', 'p99.9', 'load generator busy'], rows);
}

/** The contenders of all these works, in the order of their first row. */
function columns(works) {
  return [...new Set(works.flatMap(({ contenders }) => Object.keys(contenders)))];
}

function figureCell(contender) {
  if (!contender) return '';
  if (contender.figure) return threeDigits(contender.figure.median);
  return contender.errors.length > 0 ? 'failed' : '-';
}

function ratioCell({ contenders, goals, bestPeer }) {
  const own = (contenders.wsbroker ?? contenders[goals[0]?.of])?.figure?.median;
  if (own === undefined || !bestPeer) return '-';
  return `${(own / contenders[bestPeer].figure.median).toFixed(2)} × ${contenders[bestPeer].title}`;
}

function goalCell({ text, value, reached }) {
  if (reached === undefined) return `${text}: not measured`;
  return `${text}: ${threeDigits(value)} ${reached ? '✓' : '✗'}`;
}

function faults(works) {
  const all = works.flatMap(({ title, contenders }) =>
    Object.values(contenders).map((contender) => ({ work: title, ...contender })),
  );
  const measured = all.reduce((sum, { rounds }) => sum + rounds, 0);
  const lines = all.flatMap(({ work, title, faults: counted, errors }) => [
    ...Object.entries(counted)
      .filter(([, count]) => count > 0)
      .map(([kind, count]) => `- ${work}, ${title}: ${count} ${kind}`),
    ...errors.map((error) => `- ${work}, ${title}: ${error}`),
  ]);
  const summary = `${measured} runs, in each of which every message was checked.`;
  if (lines.length === 0) return `${summary} Missing, duplicated, disordered or damaged: 0.`;
  return [summary, ...lines].join('\n');
}

function table(head, rows) {
  const widths = head.map((cell, at) => Math.max(cell.length, ...rows.map((row) => row[at].length)));
  const line = (cells) => `| ${cells.map((cell, at) => cell.padEnd(widths[at])).join(' | ')} |`;
  return [line(head), `| ${widths.map((width) => '-'.repeat(width)).join(' | ')} |`, ...rows.map(line)].join('\n');
}
