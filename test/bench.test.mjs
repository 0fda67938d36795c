// What is made of the benchmark's figures: medians, ratios, goals, tables and pictures. That it runs end to end is seen by
// `npm run bench -- --smoke`; that the load generator counts right, by the tests in crates/load.

import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, it } from 'node:test';
import { chart, growthChart } from '../bench/chart.mjs';
import { Distance, summaryOf } from '../bench/distance.mjs';
import { parseList } from '../bench/machine.mjs';
import { readmePart } from '../bench/readme.mjs';
import { markdown } from '../bench/report.mjs';
import { checkConditions, isSound, joined, resultOf } from '../bench/results.mjs';
import { measureRounds } from '../bench/rounds.mjs';
import { CONTENDERS, SERVERS } from '../bench/servers.mjs';
import { median, summary, threeDigits } from '../bench/statistics.mjs';
import { FIGURES, quick, SMOKE, WORKS } from '../bench/works.mjs';
import { remove, temporaryFolder } from './helpers/package.mjs';

const NO_FAULTS = { missing: 0, duplicated: 0, disordered: 0, damaged: 0, broken: 0 };

/** What the load generator prints, as far as it is looked at. */
function report(cpuPerUnit, { faults = NO_FAULTS, limited = false } = {}) {
  return {
    settings: { size: 1000 },
    measured: {
      cpuPerUnit,
      rate: 1e6 / cpuPerUnit,
      load: { busy: limited ? 0.99 : 0.3, limited },
      latency: { p50: 10, p99: 20, p999: 30 },
      server: { threads: [] },
    },
    details: { publishToLast: { p50: 5000 }, bytesPerSocket: 900, quiet: { p99: 10 } },
    faults,
  };
}

const WORK = {
  id: 'echo-64',
  title: 'echo',
  load: ['echo'],
  figure: 'perMessage',
  placement: 'pinned',
  goals: [
    { of: 'wsbroker', ratio: 0.9, to: ['bun'] },
    { of: 'wsbroker', ratio: 3 },
    { of: 'wsbroker', ratio: 1, to: ['uws'] },
  ],
};

function measured(work = WORK) {
  const runs = new Map([
    ['wsbroker', [3, 1, 2].map((value) => ({ report: report(value) }))],
    ['bun', [4, 2.5, 2.4].map((value) => ({ report: report(value) }))],
    ['ws', [{ report: report(9) }, { error: 'it did not start' }]],
  ]);
  return resultOf(work, runs);
}

function resultsOf(works) {
  const servers = Object.fromEntries(
    Object.entries(CONTENDERS).map(([name, { title }]) => [name, { title, version: '1.2.3', options: { size: 1 } }]),
  );
  return {
    date: '2026-01-02',
    node: '20.0.0',
    machine: { processor: 'A & B <processor>', cores: 2, memoryGiB: 4, system: 'Linux' },
    pinned: { server: 0, load: 1 },
    rounds: 3,
    window: { seconds: 1 },
    servers,
    skipped: { uws: 'it is not there' },
    works: works.map((work) => ({ date: '2026-01-02', commit: 'abc', ...work })),
  };
}

describe('the works of the benchmark', () => {
  it('have ids of their own, known contenders, goals about these, and a figure', () => {
    assert.equal(new Set(WORKS.map(({ id }) => id)).size, WORKS.length);
    for (const { id, contenders, figure, goals } of WORKS) {
      assert.ok(FIGURES[figure], id);
      for (const name of contenders) assert.ok(SERVERS[CONTENDERS[name]?.server], `${id}: ${name}`);
      for (const { of, to = [] } of goals) {
        for (const name of [of, ...to]) assert.ok(contenders.includes(name), `${id}: a goal about ${name}`);
      }
    }
  });

  it('have one of each kind of load in the smoke run', () => {
    const kinds = (works) => new Set(works.map(({ load }) => load[0]));
    const smoke = WORKS.filter(({ id }) => SMOKE.includes(id));
    assert.equal(smoke.length, SMOKE.length, 'every id is known');
    assert.deepEqual(kinds(smoke), kinds(WORKS));
  });

  it('need 1,600 sockets at most when they are quick', () => {
    for (const work of WORKS.map(quick)) {
      const counts = work.load.filter((word) => /^\d+$/.test(word)).map(Number);
      if (!work.load.includes('--size')) assert.ok(Math.max(0, ...counts) <= 10_000, work.id);
      assert.ok(work.sockets <= 1600, work.id);
    }
  });
});

