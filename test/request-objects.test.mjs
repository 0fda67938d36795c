// Requests and their headers are objects as others are: copied, logged, inherited from, wrapped, asked what they have. A client
// chooses the names of its headers, and takes nothing away from who reads them.

import assert from 'node:assert/strict';
import http from 'node:http';
import { test } from 'node:test';
import { inspect } from 'node:util';
import { connectRaw } from './helpers/raw.mjs';
import { connect, request, serve } from './helpers/serving.mjs';
import { deferred, within } from './helpers/waiting.mjs';

/** Sends one request and gives what the handler saw of it. */
async function seen(t, path, options) {
  const saw = deferred();
  const server = serve(t, { handleHttpRequest: (incoming) => saw.resolve(incoming) });
  await request(server, path, options);
  return within(saw.promise, 'the request');
}

/** What `seen` sends. */
const SENT = { method: 'POST', body: 'hello', headers: { Host: 'example.org', 'X-Custom': 'yes' } };
const SEEN = {
  method: 'POST',
  url: '/rooms/7?since=12',
  path: '/rooms/7',
  pathname: '/rooms/7',
  search: '?since=12',
  query: 'since=12',
  remoteAddress: '127.0.0.1',
  protocol: undefined,
};

function assertSeen(incoming) {
  for (const [name, value] of Object.entries(SEEN)) assert.equal(incoming[name], value, name);
  assert.equal(String(incoming.body), 'hello');
  assert.equal(incoming.headers['x-custom'], 'yes');
}

test('a copy of a request has what came, and can go to another thread', async (t) => {
  const incoming = await seen(t, SEEN.url, SENT);
  const copy = { ...incoming, user: 'me' };
  assertSeen(copy);
  assert.deepEqual(Object.keys(copy), [...Object.keys(incoming), 'user']);
  assertSeen(Object.assign({}, incoming));
  const { method, url, ...rest } = incoming;
  assert.deepEqual([method, url, rest.path, 'url' in rest], ['POST', SEEN.url, '/rooms/7', false]);
  assert.equal(structuredClone(copy).headers['x-custom'], 'yes');
  assert.equal(structuredClone(copy).url, SEEN.url);
});

test('a request in JSON is what a log needs', async (t) => {
  const incoming = await seen(t, SEEN.url, SENT);
  const { method, url, headers, ...others } = JSON.parse(JSON.stringify({ incoming })).incoming;
  assert.deepEqual([method, url, headers], ['POST', SEEN.url, { ...incoming.headers }]);
  assert.deepEqual(others, { remoteAddress: '127.0.0.1' });
  assert.match(inspect(incoming), /method: 'POST',\s+url: '\/rooms\/7\?since=12'/);
});

test('what inherits from a request, or stands before it, has what it has', async (t) => {
  const incoming = await seen(t, SEEN.url, SENT);
  const wrapped = [
    Object.create(incoming, { user: { value: 'me' } }),
    new Proxy(incoming, {}),
    new Proxy(incoming, { get: (target, key, receiver) => Reflect.get(target, key, receiver) }),
    Object.create(new Proxy(Object.create(incoming), {})),
  ];
  for (const request of wrapped) {
    assertSeen(request);
    assert.equal(request.headers, incoming.headers);
    assert.equal(request.signal, incoming.signal);
    assert.equal(request.signal.aborted, false);
    assert.ok('url' in request);
    assert.equal(JSON.parse(JSON.stringify(request)).url, SEEN.url);
    assert.match(inspect(request), /method: 'POST'/);
  }
});

test('a request tells what it has, takes more, and can be frozen', async (t) => {
  const incoming = await seen(t, SEEN.url, SENT);
  assert.ok(Object.hasOwn(incoming, 'url') && Object.hasOwn(incoming, 'headers') && !Object.hasOwn(incoming, 'signal'));
  assert.throws(() => Object.assign(incoming, { url: '/other' }), TypeError);
  incoming.user = 'me';
  assert.deepEqual([incoming.user, Object.keys(incoming).at(-1)], ['me', 'user']);
  delete incoming.user;
  assert.ok(!('user' in incoming));
  Object.freeze(incoming);
  assert.ok(Object.isFrozen(incoming));
  assertSeen(incoming);
  assertSeen({ ...incoming });
  assert.throws(() => Object.assign(incoming, { user: 'me' }), TypeError);
});

test('the signal of a request aborts for who has inherited from it', async (t) => {
  const heir = deferred();
  const server = serve(t, {
    handleHttpRequest(incoming) {
      heir.resolve(Object.create(incoming));
      return new Promise(() => {});
    },
  });
  const client = await connectRaw(t, server);
  client.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  const { signal } = await within(heir.promise, 'the request');
  client.socket.destroy();
  await within(new Promise((resolve) => signal.addEventListener('abort', resolve)), 'the abort');
});

