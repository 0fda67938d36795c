// What is measured, one entry per row of the table, and what this package is to reach.

const SOCKET_PEERS = ['bun', 'uws', 'deno', 'ws', 'socket.io'];
const SOCKET_SERVERS = ['wsbroker', ...SOCKET_PEERS];
const HTTP_SERVERS = ['wsbroker', 'bun', 'uws', 'deno', 'node-http'];

/** What a row compares; smaller is better for all of them. `of` takes what the load generator printed. */
export const FIGURES = {
  perMessage: { title: 'CPU/message', unit: 'µs', of: ({ measured }) => measured.cpuPerUnit },
  perDelivery: { title: 'CPU/delivery', unit: 'µs', of: ({ measured }) => measured.cpuPerUnit },
  perRequest: { title: 'CPU/request', unit: 'µs', of: ({ measured }) => measured.cpuPerUnit },
  perCycle: { title: 'CPU/cycle', unit: 'µs', of: ({ measured }) => measured.cpuPerUnit },
  perByte: {
    title: 'CPU/byte',
    unit: 'ns',
    of: ({ measured, settings }) => (measured.cpuPerUnit * 1000) / settings.size,
  },
  toLast: { title: 'publish to last arrival', unit: 'ms', of: ({ details }) => details.publishToLast.p50 / 1000 },
  resident: { title: 'resident memory/socket', unit: 'bytes', of: ({ details }) => details.bytesPerSocket },
  timesQuiet: {
    title: 'p99, times its quiet value',
    unit: '×',
    of: ({ details, measured }) => measured.latency.p99 / details.quiet.p99,
  },
};

/** `of` must have at most `ratio` times what each of `to` has; without `to`, at most `ratio` itself. */
const goal = (ratio, to, of = 'wsbroker') => ({ of, ratio, to });

const echo = (id, title, load, ratio, more = {}) => ({
  id: `echo-${id}`,
  title: `echo, ${title}`,
  load: ['echo', ...load],
  figure: 'perMessage',
  contenders: SOCKET_SERVERS,
  goals: [goal(ratio, ['bun'])],
  ...more,
});

const fanout = (id, title, load, ratio, more = {}) => ({
  id: `fanout-${id}`,
  title,
  load: ['fanout', ...load],
  figure: 'perDelivery',
  contenders: [...SOCKET_SERVERS, 'wsbroker, 2 shards'],
  goals: [goal(ratio, ['bun']), goal(1.1, ['wsbroker'], 'wsbroker, 2 shards')],
  ...more,
});

// A socket for which something waits takes no message that would exceed `maxBackpressure`, and the default is 1 MiB:
// one at a time is what the default allows.
const LARGE = 1024 * 1024;
const MEDIUM = 16 * 1024;
const bytes = (size, count) => ['--size', String(size), '--warm-up-count', String(count)];

const ROWS = [
  echo('64', '64 sockets, 1 in flight', ['--sockets', '64'], 1.0, {
    alsoUnpinned: true,
    contenders: [...SOCKET_SERVERS, 'bare'],
  }),
  echo('64x16', '64 sockets, 16 in flight', ['--sockets', '64', '--in-flight', '16'], 0.8, {
    alsoUnpinned: true,
    contenders: [...SOCKET_SERVERS, 'wsbroker, native echo'],
  }),
  echo('512-text', '512 sockets, strings', ['--sockets', '512'], 0.9),
  echo('512-binary', '512 sockets, Buffers', ['--sockets', '512', '--binary'], 0.9),
  echo('512x16-text', '512 sockets, 16 in flight, strings', ['--sockets', '512', '--in-flight', '16'], 0.9),
  echo(
    '512x16-binary',
    '512 sockets, 16 in flight, Buffers',
    ['--sockets', '512', '--in-flight', '16', '--binary'],
    0.9,
  ),
  echo('paced', '64 sockets, 10,000 messages/s, whatever comes back', ['--rate', '10000'], undefined, { goals: [] }),
  fanout('100', 'publish to 100, 1 publisher', ['--in-flight', '2'], 0.95, { alsoUnpinned: true }),
  fanout('100x60', 'publish to 100, 60 publishers', ['--publishers', '60'], 0.9, { alsoUnpinned: true }),
  fanout('100-members', 'publish to 100, of whom 60 publish', ['--publishers', '60', '--members'], 0.9, {
    contenders: [...SOCKET_SERVERS, 'wsbroker, native relay'],
    goals: [goal(0.9, ['bun'])],
  }),
  fanout('10000', 'publish to 10,000', ['--subscribers', '10000'], 0.9, { sockets: 10_000 }),
  fanout(
    '1000x10',
    'publish to 1,000 channels of 10, 10 publishers',
    ['--subscribers', '10000', '--channels', '1000', '--publishers', '10', '--in-flight', '2'],
    0.9,
    { sockets: 10_000 },
  ),
  {
    id: 'burst',
    title: 'one publish to 10,000 sockets whose process sleeps',
    load: ['burst', '--subscribers', '10000'],
    figure: 'toLast',
    placement: 'unpinned',
    contenders: ['wsbroker, 1 shard', 'wsbroker, 2 shards', ...SOCKET_PEERS],
    goals: [goal(0.6, ['wsbroker, 1 shard', 'bun'], 'wsbroker, 2 shards')],
    sockets: 10_000,
  },
  {
    id: 'http',
    title: 'HTTP GET /, 64 connections',
    load: ['http', '--connections', '64'],
    figure: 'perRequest',
    contenders: HTTP_SERVERS,
    goals: [goal(0.95, ['bun']), goal(0.5, ['node-http'])],
    alsoUnpinned: true,
  },
  {
    id: 'http-mixed',
    title: 'HTTP GET and POST of 100 and 10,000 bytes, 64 connections',
    load: ['http', '--connections', '64', '--mixed'],
    figure: 'perRequest',
    contenders: HTTP_SERVERS,
    goals: [],
  },
  {
    id: 'connect',
    title: 'open, upgrade, one echo, close',
    load: ['connect'],
    figure: 'perCycle',
    contenders: [...SOCKET_SERVERS, 'bare'],
    goals: [goal(0.7, ['bun'])],
  },
  {
    id: 'idle',
    title: 'an idle socket, after one message',
    load: ['idle', '--sockets', '10000'],
    figure: 'resident',
    contenders: SOCKET_SERVERS,
    goals: [goal(1024)],
    sockets: 11_000,
  },
  {
    id: 'blocked',
    title: 'p99 of an echo while another worker blocks for 200 ms at a time',
    load: ['blocked'],
    figure: 'timesQuiet',
    placement: 'unpinned',
    contenders: ['wsbroker, 2 workers'],
    goals: [goal(2, undefined, 'wsbroker, 2 workers')],
  },
  echo('16k', '16 KiB, 64 sockets', bytes(MEDIUM, 1000), 1.0, { figure: 'perByte' }),
  echo('1m', '1 MiB, 8 sockets', ['--sockets', '8', ...bytes(LARGE, 50)], 1.0, { figure: 'perByte' }),
  fanout('16k', 'publish 16 KiB to 100', bytes(MEDIUM, 1000), 1.0, { figure: 'perByte' }),
  fanout('1m', 'publish 1 MiB to 10', ['--subscribers', '10', ...bytes(LARGE, 50)], 1.0, { figure: 'perByte' }),
];