describe('recorded results', () => {
  const order = [{ id: 'first' }, { id: 'second' }, { id: 'third' }];
  const work = (id, commit) => ({ ...measured({ ...WORK, id }), commit });

  it('keep what is not measured again, with its commit, in the order of the works', () => {
    const recorded = resultsOf([work('third', 'old'), work('first', 'old')]);
    const { works } = joined(recorded, resultsOf([work('second', 'new'), work('third', 'new')]), order);
    assert.deepEqual(
      works.map(({ id, commit }) => [id, commit]),
      [
        ['first', 'old'],
        ['second', 'new'],
        ['third', 'new'],
      ],
    );
    assert.match(markdown(resultsOf(works)), /2026-01-02, commit old and new\./);
  });

  it('are not joined with those of another machine, another Node, other windows or rounds, or another version', () => {
    const recorded = resultsOf([work('first', 'old')]);
    const { machine, node, window, rounds, pinned } = recorded;
    const conditions = { machine, node, window, rounds, pinned };
    checkConditions(recorded, conditions);
    for (const other of [
      { machine: {} },
      { node: '22.0.0' },
      { window: { seconds: 2 } },
      { rounds: 5 },
      { pinned: null },
    ]) {
      const refused = new RegExp(`--add: ${Object.keys(other)[0]} is not`);
      assert.throws(() => checkConditions(recorded, { ...conditions, ...other }), refused);
    }
    const newer = resultsOf([work('second', 'new')]);
    newer.servers.bun.version = '1.2.4';
    assert.throws(() => joined(recorded, newer, order), /--add: bun is not/);
  });

  it('tell all their dates, and leave out nothing any more that has been measured', () => {
    const recorded = {
      ...resultsOf([work('first', 'old')]),
      skipped: { second: 'too few descriptors', uws: 'not there' },
    };
    delete recorded.servers.uws;
    const newer = { ...resultsOf([{ ...work('second', 'new'), date: '2026-02-03' }]), servers: {} };
    const { date, skipped } = joined(recorded, newer, order);
    assert.deepEqual([date, Object.keys(skipped)], ['2026-01-02 and 2026-02-03', ['uws']]);
  });
});

describe('figures', () => {
  it('are medians, with the smallest and the largest', () => {
    assert.equal(median([]), undefined);
    assert.equal(median([3, 1, 2]), 2);
    assert.equal(median([4, 1, 3, 2]), 2.5);
    assert.deepEqual(summary([3, undefined, 1, 2]), { median: 2, min: 1, max: 3 });
    assert.equal(summary([undefined]), undefined);
  });

  it('are shown with three digits', () => {
    const shown = [0, 0.01234, 0.5, 1, 9.996, 12.34, 123.4, 1234.4, 1e6, undefined].map(threeDigits);
    assert.deepEqual(shown, ['0', '0.0123', '0.500', '1.00', '10.0', '12.3', '123', '1,230', '1,000,000', '-']);
  });

  it('are held against the goals and the best peer', () => {
    const result = measured();
    assert.equal(result.bestPeer, 'bun');
    assert.deepEqual(
      result.goals.map(({ value, reached }) => ({ value, reached })),
      [
        { value: 2 / 2.5, reached: true },
        { value: 2, reached: true },
        { value: undefined, reached: undefined },
      ],
    );
  });

  it('are not held against what no server is', () => {
    const runs = new Map([
      ['wsbroker', [{ report: report(2) }]],
      ['bare', [{ report: report(1) }]],
    ]);
    assert.equal(resultOf(WORK, runs).bestPeer, undefined);
    runs.set('bun', [{ report: report(3) }]);
    assert.equal(resultOf(WORK, runs).bestPeer, 'bun');
  });

  it('count as sound only without faults and errors', () => {
    const sound = (...rounds) => isSound(resultOf(WORK, new Map([['wsbroker', rounds]])));
    assert.ok(sound({ report: report(1) }, { report: report(2) }));
    assert.ok(!sound({ report: report(1) }, { error: 'it did not start' }));
    for (const kind of Object.keys(NO_FAULTS)) {
      assert.ok(!sound({ report: report(1) }, { report: report(1, { faults: { ...NO_FAULTS, [kind]: 1 } }) }), kind);
    }
  });
});

