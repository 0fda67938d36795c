// What the broker answers by itself: every row of the README's table, provoked.

import assert from 'node:assert/strict';
import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { test } from 'node:test';
import { ban, registerWorkerThread, unban } from 'wsbroker';
import { ROOT } from './helpers/package.mjs';
import { connectRaw, handshake } from './helpers/raw.mjs';
import { connect, listen, open, refusal, request, serve } from './helpers/serving.mjs';
import { startThreads } from './helpers/threads.mjs';
import { deferred, Inbox, within } from './helpers/waiting.mjs';

/** What a client gets that writes these bytes. */
async function answerTo(t, server, bytes) {
  const client = await connectRaw(t, server);
  return client.write(bytes).response();
}

const GET = 'GET / HTTP/1.1\r\nHost: x\r\n';
const POST = 'POST / HTTP/1.1\r\nHost: x\r\n';

const once = { capacity: 1, interval: 60_000 };

/** The second answer of a server that lets one request of a client through. */
async function second(ask) {
  await ask();
  return ask();
}

function fail() {
  throw new Error('for a test');
}

/** A server behind a proxy, and what a request of 192.0.2.1 gets. */
function proxied(t, headers, options) {
  return request(serve(t, {}, { trustProxy: 1, ...options }), '/', { headers });
}

/** [status, when, what provokes it]: `when` is what the README says. Instead of a function the test that provokes it. */
const ANSWERS = [
  [400, 'the request is malformed', (t) => answerTo(t, serve(t), 'rubbish\r\n\r\n')],
  [400, 'it has not exactly one `Host`', (t) => answerTo(t, serve(t), 'GET / HTTP/1.1\r\n\r\n')],
  [400, 'its `Host` is no host', (t) => answerTo(t, serve(t), 'GET / HTTP/1.1\r\nHost: a b\r\n\r\n')],
  [
    400,
    'its target is neither a path nor a whole `http` URL',
    (t) => answerTo(t, serve(t), 'GET admin HTTP/1.1\r\nHost: x\r\n\r\n'),
  ],
  [400, 'its target is `*` and it is no `OPTIONS`', (t) => answerTo(t, serve(t), 'GET * HTTP/1.1\r\nHost: x\r\n\r\n')],
  [400, 'its body is broken', (t) => answerTo(t, serve(t), `${POST}Transfer-Encoding: chunked\r\n\r\nxyz\r\n`)],
  [
    400,
    '`X-Forwarded-For` and `Forwarded` name different clients (`trustProxy`)',
    (t) => proxied(t, { 'X-Forwarded-For': '192.0.2.1', Forwarded: 'for=192.0.2.2' }),
  ],
  [400, 'an upgrade is not of HTTP/1.1', (t) => answerTo(t, serve(t), handshake({}, 'GET / HTTP/1.0'))],
  [400, 'an upgrade has a body', (t) => answerTo(t, serve(t), handshake({ 'Content-Length': '1' }))],
  [
    400,
    'its `Sec-WebSocket-Key` is not 16 bytes in base64',
    (t) => answerTo(t, serve(t), handshake({ 'Sec-WebSocket-Key': 'short' })),
  ],
  [
    400,
    'its `Sec-WebSocket-Extensions` are no list (`compression`)',
    (t) => answerTo(t, serve(t, {}, { compression: true }), handshake({ 'Sec-WebSocket-Extensions': 'a;;b' })),
  ],
  [403, '`handleSocketUpgrade` returned `false`', (t) => refusal(t, serve(t, { handleSocketUpgrade: () => false }))],
  [
    403,
    'the page may not open sockets (`origins`)',
    (t) =>
      refusal(t, serve(t, {}, { origins: ['https://good.example'] }), { headers: { Origin: 'https://bad.example' } }),
  ],
  [
    403,
    'the client is banned and came through a trusted proxy',
    async (t) => {
      ban('192.0.2.1');
      t.after(() => unban('192.0.2.1'));
      return proxied(t, { 'X-Forwarded-For': '192.0.2.1' });
    },
  ],
  [404, 'no worker has `handleHttpRequest`, nor any handler of sockets', (t) => request(serve(t))],
  [405, 'an upgrade is no `GET`', (t) => answerTo(t, serve(t), handshake({}, 'POST / HTTP/1.1'))],
  [408, 'the head came too slowly (`headerTimeout`)', (t) => answerTo(t, serve(t, {}, { headerTimeout: 50 }), GET)],
  [
    408,
    'the body did (`bodyTimeout`, `minBodyRate`)',
    (t) => answerTo(t, serve(t, {}, { bodyTimeout: 50 }), `${POST}Content-Length: 2\r\n\r\n1`),
  ],
  [
    413,
    'the body is larger than `maxBodySize`',
    (t) => answerTo(t, serve(t, {}, { maxBodySize: 1 }), `${POST}Content-Length: 2\r\n\r\n12`),
  ],
  [
    414,
    'the URL is longer than 65,534 bytes, which takes a larger `maxHeaderSize`',
    (t) =>
      answerTo(t, serve(t, {}, { maxHeaderSize: 1 << 20 }), `GET /${'x'.repeat(65_534)} HTTP/1.1\r\nHost: x\r\n\r\n`),
  ],
  [
    426,
    'an upgrade is of another version than 13',
    (t) => answerTo(t, serve(t), handshake({ 'Sec-WebSocket-Version': '12' })),
  ],
  [
    426,
    'a request is no upgrade, and the workers have handlers of sockets alone',
    (t) => request(serve(t, { handleSocketMessage() {} })),
  ],
  [
    429,
    'the client has too many connections (`limits.connectionsPerIp`)',
    async (t) => {
      const server = serve(t, {}, { limits: { connectionsPerIp: 1 } });
      await connect(t, server);
      return request(server);
    },
  ],
  [
    429,
    'it asks too often (`limits.requestsPerIp`, `limits.upgradesPerIp`; with `Retry-After`)',
    (t) => {
      const server = serve(t, { handleHttpRequest: () => {} }, { limits: { requestsPerIp: once } });
      return second(() => request(server));
    },
  ],
  [
    431,
    'the head is larger than `maxHeaderSize`, or has more than `maxHeaders`',
    (t) => answerTo(t, serve(t, {}, { maxHeaders: 1 }), `${GET}A: b\r\n\r\n`),
  ],
  [500, 'a handler threw or rejected', (t) => request(serve(t, { handleHttpRequest: fail }))],
  [
    500,
    'what it returned cannot be sent',
    (t) => request(serve(t, { handleHttpRequest: () => ({ headers: { 'x\n': '' } }) })),
  ],
  [500, 'the function of `origins` failed', (t) => refusal(t, serve(t, {}, { origins: fail }))],
  [
    500,
    'an acceptance has too many channels (`limits.channelsPerSocket`)',
    (t) =>
      refusal(
        t,
        serve(t, { handleSocketUpgrade: () => ({ channels: ['a', 'b'] }) }, { limits: { channelsPerSocket: 1 } }),
      ),
  ],
  [501, 'the request is a `CONNECT`', (t) => answerTo(t, serve(t), 'CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n')],
  [
    501,
    'its body is coded in another way than `chunked`',
    (t) => answerTo(t, serve(t), `${POST}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n`),
  ],
  [
    503,
    'no worker is there, or has room',
    async (t) => {
      const { unregister } = registerWorkerThread({});
      const server = listen();
      unregister();
      t.after(() => server.stop());
      return request(server);
    },
  ],
  [
    503,
    'the worker of the request has ended',
    async (t) => {
      const [thread] = await startThreads(t, 1);
      const server = listen();
      const answer = request(server, '/hang');
      await thread.told('request');
      await thread.worker.terminate();
      return answer;
    },
  ],
  [
    503,
    'the server is stopping',
    async (t) => {
      const decision = deferred();
      const asked = new Inbox();
      const handleSocketUpgrade = () => {
        asked.push(true);
        return decision.promise;
      };
      const server = serve(t, { handleSocketUpgrade });
      const answer = refusal(t, server);
      await asked.next();
      server.stop();
      decision.resolve(true);
      return answer;
    },
  ],
  [
    503,
    'the process has too many connections (`limits.connections`)',
    async (t) => {
      const server = serve(t, {}, { limits: { connections: 1 } });
      await connect(t, server);
      return request(server);
    },
  ],
  [
    503,
    'too many upgrades are under way (`limits.handshakes`)',
    async (t) => {
      const asked = new Inbox();
      const decision = deferred();
      const handleSocketUpgrade = () => {
        asked.push(true);
        return decision.promise;
      };
      const server = serve(t, { handleSocketUpgrade }, { limits: { handshakes: 1 } });
      const first = open(t, server);
      await asked.next();
      const answer = await refusal(t, server);
      decision.resolve(true);
      await within(new Promise((resolve) => first.once('open', resolve)), 'the first one opens');
      return answer;
    },
  ],
  [503, 'the thread of `origins` has ended, or is asked too much', 'origins-thread.test.mjs'],
  [
    504,
    'no answer within `requestTimeout`',
    (t) => request(serve(t, { handleHttpRequest: () => new Promise(() => {}) }, { requestTimeout: 50 })),
  ],
];