const GROWTH_CONTENDERS = ['wsbroker', 'bun', 'ws'];

/** Points of a curve; `x` is what grows. */
function curve(series, title, figure, points) {
  return points.map(([x, load, sockets = 0]) => ({
    id: `growth-${series}-${x}`,
    title: `${title}: ${x.toLocaleString('en')}`,
    load,
    figure,
    contenders: GROWTH_CONTENDERS,
    goals: [],
    curve: { series, title, x },
    sockets,
  }));
}

const GROWTH = [
  ...curve(
    'subscribers',
    'CPU per delivery, by subscribers',
    'perDelivery',
    [10, 100, 1000, 10_000].map((x) => [x, ['fanout', '--subscribers', String(x)], x]),
  ),
  ...curve(
    'sockets',
    'resident memory per idle socket, by sockets',
    'resident',
    [1000, 5000, 10_000, 15_000].map((x) => [x, ['idle', '--sockets', String(x)], x + 1000]),
  ),
  ...curve(
    'channels',
    'CPU per delivery to 10 sockets, by channels',
    'perDelivery',
    [1, 10, 100, 1000, 10_000, 100_000].map((x) => [
      x,
      ['fanout', '--subscribers', '10', '--publishers', '10', '--quiet-channels', String(x - 1)],
    ]),
  ),
];

/** All rows in their order: pinned, then those that are measured unpinned as well, then the curves. */
export const WORKS = [
  ...ROWS.map((work) => ({ placement: 'pinned', sockets: 0, ...work })),
  ...ROWS.filter(({ alsoUnpinned }) => alsoUnpinned).map((work) => ({
    sockets: 0,
    ...work,
    id: `${work.id}-unpinned`,
    title: `${work.title}, unpinned`,
    placement: 'unpinned',
    contenders: work.contenders.filter((name) => name !== 'wsbroker, 2 shards'),
    goals: [],
  })),
  ...GROWTH.map((work) => ({ placement: 'pinned', ...work })),
];

/** One of each kind, and what is special about some, for a look that takes seconds. */
export const SMOKE = [
  'echo-64',
  'echo-64x16',
  'echo-512-binary',
  'echo-paced',
  'fanout-100x60',
  'fanout-100-members',
  'fanout-1000x10',
  'fanout-1m',
  'burst',
  'http-mixed',
  'connect',
  'idle',
  'blocked',
  'growth-channels-1000',
];

/** The same work with fewer sockets and channels, to see that it works. */
export function quick(work) {
  const many = new Set(['10000', '15000', '5000']);
  const load = work.load.map((word, at) => {
    const option = work.load[at - 1];
    if ((option === '--subscribers' || option === '--sockets') && many.has(word)) return String(Number(word) / 10);
    if (option === '--channels' && word === '1000') return '100';
    if (option === '--quiet-channels') return String(Math.ceil(Number(word) / 100));
    return word;
  });
  if (load[0] === 'idle') load.push('--warm-up-sockets', '100');
  if (load[0] === 'burst') load.push('--bursts', '2', '--sleep', '100');
  return { ...work, load, sockets: work.sockets / 10 };
}
