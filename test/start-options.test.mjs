// `start` binds before it returns, or throws a sentence that names what is wrong and leaves nothing behind.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { registerWorkerThread, start, stats } from 'wsbroker';
import { runsTo } from './helpers/program.mjs';
import { connect, httpUrl, listen, request, serve, throwsCode } from './helpers/serving.mjs';
import { Inbox } from './helpers/waiting.mjs';

const BIND = '127.0.0.1:0';
const PROGRAM = fileURLToPath(new URL('fixtures/program.mjs', import.meta.url));

/** With a worker, so that nothing but the options can be wrong. */
function registered(t) {
  const { unregister } = registerWorkerThread({ handleHttpRequest: () => ({ body: 'ok' }) });
  t.after(unregister);
  t.after(() => assert.equal(stats().listeners, 0, 'nothing is half-started'));
}

test('options of the wrong type or without sense are refused by name', (t) => {
  registered(t);
  const wrong = {
    bind: [undefined, null, 3000, {}, ['127.0.0.1:0']],
    maxMessageSize: [null, '1', -1, 0, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 30, 1n],
    maxBodySize: [null, '1', -1, 1.5, Number.NaN, 2 ** 30],
    maxBackpressure: [null, '1', -1, 0, 1.5, Number.NaN, 2 ** 53],
    slowConsumer: [null, true, 'Close', 'wait', 0],
    heartbeat: [null, true, 45_000, 'off', []],
    'heartbeat.interval': [null, 0, -1, 1.5, '1', 2 ** 31],
    'heartbeat.timeout': [null, 0, -1, 1.5, '1', 2 ** 31],
    requestTimeout: [null, 0, -1, 1.5, '1', 2 ** 31, Number.POSITIVE_INFINITY],
    closeTimeout: [null, 0, -1],
    headerTimeout: [null, 0, -1],
    keepAliveTimeout: [null, 0, -1],
    bodyTimeout: [null, 0, -1],
    handlerTimeout: [null, true, 0, -1, 1.5, '1', Number.NaN, 2 ** 31],
    writeTimeout: [null, 0, -1],
    minBodyRate: [null, true, 0, -1, 1.5, '240', Number.NaN, 2 ** 30 + 1],
    maxHeaderSize: [null, 0, 255, 2 ** 20 + 1, 1.5, '1'],
    maxHeaders: [null, 0, 1001, 1.5, '1'],
    protocols: [null, 'chat', [], {}, new Set(['chat']), Array(65).fill('x')],
    origins: [null, true, '', 'https://example.com', [], {}, new Set(['https://example.com'])],
    'limits.handshakes': [null, 0, -1, 1.5, '1', {}],
    ioThreads: [null, 0, -1, 1.5, 257, '2'],
  };
  for (const [name, values] of Object.entries(wrong)) {
    for (const value of values) {
      const [option, part] = name.split('.');
      const options = { bind: BIND, [option]: part ? { [part]: value } : value };
      const error = throwsCode(() => start(options), 'WSB_INVALID_ARGUMENT');
      assert.match(error.message, new RegExp(`^options\\.${name.replace('.', '\\.')}: expected .+, got .+`));
    }
  }
  for (const options of [undefined, null, BIND, [BIND], 3000]) {
    const error = throwsCode(() => start(options), 'WSB_INVALID_ARGUMENT');
    assert.match(error.message, /^options: expected an object, got /);
  }
});

test('what can be turned off is turned off by false', (t) => {
  const off = { compression: false, heartbeat: false, minBodyRate: false, handlerTimeout: false };
  const limits = Object.fromEntries(
    ['connections', 'connectionsPerIp', 'upgradesPerIp', 'requestsPerIp', 'handshakes']
      .concat(['messagesPerSocket', 'bytesPerSocket', 'channelsPerSocket'])
      .map((name) => [name, false]),
  );
  serve(t, {}, { ...off, trustProxy: false, proxyProtocol: false, limits });
});

test('a heartbeat whose timeout leaves no time for an answer is refused', (t) => {
  registered(t);
  for (const heartbeat of [{ interval: 100, timeout: 100 }, { interval: 120_000 }, { timeout: 45_000 }]) {
    const error = throwsCode(() => start({ bind: BIND, heartbeat }), 'WSB_INVALID_ARGUMENT');
    assert.match(error.message, /^options\.heartbeat\.timeout: expected a time longer than the interval/);
  }
});

test('an unknown option is refused, with the one that was meant', (t) => {
  registered(t);
  const refused = (options) => throwsCode(() => start({ bind: BIND, ...options }), 'WSB_INVALID_ARGUMENT').message;
  assert.match(refused({ maxBodysize: 1 }), /there is no "maxBodysize".*did you mean 'maxBodySize'\?$/);
  assert.match(refused({ hearbeat: false }), /did you mean 'heartbeat'\?$/);
  assert.match(refused({ heartbeat: { intervall: 1 } }), /options\.heartbeat: .*did you mean 'interval'\?$/);
  assert.doesNotMatch(refused({ tls: {} }), /did you mean/);
  assert.match(refused({ tls: {} }), /expected bind, .*maxMessageSize/);
});

