// Requests as handlers see them, and answers as clients get them.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import net from 'node:net';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';
import { inspect } from 'node:util';
import v8 from 'node:v8';
import vm from 'node:vm';
import { registerWorkerThread, stats } from 'wsbroker';
import { connectRaw, handshake } from './helpers/raw.mjs';
import { httpUrl, listen, request, serve, stopAll } from './helpers/serving.mjs';
import { deferred, eventually, Inbox, within } from './helpers/waiting.mjs';

/** Sends one request and gives what the handler saw of it. */
async function seen(t, path, options) {
  const saw = deferred();
  const server = serve(t, { handleHttpRequest: (incoming) => saw.resolve(incoming) });
  await request(server, path, options);
  return saw.promise;
}

test('a request without handler result is answered 200 with nothing', async (t) => {
  const server = serve(t, { handleHttpRequest: ({ path }) => (path === '/null' ? null : undefined) });
  for (const path of ['/', '/null']) {
    const { status, headers, body } = await request(server, path);
    assert.deepEqual([status, headers['content-length'], headers['content-type'], body], [200, '0', undefined, '']);
  }
});

test('the parts of the URL', async (t) => {
  const urls = new Inbox();
  const server = serve(t, {
    handleHttpRequest({ method, url, path, pathname, search, query }) {
      urls.push({ method, url, path, pathname, search, query });
    },
  });
  const parts = async (url, method = 'GET') => {
    await request(server, url, { method });
    const { path, pathname, ...rest } = await urls.next();
    assert.equal(path, pathname);
    return { path, ...rest };
  };
  assert.deepEqual(await parts('/'), { method: 'GET', url: '/', path: '/', search: '', query: '' });
  assert.deepEqual(await parts('/a%20b/%C3%A9?q=1&r=a?b#', 'DELETE'), {
    method: 'DELETE',
    url: '/a%20b/%C3%A9?q=1&r=a?b',
    path: '/a%20b/%C3%A9',
    search: '?q=1&r=a?b',
    query: 'q=1&r=a?b',
  });
  assert.deepEqual(await parts('/?', 'PURGE'), { method: 'PURGE', url: '/?', path: '/', search: '?', query: '' });
  assert.deepEqual((await parts('//double//slash')).path, '//double//slash');
  assert.deepEqual(await parts('/"<`>{|}\\^?q={"a":"<b>`"}', 'PURGE'), {
    method: 'PURGE',
    url: '/"<`>{|}\\^?q={"a":"<b>`"}',
    path: '/"<`>{|}\\^',
    search: '?q={"a":"<b>`"}',
    query: 'q={"a":"<b>`"}',
  });
});

test('a method is what was sent, also if it looks like a known one', async (t) => {
  const server = serve(t, { handleHttpRequest: ({ method }) => ({ body: method }) });
  for (const method of ['GET', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'GOT', 'GETS', 'POSH', 'G', 'get']) {
    const socket = net.connect(server.address);
    t.after(() => socket.destroy());
    socket.write(`${method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n`);
    const answer = await within(text(socket), 'an answer');
    assert.equal(answer.slice(answer.indexOf('\r\n\r\n') + 4), method);
  }
});

test('headers are whole however long all of them are', async (t) => {
  const saw = new Inbox();
  const server = serve(t, { handleHttpRequest: ({ headers }) => saw.push(headers) });
  for (const length of [10, 500, 1_000, 1_900, 2_048, 4_000, 20_000]) {
    const sent = { 'x-first': 'é'.repeat(20), 'x-long': 'x'.repeat(length), 'x-empty': '', 'x-last': 'end'.repeat(9) };
    await request(server, '/', { headers: sent });
    const headers = await saw.next();
    for (const [name, value] of Object.entries(sent)) assert.equal(headers[name], value, `${name} of ${length}`);
  }
});

