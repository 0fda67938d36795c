// Who the client is, and what one client may take: over real sockets, with four threads of handlers.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import { test } from 'node:test';
import { registerWorkerThread, start, stats } from 'wsbroker';
import { connectRaw, handshake } from './helpers/raw.mjs';
import { connect, listen, open, refusal, request, serve, throwsCode } from './helpers/serving.mjs';
import { startThreads } from './helpers/threads.mjs';
import { eventually, within } from './helpers/waiting.mjs';

const BIND = '127.0.0.1:0';

/** Linux answers on all of 127.0.0.0/8 without being told; elsewhere only 127.0.0.1 is there. */
const ONE_ADDRESS = process.platform !== 'linux' && 'the loopback network has one address here';

/** Nothing of it comes back while a test runs. */
const of = (capacity) => ({ capacity, interval: 2_000_000_000 });

/** `limited`, counted from now on. */
function limitedFromNow() {
  const before = stats().limited;
  return () => {
    const changes = Object.entries(stats().limited).map(([name, value]) => [name, value - before[name]]);
    return Object.fromEntries(changes.filter(([, change]) => change > 0));
  };
}

/** The outcome of a handshake: 101, the status of a refusal, or 'closed'. */
async function outcomeOf(t, server, options) {
  const client = open(t, server, options);
  const refused = once(client, 'unexpected-response').then(([, response]) => response.resume().statusCode);
  const closed = client.closed.then(() => 'closed');
  const opened = once(client, 'open').then(() => 101);
  for (const outcome of [refused, opened]) outcome.catch(() => {});
  return within(Promise.any([opened, refused, closed]), 'an outcome');
}

test('a client has so many connections, counted over all threads', { skip: ONE_ADDRESS }, async (t) => {
  const threads = await startThreads(t, 4);
  const server = listen({ limits: { connectionsPerIp: 12 } });
  const limited = limitedFromNow();
  const outcomes = await Promise.all(
    Array.from({ length: 40 }, () => outcomeOf(t, server, { localAddress: '127.0.0.2' })),
  );
  assert.equal(outcomes.filter((outcome) => outcome === 101).length, 12);
  assert.ok(outcomes.includes(429), String(outcomes));
  assert.deepEqual(limited(), { connectionsPerIp: 28 });
  await connect(t, server, { localAddress: '127.0.0.3' });
  await eventually(() => assert.equal(threads.flatMap((thread) => thread.of('open')).length, 13));
  for (const thread of threads) assert.ok(thread.of('open').length >= 3, 'each thread has its share');
});

test('the end of a connection makes room for exactly one', async (t) => {
  const server = serve(t, {}, { limits: { connectionsPerIp: 3 } });
  const clients = [await connect(t, server), await connect(t, server)];
  await connect(t, server);
  for (const end of [(client) => client.close(), (client) => client.terminate()]) {
    assert.equal((await refusal(t, server)).status, 429);
    end(clients.pop());
    await eventually(async () => assert.equal(await outcomeOf(t, server), 101));
  }
  assert.equal((await refusal(t, server)).status, 429);
});

test('requests are counted to the token over four threads', { skip: ONE_ADDRESS }, async (t) => {
  const threads = await startThreads(t, 4);
  const server = listen({ limits: { requestsPerIp: of(50) } });
  const limited = limitedFromNow();
  const answers = await Promise.all(
    Array.from({ length: 80 }, (_, n) => request(server, `/${n}`, { localAddress: `127.0.0.${4 + (n % 2)}` })),
  );
  assert.ok(
    answers.every(({ status }) => status === 200),
    'forty each',
  );
  const more = await Promise.all(Array.from({ length: 30 }, () => request(server, '/', { localAddress: '127.0.0.4' })));
  assert.equal(more.filter(({ status }) => status === 200).length, 10);
  const refused = more.find(({ status }) => status === 429);
  // A token takes 40,000 s to come back.
  assert.ok(Number(refused.headers['retry-after']) > 30_000, refused.headers['retry-after']);
  assert.deepEqual(limited(), { requestsPerIp: 20 });
  await eventually(() => assert.equal(threads.flatMap((thread) => thread.of('request')).length, 90));
});

test('upgrades have a bucket of their own', async (t) => {
  const server = serve(t, { handleHttpRequest: () => ({ body: 'ok' }) }, { limits: { upgradesPerIp: of(2) } });
  await connect(t, server);
  const client = await connect(t, server);
  const { status, headers } = await refusal(t, server);
  assert.equal(status, 429);
  assert.match(headers['retry-after'], /^\d+$/);
  assert.equal((await request(server)).status, 200);
  client.send('still there');
  assert.equal(client.readyState, client.OPEN);
});

test('a bucket that is refilled lets somebody in again', async (t) => {
  const handlers = { handleHttpRequest: () => ({ body: 'ok' }) };
  const server = serve(t, handlers, { limits: { requestsPerIp: { capacity: 1, interval: 300 } } });
  assert.equal((await request(server)).status, 200);
  await eventually(async () => {
    const { status, headers } = await request(server);
    if (status === 429) assert.equal(headers['retry-after'], '1', 'rounded up');
    assert.equal(status, 200);
  });
});

