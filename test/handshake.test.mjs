// The opening handshake's choices: subprotocols, origins, the upgrade hook, and how many may be under way.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { channels, connectionCount, registerWorkerThread, send, start, stats } from 'wsbroker';
import { runsTo } from './helpers/program.mjs';
import { connectRaw, frame, handshake, OPCODE } from './helpers/raw.mjs';
import { connect, listen, open, refusal, request, serve, throwsCode } from './helpers/serving.mjs';
import { startThreads } from './helpers/threads.mjs';
import { deferred, eventually, Inbox, within } from './helpers/waiting.mjs';

const refused = (options) =>
  throwsCode(() => start({ bind: '127.0.0.1:0', ...options }), 'WSB_INVALID_ARGUMENT').message;

/** With a worker, so that nothing but the options can be wrong. */
function registered(t) {
  const { unregister } = registerWorkerThread({});
  t.after(unregister);
  t.after(() => assert.equal(stats().listeners, 0, 'nothing is half-started'));
}

test('the first subprotocol of the server that the client offers is chosen, and told', async (t) => {
  const told = new Inbox();
  const server = serve(
    t,
    { handleSocketOpen: (_socketId, request) => told.push(request.protocol) },
    { protocols: ['graphql-transport-ws', 'graphql-ws'] },
  );
  const client = await connect(t, server, { protocols: ['graphql-ws', 'graphql-transport-ws'] });
  assert.equal(client.protocol, 'graphql-transport-ws');
  assert.equal(await told.next(), 'graphql-transport-ws');

  assert.equal((await connect(t, server)).protocol, '');
  assert.equal(await told.next(), undefined);

  const raw = await connectRaw(t, server);
  const answer = await raw.write(handshake({ 'Sec-WebSocket-Protocol': 'mqtt' })).response();
  assert.deepEqual([answer.status, answer.headers['sec-websocket-protocol']], [101, undefined]);
  assert.equal(await told.next(), undefined);
});

test('the upgrade handler sees the choice and the offer, and may choose itself', async (t) => {
  const told = new Inbox();
  const server = serve(
    t,
    {
      handleSocketUpgrade({ path, protocol, headers }) {
        told.push([protocol, headers['sec-websocket-protocol']]);
        return path === '/own' ? { protocol: 'v1' } : undefined;
      },
      handleSocketOpen: (_socketId, request) => told.push(request.protocol),
      handleHttpRequest: (request) => ({ body: String(request.protocol) }),
    },
    { protocols: ['v2', 'v1'] },
  );
  const protocols = ['v1', 'v2'];
  assert.equal((await connect(t, server, { protocols })).protocol, 'v2');
  assert.deepEqual(await told.take(2), [['v2', 'v1,v2'], 'v2']);
  assert.equal((await connect(t, server, { path: '/own', protocols })).protocol, 'v1');
  assert.deepEqual(await told.take(2), [['v2', 'v1,v2'], 'v1']);
  assert.equal((await request(server)).body, 'undefined');
});

test('subprotocols that are none, or come twice, are refused by their place', (t) => {
  registered(t);
  for (const [protocols, message] of [
    [['a', 7], /^options\.protocols\[1\]: expected the name of a subprotocol.*, got 7$/],
    [['a b'], /^options\.protocols\[0\]: .*, got "a b"$/],
    [[''], /^options\.protocols\[0\]: /],
    [['a', 'b', 'a'], /^options\.protocols\[2\]: expected each subprotocol once, got "a"$/],
    // biome-ignore lint/suspicious/noSparseArray: what is not there is not a name
    [['a', , 'b'], /^options\.protocols\[1\]: .*, got undefined$/],
  ]) {
    assert.match(refused({ protocols }), message);
  }
});

test('what is no origin is refused, with what to write', (t) => {
  registered(t);
  for (const [origin, message] of [
    [
      'https://example.com/',
      /^options\.origins\[1\]: expected .*: 'https:\/\/example\.com', got "https:\/\/example\.com\/"/,
    ],
    ['https://example.com/app?x=1', /'https:\/\/example\.com', got/],
    ['https://user@example.com', /'https:\/\/example\.com', got/],
    ['https://bücher.example', /'https:\/\/xn--bcher-kva\.example', got/],
    ['example.com', /an origin with its scheme/],
    ['//example.com', /an origin with its scheme/],
    ['https://*.example.com', /without a pattern, .*; a function can compare/],
    ['*', /origins: '\*'/],
    ['https://', /expected an origin/],
    ['', /an origin with its scheme/],
    [undefined, /got undefined/],
    [/example/, /got an instance of RegExp/],
    ['https://example.com:70000', /^options\.origins\[1\]: expected an origin, such as/],
    ['https://example.com:0', /^options\.origins\[1\]: /],
    ['http://[::1::]', /^options\.origins\[1\]: expected an origin, such as/],
  ]) {
    assert.match(refused({ origins: ['http://localhost:3000', origin] }), message);
  }
});