test('an upgrade is such a request too, for its decision and for its socket', async (t) => {
  const upgraded = deferred();
  const opened = deferred();
  const server = serve(t, {
    handleSocketUpgrade(incoming) {
      upgraded.resolve({ ...incoming });
    },
    handleSocketOpen(_socketId, incoming) {
      opened.resolve({ ...incoming });
    },
  });
  await connect(t, server, { path: '/room' });
  for (const { promise } of [upgraded, opened]) {
    const copy = await within(promise, 'the request');
    assert.deepEqual([copy.method, copy.url, copy.headers.upgrade], ['GET', '/room', 'websocket']);
  }
});

test('headers are asked for by any case, and have the names that came', async (t) => {
  const { headers } = await seen(t, '/', SENT);
  const names = [];
  for (const name in headers) names.push(name);
  assert.deepEqual(names, Object.keys(headers));
  assert.deepEqual(names.sort(), ['connection', 'content-length', 'host', 'x-custom']);
  for (const name of ['host', 'Host', 'HOST', 'X-Custom', 'Content-Length']) {
    assert.ok(name in headers, name);
    assert.equal(headers[name], headers[name.toLowerCase()], name);
  }
  for (const name of ['cookie', 'Cookie', 'HasOwnProperty', 'Constructor', '', 'X-Custom2']) {
    assert.ok(!(name in headers), name);
    assert.equal(headers[name], undefined, name);
  }
  assert.ok(headers instanceof Object);
  const heir = Object.create(headers);
  assert.deepEqual([heir.host, heir.Host, 'Host' in heir], ['example.org', 'example.org', true]);
});

test('headers of one request are not those of another with the same names', async (t) => {
  const saw = [];
  const server = serve(t, { handleHttpRequest: ({ headers }) => void saw.push(headers) });
  for (const [name, value] of [
    ['x-a', '1'],
    ['x-a', '2'],
    ['x-b', '3'],
    ['X-A', '4'],
  ]) {
    await request(server, '/', { headers: { host: 'x', [name]: value } });
  }
  assert.deepEqual(
    saw.map((headers) => [headers['X-A'], 'X-A' in headers, headers['X-B'], 'X-B' in headers]),
    [
      ['1', true, undefined, false],
      ['2', true, undefined, false],
      [undefined, false, '3', true],
      ['4', true, undefined, false],
    ],
  );
});

test('what every object has, headers have whatever a client calls its own', async (t) => {
  const ofAll = Object.getOwnPropertyNames(Object.prototype);
  const { headers } = await seen(t, '/', {
    headers: {
      host: 'x',
      ...Object.fromEntries(ofAll.map((name) => [name, 'evil'])),
      __Proto__: 'evil',
      toJSON: 'evil',
    },
  });
  for (const name of ofAll.filter((name) => typeof Object.prototype[name] === 'function' && name !== 'constructor')) {
    assert.equal(headers[name], Object.prototype[name], name);
  }
  assert.ok(Object.hasOwn(headers, 'host'));
  assert.equal(`${headers}`, '[object Object]');
  assert.equal(headers.valueOf(), headers);
  assert.equal(headers.hasownproperty, 'evil');
  assert.equal(headers.constructor, 'evil', 'a name in lower case is a name of a header');
  assert.equal(typeof Object.getPrototypeOf(headers), 'object');
  assert.notEqual(Object.getPrototypeOf(headers), 'evil');
  assert.ok(headers instanceof Object);
  assert.equal(JSON.parse(JSON.stringify(headers)).tojson, 'evil');
  assert.equal(structuredClone(headers).tostring, 'evil');
  assert.match(inspect(headers), /valueof: 'evil'/);
  assert.equal({ ...headers }.isprototypeof, 'evil');
});

test('a header called __proto__ is one like others, in any case', async (t) => {
  const saw = deferred();
  const server = serve(t, { handleHttpRequest: ({ headers }) => saw.resolve(headers) });
  const client = await connectRaw(t, server);
  client.write('GET / HTTP/1.1\r\nHost: x\r\n__PROTO__: a\r\n__proto__: b\r\nConstructor: c\r\n\r\n');
  const headers = await within(saw.promise, 'the request');
  await client.response();
  assert.deepEqual(Object.keys(headers), ['host', '__proto__', 'constructor']);
  assert.equal(Object.getOwnPropertyDescriptor(headers, '__proto__').value, 'a, b');
  assert.deepEqual([headers.__PROTO__, headers.Constructor], ['a, b', 'c']);
  assert.ok(Object.hasOwn(headers, 'host'));
});

test('clients with ever new names of headers are told apart from each other', async (t) => {
  const server = serve(t, {
    handleHttpRequest: ({ headers, query }) => ({ body: `${headers[`X-${query}`]} ${`X-${query}` in headers}` }),
  });
  const agent = new http.Agent({ keepAlive: true, maxSockets: 8 });
  t.after(() => agent.destroy());
  for (let round = 0; round < 2; round += 1) {
    const numbers = Array.from({ length: 600 }, (_, number) => number);
    const bodies = await Promise.all(
      numbers.map(async (number) => {
        const headers = { [`x-${number}`]: `${round}.${number}` };
        return (await request(server, `/?${number}`, { headers, agent })).body;
      }),
    );
    assert.deepEqual(
      bodies,
      numbers.map((number) => `${round}.${number} true`),
    );
  }
});