test('the process has so many connections, whichever server they came to', async (t) => {
  const server = serve(t, { handleHttpRequest: () => ({ body: 'ok' }) }, { limits: { connections: 2 } });
  const other = listen();
  await connect(t, other);
  await connect(t, server);
  const { status, headers } = await refusal(t, server);
  assert.deepEqual([status, headers['retry-after'], headers.connection], [503, '1', 'close']);
  await connect(t, other);
});

test('true stands for the documented default', async (t) => {
  const server = serve(t, { handleHttpRequest: () => ({ body: 'ok' }) }, { limits: { requestsPerIp: true } });
  const agent = new http.Agent({ keepAlive: true, maxSockets: 4 });
  t.after(() => agent.destroy());
  const began = performance.now();
  const all = await Promise.all(Array.from({ length: 200 }, () => request(server, '/', { agent })));
  const back = Math.ceil((performance.now() - began) / 600);
  const served = all.filter(({ status }) => status === 200).length;
  assert.ok(served >= 100 && served <= 100 + back, `${served}, with at most ${back} come back`);
  const off = listen({ limits: { requestsPerIp: false } });
  assert.equal((await request(off)).status, 200);
});

test('nobody is believed by default, and a spoofed address changes nothing', async (t) => {
  const handlers = { handleHttpRequest: ({ remoteAddress }) => ({ body: remoteAddress }) };
  const server = serve(t, handlers, { limits: { requestsPerIp: of(3) } });
  for (const headers of [
    { 'x-forwarded-for': '192.0.2.1' },
    { forwarded: 'for=192.0.2.1' },
    { 'x-forwarded-for': '192.0.2.2', forwarded: 'for=192.0.2.3', 'x-real-ip': '192.0.2.4' },
  ]) {
    assert.equal((await request(server, '/', { headers })).body, '127.0.0.1');
  }
  assert.equal((await request(server, '/', { headers: { 'x-forwarded-for': '192.0.2.9' } })).status, 429);
});

test('behind trusted proxies the client is who they name', { skip: ONE_ADDRESS }, async (t) => {
  const handlers = { handleHttpRequest: ({ remoteAddress }) => ({ body: remoteAddress }) };
  const server = serve(t, handlers, { trustProxy: ['127.0.0.2', '10.0.0.0/8'], limits: { requestsPerIp: of(2) } });
  const ask = async (list, localAddress = '127.0.0.2') => {
    const { status, body } = await request(server, '/', { localAddress, headers: { 'x-forwarded-for': list } });
    return status === 200 ? body : status;
  };
  assert.equal(await ask('192.0.2.1'), '192.0.2.1');
  assert.equal(await ask('6.6.6.6, 192.0.2.1, 10.1.2.3'), '192.0.2.1');
  assert.equal(await ask('5.5.5.5, 192.0.2.1'), 429);
  assert.equal(await ask('192.0.2.1', '127.0.0.3'), '127.0.0.3', 'that one is no proxy');
  assert.equal(await ask('rubbish'), '127.0.0.2');
  assert.equal(await ask('2001:db8:0:1::1'), '2001:db8:0:1::1');
  assert.equal(await ask('[2001:db8:0:1::2]:443'), '2001:db8:0:1::2');
  assert.equal(await ask('2001:db8:0:1:8::3'), 429, 'one network of 64 bits');
});

test('hops are counted as in Express', async (t) => {
  const handlers = { handleHttpRequest: ({ remoteAddress }) => ({ body: remoteAddress }) };
  const headers = { 'x-forwarded-for': '192.0.2.3, 192.0.2.2, 192.0.2.1' };
  const expected = ['127.0.0.1', '192.0.2.1', '192.0.2.2', '192.0.2.3', '192.0.2.3'];
  serve(t, handlers);
  for (const [trustProxy, address] of expected.entries()) {
    const server = listen({ trustProxy });
    assert.equal((await request(server, '/', { headers })).body, address);
  }
});

test('sockets behind a trusted proxy are counted for their client', async (t) => {
  const opened = [];
  const handlers = { handleSocketOpen: (_socketId, { remoteAddress }) => opened.push(remoteAddress) };
  const server = serve(t, handlers, { trustProxy: 1, limits: { connectionsPerIp: 1 } });
  const from = (client) => ({ headers: { 'x-forwarded-for': `9.9.9.9, ${client}` } });
  await connect(t, server, from('192.0.2.1'));
  await connect(t, server, from('192.0.2.2'));
  assert.equal((await refusal(t, server, from('192.0.2.1'))).status, 429);
  assert.deepEqual(opened, ['192.0.2.1', '192.0.2.2']);
});

/** A PROXY header of version 2. */
function version2(client) {
  const addresses = [...client.split('.').map(Number), 127, 0, 0, 1, 0xc8, 0x22, 0x01, 0xbb];
  return Buffer.concat([Buffer.from('\r\n\r\n\0\r\nQUIT\n'), Buffer.from([0x21, 0x11, 0, 12, ...addresses])]);
}