/** The texts that were seen. */
const bodies = new Set();

for (const [status, when, provoke] of ANSWERS.filter(([, , provoke]) => typeof provoke === 'function')) {
  test(`${status}: ${when}`, async (t) => {
    const answer = await provoke(t);
    assert.equal(answer.status, status);
    bodies.add(answer.body);
  });
}

test('what another test provokes, it does', async () => {
  for (const [status, , file] of ANSWERS.filter(([, , provoke]) => typeof provoke === 'string')) {
    assert.match(await readFile(path.join(ROOT, 'test', file), 'utf8'), new RegExp(`\\b${status}\\b`), file);
  }
});

test('the README tells of these, and of no others', async () => {
  const readme = await readFile(path.join(ROOT, 'README.md'), 'utf8');
  const section = readme.split('\n## ').find((text) => text.startsWith('Answers of the broker itself\n'));
  const told = [...section.matchAll(/^\| (\d{3}) \| (.*) \|$/gm)].map(([, status, when]) => [Number(status), when]);
  const statuses = [...new Set(ANSWERS.map(([status]) => status))];
  const whens = (wanted) => ANSWERS.filter(([status]) => status === wanted).map(([, when]) => when);
  assert.deepEqual(
    told,
    statuses.map((status) => [status, whens(status).join('; ')]),
  );
});

test('every text that the engine has for an answer has been seen', async () => {
  const source = path.join(ROOT, 'crates/broker/src');
  const files = await readdir(source, { recursive: true });
  const texts = [];
  for (const file of files.filter((name) => name.endsWith('.rs') && !name.includes('tests'))) {
    const [code] = (await readFile(path.join(source, file), 'utf8')).split('#[cfg(test)]');
    texts.push(...[...code.matchAll(/^(?!\s*\/\/).*"([^"\\]+)\\n"/gm)].map(([, text]) => `${text}\n`));
  }
  assert.ok(texts.length >= 20, `only ${texts.length} were found`);
  const unseen = new Set(texts.filter((text) => !bodies.has(text)));
  assert.deepEqual([...unseen], []);
});