describe('what is told', () => {
  const CURVE = { series: 'subscribers', title: 'by subscribers' };
  const curve = [10, 10_000].map((x) => measured({ ...WORK, id: `growth-${x}`, goals: [], curve: { ...CURVE, x } }));
  const results = resultsOf([measured(), ...curve]);

  it('is a report that names machine, versions, options, what was left out, and each failure', () => {
    const text = markdown(results);
    for (const part of [
      'A & B',
      'commit abc',
      'ws 1.2.3: size: 1',
      'uws: not measured',
      'echo, ws: it did not start',
    ]) {
      assert.ok(text.includes(part), `${part} in\n${text}`);
    }
    assert.match(text, /wsbroker: at most 0\.9 × bun: 0\.800 ✓/);
    assert.match(text, /0\.80 × Bun\.serve/);
  });

  it('marks a load generator that was the limit', () => {
    const limited = resultOf(WORK, new Map([['bun', [{ report: report(1, { limited: true }) }]]]));
    assert.match(markdown(resultsOf([limited])), /99 % ⚠/);
    assert.doesNotMatch(markdown(results), /% ⚠/);
  });

  it('is drawn as SVG, with nothing undefined and nothing unescaped', () => {
    for (const picture of [chart(results), growthChart(results), chart(resultsOf([]))]) {
      assert.doesNotMatch(picture, /NaN|undefined|Infinity|<processor>/);
      assert.match(picture, /^<svg [^>]*>[\s\S]*<\/svg>\n$/);
    }
    assert.equal(chart(results).match(/<rect [^>]*height="12"/g).length, 3, 'a bar for each contender');
    assert.match(growthChart(results), />10k</);
  });

  it('is shown in the README with its date, machine and versions', async () => {
    const folder = await temporaryFolder('bench');
    try {
      const file = path.join(folder, 'results.json');
      await writeFile(file, JSON.stringify(results));
      const part = readmePart(file);
      assert.match(part, /docs\/bench\/chart\.svg/);
      assert.match(part, /\| echo \| CPU\/message, µs \| 2\.00 \| 2\.50 \| 9\.00 \| 0\.80 × Bun\.serve \|/);
      for (const fact of ['2026-01-02', 'A & B', 'Node 20.0.0', 'Bun.serve 1.2.3'])
        assert.ok(part.includes(fact), fact);
      assert.match(readmePart(path.join(folder, 'none.json')), /npm run bench/);
    } finally {
      await remove(folder);
    }
  });
});