/** What a page of this origin would send. */
const from = (origin) => ({ headers: { Origin: origin } });

test('a list of origins lets its own in, and whoever is no browser', async (t) => {
  const asked = new Inbox();
  const server = serve(
    t,
    { handleSocketUpgrade: ({ headers }) => asked.push(headers.origin), handleHttpRequest: () => ({ body: 'fine' }) },
    { origins: ['https://example.com', 'http://localhost:3000', 'null'] },
  );
  const { origins } = stats().limited;
  for (const foreign of [
    'https://evil.example',
    'http://example.com',
    'https://example.com.evil.example',
    'http://localhost',
  ]) {
    const { status, headers, body } = await refusal(t, server, from(foreign));
    assert.deepEqual([status, body], [403, 'this origin may not connect\n'], foreign);
    assert.equal(headers['content-type'], 'text/plain; charset=utf-8');
  }
  assert.equal(stats().limited.origins, origins + 4);
  assert.equal(asked.length, 0, 'no handler was asked');
  for (const own of ['https://example.com', 'HTTPS://EXAMPLE.COM:443', 'http://localhost:3000', 'null']) {
    await connect(t, server, from(own));
    assert.equal(await asked.next(), own);
  }
  await connect(t, server);
  assert.equal(await asked.next(), undefined);
  assert.equal(
    (await request(server, '/', from('https://evil.example'))).body,
    'fine',
    'requests are not its business',
  );

  const everybody = listen({ origins: '*' });
  await connect(t, everybody, from('https://evil.example'));
});

test('a function of origins decides in the thread that called start', async (t) => {
  const errors = new Inbox();
  const asked = new Inbox();
  const answers = {
    'https://good.example': () => true,
    'https://bad.example': () => false,
    'https://throws.example': () => {
      throw new Error('on purpose');
    },
    'https://promises.example': () => Promise.reject(new Error('nobody waits for it')),
    'https://nothing.example': () => undefined,
    'https://one.example': () => 1,
  };
  // Threads handle the sockets; the main thread has a worker only for its `handleError`.
  const server = serve(
    t,
    { handleError: (error, context) => errors.push([error, context]) },
    {
      origins(origin) {
        asked.push(origin);
        return origin === undefined || answers[origin]();
      },
    },
  );
  const before = stats().limited.origins;
  await connect(t, server);
  assert.equal(await asked.next(), undefined);
  await connect(t, server, from('https://good.example'));
  assert.equal((await refusal(t, server, from('https://bad.example'))).status, 403);
  assert.equal(stats().limited.origins, before + 1);
  for (const [origin, message] of [
    ['https://throws.example', /^on purpose$/],
    ['https://promises.example', /expected true or false at once; handleSocketUpgrade may decide with a promise/],
    ['https://nothing.example', /got undefined/],
    ['https://one.example', /got 1$/],
  ]) {
    assert.equal((await refusal(t, server, from(origin))).status, 500, origin);
    const [error, context] = await errors.next();
    assert.match(error.message, message);
    assert.deepEqual(context, { handler: 'origins' });
  }
  assert.equal(stats().limited.origins, before + 1);
});

test('many origins at once are all judged, whatever thread handles the sockets', async (t) => {
  await startThreads(t, 2);
  const server = listen({ origins: (origin) => origin !== 'https://evil.example' });
  const wanted = Array.from({ length: 100 }, (_, n) => (n % 3 === 0 ? 'https://evil.example' : `https://${n}.example`));
  const outcomes = await Promise.all(
    wanted.map((origin) => {
      const client = open(t, server, from(origin));
      const opened = once(client, 'open').then(() => 101);
      const refused = once(client, 'unexpected-response').then(([, { statusCode }]) => statusCode);
      return within(Promise.race([opened, refused]), origin);
    }),
  );
  assert.deepEqual(
    outcomes,
    wanted.map((origin) => (origin === 'https://evil.example' ? 403 : 101)),
  );
});

test('without a worker in its thread the error of a function of origins goes to stderr', async () => {
  const program = `
    const http = await import('node:http');
    const { start } = await import('wsbroker');
    const worker = thread("(await import('wsbroker')).registerWorkerThread({}); parentPort.postMessage('ready')");
    await once(worker, 'message');
    const server = start({ bind: '127.0.0.1:0', origins() { throw new Error('on purpose'); } });
    const headers = { Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': 13,
      'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==' };
    const [response] = await once(http.get({ ...server.address, headers, agent: false }), 'response');
    response.resume();
    await server.stop();
    await worker.terminate();
    console.log(response.statusCode);`;
  const log = await runsTo({ stdout: '500' }, program);
  assert.match(log, /wsbroker: origins failed: Error: on purpose/);
});