test('a PROXY header names the client, and without one a connection is closed', async (t) => {
  const handlers = { handleHttpRequest: ({ remoteAddress }) => ({ body: remoteAddress }) };
  const server = serve(t, handlers, { proxyProtocol: true, headerTimeout: 200, limits: { requestsPerIp: of(1) } });
  const limited = limitedFromNow();
  const get = 'GET / HTTP/1.1\r\nHost: test\r\n\r\n';
  for (const [header, address] of [
    ['PROXY TCP4 192.0.2.1 127.0.0.1 51234 443\r\n', '192.0.2.1'],
    ['PROXY TCP6 2001:db8::7 ::1 51234 443\r\n', '2001:db8::7'],
    [version2('192.0.2.9'), '192.0.2.9'],
    ['PROXY UNKNOWN\r\n', '127.0.0.1'],
  ]) {
    const client = await connectRaw(t, server);
    assert.equal((await client.write(header, get).response()).body, address);
    assert.equal((await client.write(get).response()).status, 429);
    const socket = await connectRaw(t, server);
    assert.equal((await socket.write(header, handshake()).response()).status, 101);
  }
  for (const bytes of [get, 'PROXY TCP4 rubbish\r\n', '']) {
    const client = await connectRaw(t, server);
    await client.write(bytes).end();
    await assert.rejects(client.response(), /the connection ended/);
  }
  await eventually(() => assert.deepEqual(limited(), { requestsPerIp: 4, proxyProtocol: 3 }));
});

test('a PROXY header is only believed from those who may send it', async (t) => {
  const handlers = { handleHttpRequest: ({ remoteAddress }) => ({ body: remoteAddress }) };
  const yes = serve(t, handlers, { proxyProtocol: ['127.0.0.1'] });
  const no = listen({ proxyProtocol: ['192.0.2.0/24'] });
  const bytes = 'PROXY TCP4 192.0.2.1 127.0.0.1 1 2\r\nGET / HTTP/1.1\r\nHost: test\r\n\r\n';
  const client = await connectRaw(t, yes);
  assert.equal((await client.write(bytes).response()).body, '192.0.2.1');
  const other = await connectRaw(t, no);
  await other.end();
});

test('limits and proxies without sense are refused by name', (t) => {
  const { unregister } = registerWorkerThread({});
  t.after(unregister);
  const rates = [null, 1, '100', [], {}, { capacity: 1 }, { capacity: 0, interval: 1 }, { capacity: -1, interval: 1 }];
  rates.push({ capacity: 1, interval: 0 }, { capacity: 1.5, interval: 1 }, { capacity: 2 ** 31, interval: 1 });
  rates.push({ capacity: 1, interval: -60_000 }, { capacity: 1, interval: Number.NaN });
  const counts = [null, 0, -1, 1.5, '10', {}, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 32];
  const networks = ['', 'localhost', '10.0.0.0/33', '::/129', '10.0.0/8', '10.0.0.0/-1', '10.0.0.0/08', '*', null, 7];
  networks.push('fe80::1%eth0', '10.0.0.0/8/8', '[::1]', ' 10.0.0.1', '1.2.3.4:80', '010.0.0.1');
  // An array that has no element at all in its first place.
  const hole = Object.assign(Array(2), { 1: '10.0.0.1' });
  const wrong = {
    limits: [null, true, 100, 'all', []],
    'limits.connections': counts,
    'limits.connectionsPerIp': counts,
    'limits.requestsPerIp': rates,
    'limits.upgradesPerIp': rates,
    trustProxy: [null, true, '10.0.0.0/8', -1, 1.5, 101, Number.NaN, {}, [], hole, ...networks.map((one) => [one])],
    proxyProtocol: [null, 1, 'on', {}, [], hole, ...networks.map((one) => ['10.0.0.0/8', one])],
  };
  for (const [name, values] of Object.entries(wrong)) {
    for (const value of values) {
      const [option, part] = name.split('.');
      const options = { bind: BIND, [option]: part ? { [part]: value } : value };
      const error = throwsCode(() => start(options), 'WSB_INVALID_ARGUMENT');
      assert.match(error.message, new RegExp(`^options\\.${name.replace('.', '\\.')}[.[\\]\\w]*: expected .+, got .+`));
    }
  }
  const refused = (options) => throwsCode(() => start({ bind: BIND, ...options }), 'WSB_INVALID_ARGUMENT').message;
  assert.match(refused({ limits: { conections: 1 } }), /options\.limits: .*did you mean 'connections'\?$/);
  assert.match(refused({ limits: { requestsPerIp: { capacity: 1, intervall: 1 } } }), /did you mean 'interval'\?$/);
  assert.match(
    refused({ trustProxy: ['10.0.0.0/8', 'x'] }),
    /^options\.trustProxy\[1\]: expected an IP address or a network/,
  );
  assert.match(refused({ limit: {} }), /did you mean 'limits'\?$/);
  assert.equal(stats().listeners, 0, 'nothing is half-started');
});
