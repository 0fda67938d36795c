// From the reports of all rounds to what is told of a work.

import { StepFailed } from '../scripts/setup.mjs';
import { summaryOf } from './distance.mjs';
import { CONTENDERS, SERVERS } from './servers.mjs';
import { median, summary } from './statistics.mjs';
import { FIGURES } from './works.mjs';

/**
 * @param {object} work
 * @param {Map<string, import('./rounds.mjs').Run[]>} runs by contender, one per round
 * @param {import('./distance.mjs').Distance} [cores] where they were, if that was looked at
 */
export function resultOf(work, runs, cores) {
  const contenders = Object.fromEntries([...runs].map(([name, rounds]) => [name, contenderResult(work, name, rounds)]));
  const { title, unit } = FIGURES[work.figure];
  const distance = summaryOf([...runs.values()].flat(), cores);
  return {
    id: work.id,
    title: work.title,
    placement: work.placement,
    load: work.load,
    figure: { title, unit },
    contenders,
    bestPeer: bestPeer(contenders),
    goals: work.goals.map((goal) => judge(goal, contenders)),
    ...(distance ? { distance } : {}),
    ...(work.curve ? { curve: work.curve } : {}),
  };
}

function contenderResult(work, name, rounds) {
  const reports = rounds.flatMap(({ report }) => report ?? []);
  const middle = (of) => median(reports.map(of).filter((value) => value !== undefined));
  const latency = (key) => middle(({ measured }) => measured?.latency?.[key]);
  return {
    title: CONTENDERS[name].title,
    rounds: rounds.length,
    figure: summary(reports.map(FIGURES[work.figure].of)),
    rate: middle(({ measured }) => measured?.rate),
    latency: latency('p50') && { p50: latency('p50'), p99: latency('p99'), p999: latency('p999') },
    loadBusy: middle(({ measured }) => measured?.load.busy),
    // In so many rounds the load generator may have been the limit.
    loadLimited: reports.filter(({ measured }) => measured?.load.limited).length,
    threads: reports.at(-1)?.measured?.server?.threads,
    details: reports.at(-1)?.details,
    faults: sumOfFaults(reports),
    errors: rounds.flatMap(({ error }) => error ?? []),
  };
}

function sumOfFaults(reports) {
  const sum = { missing: 0, duplicated: 0, disordered: 0, damaged: 0, broken: 0 };
  for (const { faults } of reports) for (const kind of Object.keys(sum)) sum[kind] += faults[kind];
  return sum;
}

/** Whether every message of a run came once, in order and whole, and it could be run at all. */
export function isFaultless({ report, error }) {
  return error === undefined && report !== undefined && isNone(report.faults);
}

/** The same for every round of a work. */
export function isSound({ contenders }) {
  return Object.values(contenders).every(({ faults, errors }) => errors.length === 0 && isNone(faults));
}

function isNone(faults) {
  return Object.values(faults).every((count) => count === 0);
}

const NO_PEERS = ['wsbroker', 'bare'];

function bestPeer(contenders) {
  const peers = Object.entries(contenders).filter(
    ([name, { figure }]) => figure && !NO_PEERS.includes(CONTENDERS[name].server),
  );
  peers.sort(([, a], [, b]) => a.figure.median - b.figure.median);
  return peers[0]?.[0];
}

/** Refuses what cannot stand beside recorded results before it is measured: another machine, another Node, other windows. */
export function checkConditions(recorded, conditions) {
  for (const [what, value] of Object.entries(conditions)) checkSame(what, recorded[what], value);
}

function checkSame(what, before, now) {
  if (JSON.stringify(before) === JSON.stringify(now)) return;
  throw new StepFailed(`--add: ${what} is not what it was when the rest was measured, so it all has to be measured`);
}

/**
 * Recorded results with newer ones in their places. Each work keeps its own date and commit.
 *
 * @param {object} recorded
 * @param {object} measured under the same conditions
 * @param {{ id: string }[]} order of all works
 */
export function joined(recorded, measured, order) {
  for (const [name, about] of Object.entries(measured.servers)) {
    checkSame(name, recorded.servers[name] ?? about, about);
  }
  const byId = new Map([...recorded.works, ...measured.works].map((work) => [work.id, work]));
  const works = order.flatMap(({ id }) => byId.get(id) ?? []);
  const servers = { ...recorded.servers, ...measured.servers };
  const isMeasured = (name) => name in servers || byId.has(name);
  const skipped = Object.entries({ ...recorded.skipped, ...measured.skipped }).filter(([name]) => !isMeasured(name));
  return { ...measured, date: each(works, 'date'), servers, skipped: Object.fromEntries(skipped), works };
}

/** What the works have for this, each once: their dates, their commits. */
export function each(works, key) {
  return [...new Set(works.map((work) => work[key]))].join(' and ');
}

/** A goal with its measured value; `reached` is undefined when one of the contenders was not measured. */
function judge({ of, ratio, to = [] }, contenders) {
  const figure = contenders[of]?.figure?.median;
  const values = to.map((name) => contenders[name]?.figure?.median);
  const text = to.length === 0 ? `${of}: at most ${ratio}` : `${of}: at most ${ratio} × ${to.join(', and × ')}`;
  if (figure === undefined || values.includes(undefined)) return { of, text };
  const value = to.length === 0 ? figure : Math.max(...values.map((other) => figure / other));
  return { of, text, value, reached: value <= ratio };
}

/** `node:http` is Node, and the other a part of this repository. */
const WITHOUT_VERSION = ['node-http', 'bare'];

/** What was measured, with versions, for a caption: variations of a server are that server. */
export function versions({ node, servers }) {
  const known = Object.entries(servers).filter(([name]) => name in SERVERS && !WITHOUT_VERSION.includes(name));
  return [`Node ${node}`, ...known.map(([, { title, version }]) => `${title} ${version}`)].join(', ');
}