test('the upgrade hook refuses or accepts with all that it has, after a promise', async (t) => {
  const opened = new Inbox();
  const server = serve(t, {
    async handleSocketUpgrade({ path }) {
      await null;
      if (path === '/no') return { status: 401, headers: { 'www-authenticate': 'Bearer' }, body: 'who are you?' };
      return { token: 'alice', channels: ['a', 'b'], protocol: 'v1', headers: { 'set-cookie': ['a=1', 'b=2'] } };
    },
    handleSocketOpen: (socketId, _request, token) => opened.push([channels(socketId).sort().join(), String(token)]),
  });
  const { status, headers, body } = await refusal(t, server, { path: '/no' });
  assert.deepEqual([status, headers['www-authenticate'], body], [401, 'Bearer', 'who are you?']);
  const client = open(t, server, { protocols: ['v1'] });
  const [response] = await within(once(client, 'upgrade'), 'the 101');
  assert.deepEqual(response.headers['set-cookie'], ['a=1', 'b=2']);
  assert.equal(client.protocol, 'v1');
  assert.deepEqual(await opened.next(), ['a,b', 'alice']);
});

const MESSAGE = 64 * 1024;
const MESSAGES = 1600;

/** Writes 100 MB of numbered messages without holding them; gives how much has been written so far. */
function flood(socket) {
  const progress = { written: 0, over: undefined };
  const closed = once(socket, 'close');
  const write = async () => {
    for (let n = 0; n < MESSAGES; n += 1) {
      const payload = Buffer.alloc(MESSAGE);
      payload.writeUInt32BE(n);
      const bytes = frame(OPCODE.binary, payload);
      if (!socket.write(bytes)) await Promise.race([new Promise((resolve) => socket.once('drain', resolve)), closed]);
      if (socket.destroyed) return;
      progress.written += bytes.length;
    }
  };
  progress.over = write();
  progress.over.catch(() => {});
  return progress;
}

for (const accepts of [true, false]) {
  test(`what a client floods during a decision waits in little memory, and is ${accepts ? 'handled in order' : 'dropped'}`, async (t) => {
    const decision = deferred();
    const asked = new Inbox();
    const numbers = [];
    const server = serve(
      t,
      {
        handleSocketUpgrade() {
          asked.push('asked');
          return decision.promise;
        },
        handleSocketMessage: (data) => void numbers.push(data.readUInt32BE(0)),
      },
      { requestTimeout: 60_000, limits: { handshakes: 1 } },
    );
    const client = await connectRaw(t, server);
    const { rss } = process.memoryUsage();
    client.write(handshake());
    await asked.next();
    const progress = flood(client.socket);
    let before;
    await eventually(async () => {
      before = progress.written;
      await new Promise((resolve) => setTimeout(resolve, 50));
      assert.equal(progress.written, before, 'the client is stuck');
    });
    assert.ok(before < 50 << 20, `${before} bytes were taken`);
    assert.ok(process.memoryUsage().rss - rss < 64 << 20, 'the process stays as it was');
    decision.resolve(accepts);
    if (accepts) {
      assert.equal((await client.response()).status, 101);
      await within(progress.over, 'all is written', 60_000);
      await eventually(() => assert.equal(numbers.length, MESSAGES), 60_000);
      assert.deepEqual(numbers, [...numbers.keys()]);
    } else {
      assert.equal((await client.response()).status, 403);
      await client.end();
      client.socket.destroy();
      assert.equal(numbers.length, 0);
      assert.equal(connectionCount(), 0);
      assert.equal(stats().pendingRequests, 0);
    }
    client.socket.destroy();
    // Its place is free again.
    await eventually(async () => assert.ok(asked.length === 0));
    const { status } = await (await connectRaw(t, server)).write(handshake()).response();
    assert.equal(status, accepts ? 101 : 403);
  });
}

test('more handshakes than allowed get 503 without asking anybody', async (t) => {
  const asked = new Inbox();
  const server = serve(
    t,
    {
      handleSocketUpgrade() {
        const decision = deferred();
        asked.push(decision);
        return decision.promise;
      },
      handleSocketMessage: (data, socketId) => void send(socketId, data),
    },
    { limits: { handshakes: 2 } },
  );
  const { handshakes } = stats().limited;
  const first = open(t, server);
  const [opensFirst] = await asked.take(1);
  const second = refusal(t, server, {});
  const [refusesSecond] = await asked.take(1);
  for (let n = 0; n < 5; n += 1) {
    const { status, headers, body } = await refusal(t, server, {});
    assert.deepEqual([status, headers['retry-after'], body], [503, '1', 'too many handshakes at once\n']);
  }
  assert.equal(stats().limited.handshakes, handshakes + 5);
  assert.equal(asked.length, 0);
  opensFirst.resolve(true);
  refusesSecond.resolve(false);
  await within(once(first, 'open'), 'the first opens');
  assert.equal((await second).status, 403);
  for (let n = 0; n < 3; n += 1) {
    const client = open(t, server);
    (await asked.next()).resolve(true);
    await within(once(client, 'open'), 'a place is free again');
  }
});