test('malformed addresses are refused with a sentence', (t) => {
  registered(t);
  const malformed = [
    '',
    '127.0.0.1',
    '127.0.0.1:',
    '127.0.0.1:x',
    ':65536',
    '::1:80',
    '[::1:80',
    'http://a:80',
    'unix:',
  ];
  for (const bind of malformed) {
    const error = throwsCode(() => start({ bind }), 'WSB_INVALID_ADDRESS');
    assert.ok(error.message.includes(`'${bind}'`) && error.message.includes("'host:port'"), error.message);
  }
});

test('a host that does not resolve, and an address of another machine', (t) => {
  registered(t);
  throwsCode(() => start({ bind: 'no-such-host.invalid:0' }), 'WSB_INVALID_ADDRESS');
  throwsCode(() => start({ bind: '192.0.2.1:0' }), 'WSB_INVALID_ADDRESS');
});

test('a port in use', async (t) => {
  registered(t);
  const other = net.createServer().listen(0, '127.0.0.1');
  t.after(() => other.close());
  await once(other, 'listening');
  const error = throwsCode(() => start({ bind: `127.0.0.1:${other.address().port}` }), 'WSB_ADDRESS_IN_USE');
  assert.match(error.message, new RegExp(`127\\.0\\.0\\.1:${other.address().port} is in use`));
});

test('a missing right', { skip: !process.seteuid && 'no users here' }, (t) => {
  registered(t);
  const { uid } = os.userInfo();
  if (uid === 0) process.seteuid('nobody'); // anybody but root may not write to the root folder
  try {
    const error = throwsCode(() => start({ bind: 'unix:/wsbroker-test.sock' }), 'WSB_PERMISSION_DENIED');
    assert.match(error.message, /may not listen on .*\/wsbroker-test\.sock/);
  } finally {
    if (uid === 0) process.seteuid(uid);
  }
});

/** A port that nobody listens on. */
async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

test('a start that fails is no half of a start: the port is free and the next one works', async (t) => {
  const port = await freePort();
  const bind = `127.0.0.1:${port}`;
  throwsCode(() => start({ bind }), 'WSB_NO_WORKER');
  const registration = registerWorkerThread({});
  try {
    for (const options of [{ maxMessageSize: -1 }, { maxBodySize: -1 }, { maxBackpressure: -1 }, { maxSize: 1 }]) {
      throwsCode(() => start({ bind, ...options }), 'WSB_INVALID_ARGUMENT');
    }
    const other = net.createServer().listen(port, '127.0.0.1');
    await once(other, 'listening');
    throwsCode(() => start({ bind }), 'WSB_ADDRESS_IN_USE');
    other.close();
    await once(other, 'close');
    assert.equal(stats().listeners, 0);
  } finally {
    registration.unregister();
  }
  const server = serve(t, { handleHttpRequest: () => ({ body: 'fine' }) }, { bind });
  throwsCode(() => start({ bind }), 'WSB_ADDRESS_IN_USE');
  assert.equal(server.address.port, port);
  assert.equal(stats().listeners, 1);
  assert.equal((await request(server)).body, 'fine');
});

/** The first port that everybody may listen on; below it the kernel asks for a right. */
function firstUnprivilegedPort() {
  try {
    return Number(readFileSync('/proc/sys/net/ipv4/ip_unprivileged_port_start', 'utf8'));
  } catch {
    return 0;
  }
}

test('a privileged port', { skip: firstUnprivilegedPort() < 2 && 'every port is for everybody here' }, async () => {
  // 65534 is nobody's id on every Linux. The process gives up its rights when the addon is loaded.
  const program = `
    const { registerWorkerThread, start, stats } = await import('wsbroker');
    registerWorkerThread({});
    if (process.getuid() === 0) process.setuid(65534);
    try {
      start({ bind: '127.0.0.1:${firstUnprivilegedPort() - 1}' });
    } catch ({ name, code, message }) {
      console.log(name, code, stats().listeners, message.includes('127.0.0.1:${firstUnprivilegedPort() - 1}'));
    }
    const server = start({ bind: '127.0.0.1:0' });
    console.log((await fetch('http://127.0.0.1:' + server.address.port)).status);
    await server.stop();`;
  await runsTo({ stdout: 'WsBrokerError WSB_PERMISSION_DENIED 0 true\n404' }, program);
});

test('no worker', () => {
  const error = throwsCode(() => start({ bind: BIND }), 'WSB_NO_WORKER');
  assert.match(error.message, /registerWorkerThread\(\)/);
  assert.equal(stats().listeners, 0);
});

test('the address tells the port that was taken, and cannot be changed', async (t) => {
  const server = serve(t);
  assert.equal(server.address.host, '127.0.0.1');
  assert.ok(server.address.port > 0);
  assert.ok(Object.isFrozen(server.address));
});