describe('cores that move', () => {
  const [NEAR, APART] = [40, 400];

  /** Two cores, how far from each other at each look; behind the last look they stay. */
  class Cores {
    #looks = [];
    pauses = 0;
    distance = new Distance(
      () => (this.#looks.length > 1 ? this.#looks.shift() : this.#looks[0]),
      async () => {
        this.pauses += 1;
      },
    );

    around(looks, what) {
      this.#looks = [...looks];
      return what(this.distance);
    }

    /** The distance that is noted of a run. */
    async run(...looks) {
      const { result, distance } = await this.around(looks, (distance) => distance.near(async () => 'ran'));
      assert.equal(result, 'ran');
      return distance;
    }
  }

  it('are left alone while they stay', async () => {
    const cores = new Cores();
    assert.equal(await cores.run(NEAR, 2 * NEAR), 2 * NEAR);
    assert.equal(cores.distance.isApart(2 * NEAR), false);
    assert.equal(cores.pauses, 0);
  });

  it('are waited for', async () => {
    const cores = new Cores();
    await cores.run(NEAR);
    assert.equal(await cores.run(APART, APART, NEAR), NEAR);
    assert.equal(cores.pauses, 2);
  });

  it('are found apart where they move in a run, and where they were all along', async () => {
    const cores = new Cores();
    const first = await cores.run(APART);
    assert.equal(cores.distance.isApart(first), false, 'nothing else is known yet');
    const second = await cores.run(NEAR, APART);
    assert.ok([first, second].every((distance) => cores.distance.isApart(distance)));
  });

  it('are waited for once while they stay apart, and again when they have been back', async () => {
    const cores = new Cores();
    await cores.run(NEAR);
    assert.equal(await cores.run(APART), APART);
    const { pauses } = cores;
    assert.equal(pauses, 240);
    assert.equal(await cores.run(APART), APART);
    assert.equal(cores.pauses, pauses);
    await cores.run(NEAR);
    assert.equal(await cores.run(APART, NEAR), NEAR);
    assert.equal(cores.pauses, pauses + 1);
  });

  it('are not looked at where that cannot be done', async () => {
    const cores = new Cores();
    assert.equal(await cores.run(undefined), undefined);
    assert.equal(cores.distance.isApart(undefined), false);
    assert.equal(await cores.run(undefined, NEAR), NEAR);
  });

  describe('have runs repeated', () => {
    /** Rounds of `wsbroker` and `bun` on cores that are so far from each other before and behind each of the runs in turn. */
    async function measureOn(cores, distances, reports = []) {
      const order = [];
      const measure = async (name) => {
        order.push(name);
        return { report: reports.shift() ?? report(order.length) };
      };
      const looks = distances.flatMap((distance) => [NEAR, distance]);
      const runs = await cores.around(looks, (distance) =>
        measureRounds(['wsbroker', 'bun'], 2, measure, distance, () => {}),
      );
      const kept = [...runs.values()].flat();
      return {
        order,
        runs,
        figures: kept.map((run) => run.report.measured.cpuPerUnit),
        tries: kept.map((run) => run.tries),
      };
    }

    it('at the end of their row, each in its place', async () => {
      const { order, figures, tries, runs } = await measureOn(new Cores(), [NEAR, APART, NEAR, NEAR, NEAR]);
      assert.deepEqual(order, ['wsbroker', 'bun', 'wsbroker', 'bun', 'bun']);
      assert.deepEqual([...runs.keys()], ['wsbroker', 'bun']);
      assert.deepEqual(figures, [1, 3, 5, 4]);
      assert.deepEqual(tries, [1, 1, 2, 1]);
    });

    it('twice at most, and keep that for which they were nearest', async () => {
      const { order, figures, tries } = await measureOn(new Cores(), [APART, NEAR, NEAR, NEAR, 3 * NEAR, APART]);
      assert.equal(order.length, 6);
      assert.deepEqual([figures[0], tries[0]], [5, 3]);
    });

    it('but not what failed', async () => {
      const faulty = report(7, { faults: { ...NO_FAULTS, missing: 1 } });
      const { order, figures } = await measureOn(new Cores(), [APART, NEAR, NEAR, NEAR], [faulty]);
      assert.equal(order.length, 4);
      assert.equal(figures[0], 7);
      const later = await measureOn(
        new Cores(),
        [APART, NEAR, NEAR, NEAR, APART],
        [1, 2, 3, 4].map(report).concat(faulty),
      );
      assert.equal(later.figures[0], 7, 'a repeated run that fails is told');
    });

    it('but not while they stay apart, nor where nobody looks', async () => {
      const cores = new Cores();
      await cores.run(NEAR);
      const stay = (distance) =>
        measureRounds(
          ['wsbroker'],
          3,
          async () => ({ report: report(1) }),
          distance,
          () => {},
        );
      const runs = await cores.around([APART], stay);
      assert.deepEqual(
        runs.get('wsbroker').map(({ tries }) => tries),
        [1, 1, 1],
      );
      assert.equal((await stay(undefined)).get('wsbroker').length, 3);
    });
  });

  it('are told of in the results', async () => {
    const cores = new Cores();
    await cores.run(NEAR);
    const runs = [
      { distance: NEAR, tries: 2 },
      { distance: NEAR, tries: 1 },
      { distance: APART, tries: 3 },
    ];
    assert.equal(summaryOf([{ tries: 1 }], cores.distance), undefined);
    assert.equal(summaryOf(runs, undefined), undefined);
    assert.deepEqual(summaryOf(runs, cores.distance), { nanoseconds: NEAR, repeated: 3, apart: 1 });
    const reported = new Map([['bun', runs.map((run) => ({ report: report(1), ...run }))]]);
    const text = markdown(resultsOf([resultOf(WORK, reported, cores.distance), measured()]));
    assert.match(text, /back: 40\.0 ns, median of 1 rows, and at most 40\.0\./);
    assert.match(text, /apart: 3; counted all the same: 1\./);
    assert.doesNotMatch(markdown(resultsOf([measured()])), /moved apart/);
  });
});

describe('cores', () => {
  it('are read from a list of ranges', () => {
    assert.deepEqual(parseList('0-2,5'), [0, 1, 2, 5]);
    assert.deepEqual(parseList('3'), [3]);
  });
});