test('headers are read by any case and look like a plain object', async (t) => {
  const { headers } = await seen(t, '/', { headers: { 'X-Custom': 'yes', Host: 'example.org', 'x-empty': '' } });
  assert.equal(headers['x-custom'], 'yes');
  assert.equal(headers['X-Custom'], 'yes');
  assert.equal(headers.HOST, 'example.org');
  assert.equal(headers['x-empty'], '');
  assert.equal(headers['x-missing'], undefined);
  assert.equal(headers['X-Missing'], undefined);

  assert.deepEqual(Object.keys(headers).sort(), ['connection', 'host', 'x-custom', 'x-empty']);
  assert.ok('host' in headers);
  assert.ok(!('x-missing' in headers));
  assert.ok(Object.hasOwn(headers, 'host'));
  // biome-ignore lint/suspicious/noPrototypeBuiltins: whether it works is what is tested
  assert.ok(headers.hasOwnProperty('host'));
  const plain = { ...headers };
  assert.equal(plain.host, 'example.org');
  assert.deepEqual(JSON.parse(JSON.stringify(headers)), plain);
  assert.deepEqual(structuredClone(headers), plain);
  assert.match(inspect(headers), /^HttpHeaders \{\n? *host: 'example.org'|^HttpHeaders \{/);
  assert.equal(String(headers), '[object Object]');
});

test('headers that come several times are joined as in Node', async (t) => {
  const saw = deferred();
  const server = serve(t, { handleHttpRequest: ({ headers }) => saw.resolve(headers) });
  const lines = [
    'Accept: a',
    'accept: b',
    'Cookie: x=1',
    'Cookie: y=2',
    'Set-Cookie: one',
    '__proto__: odd',
    'constructor: c',
  ];
  const socket = net.connect(server.address);
  t.after(() => socket.destroy());
  socket.write(
    `GET / HTTP/1.1\r\nHost: a\r\n${lines.join('\r\n')}\r\nSet-Cookie: two\r\nX-Latin: \xe9\r\n\r\n`,
    'latin1',
  );
  const headers = await within(saw.promise, 'the request');
  assert.equal(headers.accept, 'a, b');
  assert.equal(headers.cookie, 'x=1; y=2');
  assert.deepEqual(headers['set-cookie'], ['one', 'two']);
  assert.deepEqual(headers['Set-Cookie'], ['one', 'two']);
  assert.equal(headers['x-latin'], '\xe9');
  assert.equal(headers.constructor, 'c');
  assert.equal(Object.getOwnPropertyDescriptor(headers, '__proto__').value, 'odd');
});

test('a body, sent whole or in chunks, and the address of who sent it', async (t) => {
  const bodies = new Inbox();
  const server = serve(t, { handleHttpRequest: ({ body, remoteAddress }) => bodies.push([body, remoteAddress]) });
  const body = Buffer.from(Array.from({ length: 200_000 }, (_, n) => n % 251));
  await request(server, '/', { method: 'POST', body });
  assert.deepEqual(await bodies.next(), [body, '127.0.0.1']);

  const chunked = http.request({ ...server.address, method: 'PUT', agent: false });
  const response = once(chunked, 'response');
  for (let at = 0; at < body.length; at += 50_000) chunked.write(body.subarray(at, at + 50_000));
  chunked.end();
  (await within(response, 'an answer'))[0].resume();
  assert.deepEqual((await bodies.next())[0], body);

  await request(server, '/');
  assert.deepEqual((await bodies.next())[0], Buffer.alloc(0));
});

test('a console shows a request', async (t) => {
  const incoming = await seen(t, '/shown?x', { method: 'POST', body: 'b' });
  const shown = inspect(incoming);
  for (const part of ["method: 'POST'", "url: '/shown?x'", "host: '", "remoteAddress: '127.0.0.1'", '<Buffer 62>']) {
    assert.ok(shown.includes(part), shown);
  }
});

test('every kind of answer', async (t) => {
  const bytes = Uint8Array.of(104, 105);
  const answers = {
    '/text': { body: 'héllo' },
    '/typed-text': { headers: { 'Content-Type': 'text/html' }, body: '<p>' },
    '/buffer': { body: Buffer.from(bytes) },
    '/view': { body: new DataView(bytes.buffer) },
    '/array-buffer': { body: bytes.buffer },
    '/null': { status: 201, body: null },
    '/empty': {},
    '/no-content': { status: 204, body: 'dropped' },
    '/reset-content': { status: 205, body: 'dropped' },
    '/not-modified': { status: 304, body: 'dropped' },
    '/headers': {
      headers: { 'Set-Cookie': ['a=1', 'b=2'], 'x-number': 7, 'x-none': undefined, 'x-latin': '\xe9', 'x-0': '' },
    },
    '/length': { headers: { 'content-length': 99 }, body: 'short' },
    '/error': { status: 599, body: 'odd but allowed' },
  };
  const server = serve(t, {
    handleHttpRequest: ({ path }) => answers[path],
  });
  const text = 'text/plain; charset=utf-8';
  const got = async (path) => {
    const { status, headers, body } = await request(server, path);
    return [status, headers['content-type'], body];
  };
  assert.deepEqual(await got('/text'), [200, text, 'héllo']);
  assert.deepEqual(await got('/typed-text'), [200, 'text/html', '<p>']);
  for (const path of ['/buffer', '/view', '/array-buffer']) assert.deepEqual(await got(path), [200, undefined, 'hi']);
  assert.deepEqual(await got('/null'), [201, undefined, '']);
  assert.deepEqual(await got('/empty'), [200, undefined, '']);
  assert.deepEqual((await got('/no-content')).toSpliced(1, 1), [204, '']);
  assert.deepEqual((await got('/reset-content')).toSpliced(1, 1), [205, '']);
  assert.deepEqual((await got('/not-modified')).toSpliced(1, 1), [304, '']);
  assert.deepEqual(await got('/error'), [599, text, 'odd but allowed']);
  assert.deepEqual((await got('/length'))[2], 'short');

  const { headers } = await request(server, '/headers');
  assert.deepEqual(headers['set-cookie'], ['a=1', 'b=2']);
  assert.equal(headers['x-number'], '7');
  assert.equal(headers['x-latin'], '\xe9');
  assert.equal(headers['x-0'], '');
  assert.ok(!('x-none' in headers));
});

test('HEAD gets the headers of the answer and no body', async (t) => {
  const server = serve(t, { handleHttpRequest: ({ method }) => ({ headers: { 'x-method': method }, body: 'four' }) });
  const { status, headers, body } = await request(server, '/', { method: 'HEAD' });
  assert.deepEqual([status, headers['x-method'], headers['content-length'], body], [200, 'HEAD', '4', '']);
});

test('rubbish is answered 500 and told', async (t) => {
  const rubbish = [
    ['/string', 'hello', /^response: expected an object .*, got "hello"/],
    ['/number', 200, /^response: expected an object .*, got 200/],
    ['/array', [], /^response: /],
    ['/function', () => {}, /^response: /],
    ['/status-99', { status: 99 }, /^response\.status: expected a whole number from 200 to 599, got 99/],
    ['/status-101', { status: 101 }, /^response\.status: /],
    ['/status-600', { status: 600 }, /^response\.status: /],
    ['/status-text', { status: '200' }, /^response\.status: .*"200"/],
    ['/status-nan', { status: Number.NaN }, /^response\.status: /],
    ['/body-number', { body: 7 }, /^response\.body: /],
    ['/body-object', { body: { json: true } }, /^response\.body: .*an object/],
    ['/header-newline', { headers: { 'x-evil': 'a\r\nset-cookie: b' } }, /^response\.headers\["x-evil"\]: /],
    ['/header-nul', { headers: { 'x-evil': 'a\0' } }, /^response\.headers\["x-evil"\]: /],
    ['/header-unicode', { headers: { 'x-evil': '€' } }, /^response\.headers\["x-evil"\]: /],
    ['/header-object', { headers: { 'x-evil': {} } }, /^response\.headers\["x-evil"\]: /],
    ['/header-infinity', { headers: { 'x-evil': Infinity } }, /^response\.headers\["x-evil"\]: /],
    ['/header-in-array', { headers: { 'x-evil': ['a', 'b\n'] } }, /^response\.headers\["x-evil"\]: /],
    ['/header-name', { headers: { 'x evil': 'a' } }, /^response\.headers: .*"x evil"/],
    ['/header-name-newline', { headers: { 'x\nevil': 'a' } }, /^response\.headers: /],
    ['/headers-empty-name', { headers: { '': 'a' } }, /^response\.headers: /],
    ['/headers-map', { headers: new Map([['a', 'b']]) }, /^response\.headers: .*Object\.fromEntries/],
    ['/headers-web', { headers: new Headers({ a: 'b' }) }, /^response\.headers: /],
    ['/headers-string', { headers: 'a: b' }, /^response\.headers: /],
    ['/headers-many', { headers: { x: Array(40_000).fill('a') } }, /^response\.headers: expected at most 1000 headers/],
  ];
  const errors = new Inbox();
  const server = serve(t, {
    handleHttpRequest({ path }) {
      const [plain, later] = path.split('@');
      const answer = rubbish.find(([of]) => of === plain)[1];
      return later ? Promise.resolve(answer) : answer;
    },
    handleError: (error, { handler }) => errors.push([handler, error]),
  });
  for (const [path, , expected] of rubbish) {
    for (const url of [path, `${path}@later`]) {
      const { status, headers } = await request(server, url);
      assert.equal(status, 500, url);
      assert.ok(!('x-evil' in headers) && !('set-cookie' in headers));
      const [handler, error] = await errors.next();
      assert.equal(handler, 'handleHttpRequest');
      assert.equal(error.code, 'WSB_INVALID_ARGUMENT');
      assert.match(error.message, expected);
    }
  }
});

test('a handler that throws or rejects is answered 500, and the connection lives on', async (t) => {
  const server = serve(t, {
    handleHttpRequest({ path }) {
      if (path === '/throw') throw new Error('on purpose');
      if (path === '/reject') return Promise.reject(undefined);
      return { body: 'fine' };
    },
  });
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  t.after(() => agent.destroy());
  const ports = new Set();
  for (const [path, status] of [
    ['/throw', 500],
    ['/reject', 500],
    ['/', 200],
  ]) {
    const outgoing = http.get({ ...server.address, path, agent });
    const [response] = await within(once(outgoing, 'response'), path);
    ports.add(response.socket.localPort);
    response.resume();
    await once(response, 'end');
    assert.equal(response.statusCode, status);
  }
  assert.equal(ports.size, 1);
});

test('without a handler for requests they are told to upgrade, or that there is nothing', async (t) => {
  const before = stats().dropped.unansweredRequests;
  const ask = async (path = '/') => {
    const { status, headers } = await request(server, path);
    return [status, headers.upgrade, headers['retry-after']];
  };
  const first = registerWorkerThread({});
  t.after(stopAll);
  const server = listen();
  assert.deepEqual(await ask(), [404, undefined, undefined]);
  first.unregister();
  assert.deepEqual(await ask(), [503, undefined, '1']);
  assert.equal(stats().dropped.unansweredRequests, before + 1);
  const names = ['Upgrade', 'Open', 'Message', 'Drain', 'Close'];
  for (const name of names) {
    const registration = registerWorkerThread({ [`handleSocket${name}`]() {} });
    assert.deepEqual(await ask('/'), [426, 'websocket', undefined], name);
    registration.unregister();
  }
  const last = registerWorkerThread({ handleHttpRequest() {} });
  assert.deepEqual(await ask(), [200, undefined, undefined]);
  last.unregister();
  assert.equal(stats().dropped.unansweredRequests, before + 1, 'a 426 or 404 is an answer');
});

test('a handler that takes too long is answered 504, and its late answer is counted', async (t) => {
  const late = deferred();
  const server = serve(t, { handleHttpRequest: () => late.promise }, { requestTimeout: 50 });
  const before = stats().dropped;
  assert.equal((await request(server)).status, 504);
  late.resolve({ body: 'too late' });
  await eventually(() => {
    const { timedOutRequests, lateResponses } = stats().dropped;
    assert.deepEqual([timedOutRequests - before.timedOutRequests, lateResponses - before.lateResponses], [1, 1]);
  });
});

test('a request of HTTP/1.1 names its host, once', async (t) => {
  const server = serve(t, { handleHttpRequest: ({ headers }) => ({ body: headers.host ?? 'none' }) });
  const answer = async (head) => {
    const socket = net.connect(server.address.port, server.address.host);
    socket.write(`GET / ${head}\r\n\r\n`);
    return (await within(text(socket), `the answer to ${head}`)).replace(/^HTTP\/1\.\d (\d+)[\s\S]*\r\n\r\n/, '$1 ');
  };
  const refused = '400 exactly one Host header is needed\n';
  assert.equal(await answer('HTTP/1.1'), refused);
  assert.equal(await answer('HTTP/1.1\r\nHost: a\r\nHost: b'), refused);
  assert.equal(await answer('HTTP/1.1\r\nHost: a\r\nConnection: close'), '200 a');
  assert.equal(await answer('HTTP/1.0'), '200 none');
});

test('the host of a whole URL is the one that handlers see', async (t) => {
  const saw = new Inbox();
  const server = serve(t, {
    handleHttpRequest: ({ url, headers }) => saw.push([url, headers.host]),
    handleSocketUpgrade({ url, headers }) {
      saw.push([url, headers.host]);
      return false;
    },
  });
  const client = await connectRaw(t, server);
  await client.write('GET http://a.example:81/x?y HTTP/1.1\r\nHost: b\r\n\r\n').response();
  assert.deepEqual(await saw.next(), ['/x?y', 'a.example:81']);
  await client.write(handshake({ Host: 'b' }, 'GET http://a.example HTTP/1.1')).response();
  assert.deepEqual(await saw.next(), ['/', 'a.example']);
  await client.write('OPTIONS * HTTP/1.1\r\nHost: b\r\n\r\n').response();
  assert.deepEqual(await saw.next(), ['*', 'b']);
});

test('the signal aborts when the client goes away', async (t) => {
  const asked = new Inbox();
  const server = serve(t, {
    handleHttpRequest(incoming) {
      const { signal } = incoming;
      assert.equal(signal, incoming.signal);
      const reason = deferred();
      signal.addEventListener('abort', () => reason.resolve(signal.reason));
      asked.push({ incoming, reason: reason.promise });
      return reason.promise.then(() => ({ body: 'to nobody' }));
    },
  });
  const client = new AbortController();
  const outgoing = request(server, '/', { signal: client.signal });
  const { incoming, reason } = await asked.next();
  assert.equal(incoming.signal.aborted, false);
  client.abort();
  await assert.rejects(outgoing, { name: 'AbortError' });
  assert.equal((await within(reason, 'the abort')).name, 'AbortError');
});

test('a signal that is first read after the client went away is aborted', async (t) => {
  const asked = deferred();
  const release = deferred();
  const server = serve(t, {
    async handleHttpRequest(incoming) {
      asked.resolve(incoming);
      await release.promise;
    },
  });
  const client = (await connectRaw(t, server)).write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  const incoming = await asked.promise;
  client.socket.resetAndDestroy();
  await eventually(() => assert.equal(stats().pendingRequests, 0));
  await eventually(() => assert.equal(incoming.signal.aborted, true)).finally(release.resolve);
});

test('the signal aborts whatever the client had sent behind its request, and however it goes', async (t) => {
  const asked = new Inbox();
  const hold = ({ signal }) =>
    new Promise((resolve) => {
      signal.addEventListener('abort', () => resolve({ status: 204 }));
      asked.push(signal);
    });
  const server = serve(t, { handleHttpRequest: hold, handleSocketUpgrade: hold });
  for (const head of ['GET / HTTP/1.1\r\nHost: x\r\n\r\n', handshake()]) {
    for (const behind of ['x', 'x'.repeat(20_000)]) {
      for (const leave of ['destroy', 'resetAndDestroy']) {
        const client = (await connectRaw(t, server)).write(head + behind);
        const signal = await asked.next();
        assert.equal(signal.aborted, false);
        client.socket[leave]();
        await eventually(() => assert.ok(signal.aborted, `${leave}, ${behind.length} bytes`));
      }
    }
  }
  await eventually(() => assert.equal(stats().pendingRequests, 0));
});

test('a request that nobody waits for is not kept by a handler that hangs', async (t) => {
  v8.setFlagsFromString('--expose-gc');
  const collectGarbage = vm.runInNewContext('gc');
  const asked = new Inbox();
  const hang = (incoming) => {
    asked.push(new WeakRef(incoming));
    return new Promise(() => {});
  };
  const server = serve(t, { handleHttpRequest: hang, handleSocketUpgrade: hang }, { requestTimeout: 100 });
  const kept = [];
  for (const head of ['GET / HTTP/1.1\r\nHost: x\r\n\r\n', handshake()]) {
    const late = (await connectRaw(t, server)).write(head);
    kept.push(await asked.next());
    assert.equal((await late.response()).status, 504);
    const gone = (await connectRaw(t, server)).write(head);
    kept.push(await asked.next());
    gone.socket.destroy();
  }
  await eventually(() => {
    collectGarbage();
    assert.deepEqual(
      kept.map((request) => request.deref()),
      kept.map(() => undefined),
    );
  });
});

test('requests on one connection are answered in their order, whichever is ready first', async (t) => {
  const slow = deferred();
  const server = serve(t, {
    async handleHttpRequest({ path }) {
      if (path === '/slow') await slow.promise;
      else slow.resolve();
      return { body: path };
    },
  });
  const socket = net.connect(server.address);
  t.after(() => socket.destroy());
  socket.write('GET /slow HTTP/1.1\r\nhost: a\r\n\r\nGET /fast HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n');
  setImmediate(slow.resolve); // a server may well read the second request only after the first is answered
  let received = '';
  for await (const chunk of socket.setEncoding('latin1')) received += chunk;
  assert.deepEqual(received.match(/\/(slow|fast)/g), ['/slow', '/fast']);
});

test('fetch of a page that is larger than a socket buffer', async (t) => {
  const page = 'é'.repeat(3_000_000);
  const server = serve(t, { handleHttpRequest: () => ({ body: page }) });
  const response = await fetch(httpUrl(server));
  assert.equal(response.headers.get('content-type'), 'text/plain; charset=utf-8');
  assert.equal(await response.text(), page);
});

test('limits of one server are not those of another', async (t) => {
  const handlers = { handleHttpRequest: ({ body }) => ({ body: String(body.length) }) };
  const small = serve(t, handlers, { maxBodySize: 10 });
  const large = listen({ maxBodySize: 1000 });
  const body = 'x'.repeat(100);
  assert.equal((await request(small, '/', { method: 'POST', body })).status, 413);
  assert.equal((await request(small, '/', { method: 'POST', body: 'x'.repeat(10) })).body, '10');
  assert.equal((await request(large, '/', { method: 'POST', body })).body, '100');
});