test('the url is one that this machine can open', async (t) => {
  const socket = path.join(os.tmpdir(), `wsbroker-url-${process.pid}.sock`);
  serve(t, { handleHttpRequest: () => ({ body: 'here' }) });
  const urls = {
    '127.0.0.1:0': /^http:\/\/127\.0\.0\.1:\d+$/,
    '[::1]:0': /^http:\/\/\[::1\]:\d+$/,
    '0.0.0.0:0': /^http:\/\/localhost:\d+$/,
    '[::]:0': /^http:\/\/localhost:\d+$/,
    ':0': /^http:\/\/localhost:\d+$/,
  };
  for (const [bind, expected] of Object.entries(urls)) {
    const server = listen({ bind });
    assert.match(server.url, expected, bind);
    assert.equal(new URL(server.url).port, String(server.address.port));
    assert.equal(await (await fetch(server.url)).text(), 'here', bind);
  }
  if (process.platform !== 'win32') assert.equal(listen({ bind: `unix:${socket}` }).url, `unix:${socket}`);
});

test('IPv6 and a host name', async (t) => {
  const handlers = { handleHttpRequest: ({ remoteAddress }) => ({ body: remoteAddress }) };
  const six = serve(t, handlers, { bind: '[::1]:0' });
  assert.equal(six.address.host, '::1');
  assert.equal(await (await fetch(httpUrl(six))).text(), '::1');
  const named = listen({ bind: 'localhost:0' });
  assert.ok(['127.0.0.1', '::1'].includes(named.address.host));
  assert.equal(await (await fetch(httpUrl(named))).text(), named.address.host);
});

test('every interface', async (t) => {
  const server = serve(t, { handleHttpRequest: () => ({ body: 'ok' }) }, { bind: ':0' });
  assert.equal(await (await fetch(`http://127.0.0.1:${server.address.port}/`)).text(), 'ok');
});

test('a Unix socket', { skip: process.platform === 'win32' && 'no Unix sockets' }, async (t) => {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'wsbroker-'));
  t.after(() => rm(folder, { recursive: true }));
  const file = path.join(folder, 'app.sock');
  const server = serve(
    t,
    { handleHttpRequest: (request) => ({ body: request.remoteAddress }) },
    { bind: `unix:${file}` },
  );
  assert.deepEqual(server.address, { path: file });
  assert.equal((await request(server)).body, 'unix');
  throwsCode(() => start({ bind: `unix:${file}` }), 'WSB_ADDRESS_IN_USE');
});

test('a refused start leaves no socket file', {
  skip: process.platform === 'win32' && 'no Unix sockets',
}, async (t) => {
  serve(t); // from here on the number of I/O threads is decided
  const directory = await mkdtemp(path.join(os.tmpdir(), 'wsbroker-'));
  t.after(() => rm(directory, { recursive: true }));
  const file = path.join(directory, 'app.sock');
  throwsCode(() => start({ bind: `unix:${file}`, ioThreads: stats().ioThreads + 1 }), 'WSB_INVALID_ARGUMENT');
  assert.equal(existsSync(file), false);
});

test('several servers share the sockets of one broker', async (t) => {
  const opened = new Inbox();
  const first = serve(t, { handleSocketOpen: (socketId) => opened.push(socketId) });
  const second = listen();
  await connect(t, first);
  await connect(t, second);
  assert.equal(new Set(await opened.take(2)).size, 2);
  assert.equal(stats().listeners, 2);
});

/** The I/O threads of a process whose first server is started with these options and this environment variable. */
async function ioThreads(options, variable) {
  const program = `
    const { registerWorkerThread, start, stats } = await import('wsbroker');
    registerWorkerThread({});
    const options = JSON.parse(process.argv[3]);
    const outcomes = options.map((each) => {
      try {
        return start({ bind: '127.0.0.1:0', ...each }) && stats().ioThreads;
      } catch (error) {
        return error.code + ' ' + error.message;
      }
    });
    console.log(JSON.stringify(outcomes));
    process.exit();`;
  const env = { ...process.env, WSBROKER_IO_THREADS: variable };
  const { stdout } = await promisify(execFile)(process.execPath, [PROGRAM, program, JSON.stringify(options)], { env });
  return JSON.parse(stdout);
}

test('the first server decides how many I/O threads there are', async () => {
  const [first, second, same, other] = await ioThreads([{ ioThreads: 3 }, {}, { ioThreads: 3 }, { ioThreads: 2 }], '7');
  assert.deepEqual([first, second, same], [3, 3, 3]);
  assert.match(other, /^WSB_INVALID_ARGUMENT ioThreads: expected 3, which the first listener decided/);
});

test('without the option WSBROKER_IO_THREADS decides, and rubbish in it is refused', async () => {
  assert.deepEqual(await ioThreads([{}, { ioThreads: 5 }], '5'), [5, 5]);
  for (const variable of ['0', '257', 'many', '-1', '1.5']) {
    const [refused, given] = await ioThreads([{}, { ioThreads: 2 }], variable);
    assert.match(refused, /^WSB_INVALID_ARGUMENT WSBROKER_IO_THREADS: expected a whole number from 1 to 256/);
    assert.equal(given, 2, 'the option goes before the variable');
  }
});
