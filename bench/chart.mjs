// Pictures of the results: SVG made by hand, readable on light and dark backgrounds.

import { versions } from './results.mjs';
import { CONTENDERS } from './servers.mjs';
import { threeDigits } from './statistics.mjs';

const WIDTH = 860;
const LABEL = 330;
const BAR = 12;
const GAP = 3;
const ROW_GAP = 16;
const HEAD = 64;

/** The colours by server, which are those of its legend entry. */
const COLOURS = {
  wsbroker: '#d9480f',
  bun: '#5c7cfa',
  uws: '#7048e8',
  deno: '#12b886',
  ws: '#868e96',
  'socket.io': '#adb5bd',
  'node-http': '#868e96',
  bare: '#495057',
};

/** The rows of the chart; the others are in the table. */
const SHOWN = ['echo-64', 'echo-64x16', 'fanout-100', 'fanout-100x60', 'fanout-10000', 'http', 'connect', 'idle'];

/** One group of bars per work, each as long as its figure against the largest one shown of the group. */
export function chart(results) {
  const works = results.works.filter(({ id }) => SHOWN.includes(id));
  const parts = [];
  let y = HEAD;
  for (const work of works) {
    const bars = barsOf(work);
    if (bars.length === 0) continue;
    const most = Math.max(...bars.map(({ value }) => value));
    const height = bars.length * (BAR + GAP);
    parts.push(text(LABEL - 12, y + height / 2 - 2, work.title, 'end'));
    parts.push(text(LABEL - 12, y + height / 2 + 13, `${work.figure.title}, ${work.figure.unit}`, 'end', 'quiet'));
    for (const { server, value } of bars) {
      const length = Math.max(1, (value / most) * (WIDTH - LABEL - 90));
      parts.push(
        `<rect x="${LABEL}" y="${y}" width="${length.toFixed(1)}" height="${BAR}" rx="2" fill="${COLOURS[server]}"/>`,
      );
      parts.push(text(LABEL + length + 6, y + BAR - 2, threeDigits(value), 'start', 'small'));
      y += BAR + GAP;
    }
    y += ROW_GAP;
  }
  const { machine, date, rounds } = results;
  const caption = `${machine.processor}, ${machine.cores} cores, ${machine.system}; ${date}; medians of ${rounds} rounds`;
  parts.push(text(16, y + 10, caption, 'start', 'small quiet'));
  parts.push(text(16, y + 26, versions(results), 'start', 'small quiet'));
  return svg(WIDTH, y + 40, 'What it costs the server: shorter is better', legend(serversOf(works)), parts);
}

function barsOf({ contenders }) {
  return Object.entries(contenders)
    .filter(([name, { figure }]) => figure && !name.includes(','))
    .map(([name, { figure }]) => ({ server: CONTENDERS[name].server, value: figure.median }));
}

const PANEL = { width: 270, height: 180, left: 48, top: 90, gap: 16 };

/** The curves, a panel for each series; both axes begin at zero or one, and the lower one is logarithmic. */
export function growthChart(results) {
  const points = results.works.filter(({ curve }) => curve);
  const series = [...new Set(points.map(({ curve }) => curve.series))];
  const parts = series.flatMap((name, at) => {
    const x = at * (PANEL.width + PANEL.gap);
    return panel(
      points.filter(({ curve }) => curve.series === name),
      x,
    );
  });
  const width = Math.max(series.length * (PANEL.width + PANEL.gap), 300);
  const { machine, date } = results;
  parts.push(text(16, PANEL.top + PANEL.height + 44, `${machine.processor}; ${date}`, 'start', 'small quiet'));
  return svg(width, PANEL.top + PANEL.height + 60, 'Growth: flat is better', legend(serversOf(points)), parts);
}

function panel(points, left) {
  const [{ curve, figure }] = points;
  const lines = linesOf(points);
  const values = lines.flatMap(({ dots }) => dots.map(({ value }) => value));
  if (values.length === 0) return [];
  const most = Math.max(...values);
  const [first, last] = [points[0].curve.x, points.at(-1).curve.x];
  const across = (x) => {
    const part = last === first ? 0 : Math.log(x / first) / Math.log(last / first);
    return left + PANEL.left + part * (PANEL.width - PANEL.left - 10);
  };
  const down = (value) => PANEL.top + PANEL.height * (1 - value / (most * 1.05));
  const base = down(0);
  return [
    text(left + 16, PANEL.top - 14, curve.title, 'start', 'small'),
    text(left + PANEL.left - 6, down(most) + 4, threeDigits(most), 'end', 'small quiet'),
    text(left + PANEL.left - 6, base, '0', 'end', 'small quiet'),
    text(left + PANEL.left - 6, PANEL.top + PANEL.height / 2, figure.unit, 'end', 'small quiet'),
    `<path d="M${left + PANEL.left} ${PANEL.top}V${base}H${left + PANEL.width}" class="axis"/>`,
    ...points.map(({ curve: { x } }) => text(across(x), base + 16, short(x), 'middle', 'small quiet')),
    ...lines.map(({ server, dots }) => {
      const path = dots.map(({ x, value }) => `${across(x).toFixed(1)} ${down(value).toFixed(1)}`).join('L');
      return `<path d="M${path}" fill="none" stroke="${COLOURS[server]}" stroke-width="2"/>`;
    }),
  ];
}

/** 100000 → 100k */
function short(x) {
  return x < 1000 ? String(x) : `${x / 1000}k`;
}

function linesOf(points) {
  const names = [...new Set(points.flatMap(({ contenders }) => Object.keys(contenders)))];
  return names.map((name) => ({
    server: CONTENDERS[name].server,
    dots: points
      .filter(({ contenders }) => contenders[name]?.figure)
      .map(({ curve, contenders }) => ({ x: curve.x, value: contenders[name].figure.median })),
  }));
}

function serversOf(works) {
  return [...new Set(works.flatMap(({ contenders }) => Object.keys(contenders)))]
    .map((name) => CONTENDERS[name].server)
    .filter((server, at, all) => all.indexOf(server) === at);
}

function legend(servers) {
  let x = 16;
  return servers.flatMap((server) => {
    const { title } = CONTENDERS[server];
    const entry = [
      `<rect x="${x}" y="38" width="10" height="10" rx="2" fill="${COLOURS[server]}"/>`,
      text(x + 15, 47, title, 'start', 'small'),
    ];
    x += 36 + title.length * 6.5;
    return entry;
  });
}

function svg(width, height, title, ...parts) {
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-label="${escapeXml(title)}">
<style>
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.small { font-size: 11px }
.quiet { fill: #59636e }
.title { font-size: 16px; font-weight: 600 }
.axis { fill: none; stroke: #59636e }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc }
  .quiet { fill: #9198a1 }
  .axis { stroke: #9198a1 }
}
</style>
${[text(16, 26, title, 'start', 'title'), ...parts.flat()].join('\n')}
</svg>
`;
}

function text(x, y, words, anchor, classes = '') {
  const attribute = classes ? ` class="${classes}"` : '';
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" text-anchor="${anchor}"${attribute}>${escapeXml(words)}</text>`;
}

function escapeXml(words) {
  return words.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`);
}
