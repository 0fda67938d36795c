/** Every program of example/ does what its README says, and ends by itself when it is asked to. */
import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { createClient } from 'graphql-ws';
import WebSocket from 'ws';
import { connect, refusal, runExample, startExample, startRustExample } from './helpers/examples.mjs';
import { eventually, within } from './helpers/waiting.mjs';

/** SIGTERM ends a process on Windows without asking it, so there is nothing to see of its exit code. */
async function stopsCleanly(example, signal) {
  const { code } = await example.stop(signal);
  if (process.platform !== 'win32') assert.equal(code, 0, example.errors);
}

test('echo: text comes back as text, bytes as bytes, in order', async (t) => {
  const example = await startExample(t, 'echo/echo.mjs');
  const socket = await connect(t, example.socketUrl);

  socket.send('hello ☕');
  socket.send(Buffer.from([0, 255, 1]));
  socket.send('');
  assert.equal(await socket.next(), 'hello ☕');
  assert.deepEqual(await socket.next(), Buffer.from([0, 255, 1]));
  assert.equal(await socket.next(), '');

  await stopsCleanly(example);
  if (process.platform !== 'win32') assert.equal((await socket.closed).code, 1001);
  assert.match(example.output, /^listening on http:\/\/127\.0\.0\.1:\d+\n$/);
});

test('echo: SIGINT ends it too', async (t) => {
  const example = await startExample(t, 'echo/echo.mjs');
  await stopsCleanly(example, 'SIGINT');
});

test('the engine without Node: its Rust example echoes and answers HTTP', async (t) => {
  const example = await startRustExample(t, 'echo');
  const socket = await connect(t, example.socketUrl);

  socket.send('hello ☕');
  socket.send(Buffer.from([0, 255, 1]));
  assert.equal(await socket.next(), 'hello ☕');
  assert.deepEqual(await socket.next(), Buffer.from([0, 255, 1]));
  assert.equal(await (await fetch(example.url)).text(), 'connect with a WebSocket client\n');

  await example.kill(); // it serves until it is ended
  assert.equal((await socket.closed).code, 1006);
});

test('graphql: subscriptions and queries run beside each other on one socket, and end with it', async (t) => {
  const example = await startExample(t, 'graphql/server.mjs');
  const ends = [
    ['by a goodbye', (client) => client.dispose()],
    ['without a word', (client) => client.terminate()],
  ];
  for (const [how, end] of ends) {
    const client = createClient({
      url: example.socketUrl,
      webSocketImpl: WebSocket,
      lazy: false,
      retryAttempts: 0,
      onNonLazyError() {},
    });
    const running = async () => {
      for await (const { data } of client.iterate({ query: '{ running }' })) return data.running;
    };
    const one = client.iterate({ query: 'subscription { ticks(every: 5) }' });
    const other = client.iterate({ query: 'subscription { ticks(every: 100000) }' });
    for (let n = 0; n < 20; n += 1) assert.deepEqual((await one.next()).value.data, { ticks: n });
    assert.deepEqual((await other.next()).value.data, { ticks: 0 });
    assert.equal(await within(running(), 'an answer beside two subscriptions'), 2, how);
    // Each of them is told in its own way that its connection has gone.
    for (const each of [one, other]) each.next().catch(() => {});
    end(client);
    const watcher = createClient({ url: example.socketUrl, webSocketImpl: WebSocket });
    await eventually(async () => {
      for await (const { data } of watcher.iterate({ query: '{ running }' })) assert.equal(data.running, 0, how);
    });
    await watcher.dispose();
  }
  await stopsCleanly(example);
  assert.equal(example.errors, '');
});

test('commonjs: a class as the worker; every socket hears of every request', async (t) => {
  const example = await startExample(t, 'commonjs/server.cjs');
  const sockets = [await connect(t, example.socketUrl), await connect(t, example.socketUrl)];

  const response = await fetch(`${example.url}/first?x=1`);
  assert.equal(response.headers.get('content-type'), 'application/json');
  assert.deepEqual(await response.json(), { visits: 1, watching: 2 });
  await (await fetch(`${example.url}/second`, { method: 'POST', body: 'x' })).text();

  for (const socket of sockets) {
    assert.equal(await socket.next(), 'visit 1: GET /first');
    assert.equal(await socket.next(), 'visit 2: POST /second');
  }
  await stopsCleanly(example);
});

test('workers: sockets and requests are dealt in turn, a publish reaches the sockets of all', async (t) => {
  const example = await startExample(t, 'workers/main.mjs');
  const sockets = [];
  for (let i = 0; i < 3; i += 1) sockets.push(await connect(t, example.socketUrl));

  const numbers = []; // of the workers, in the order of the sockets
  for (const [i, socket] of sockets.entries()) {
    socket.send(`message ${i}`);
    // All have it before the next is sent, so that the order is known.
    const received = await Promise.all(sockets.map((each) => each.next()));
    const [, number] = /^worker (\d), socket \d+: (message \d)$/.exec(received[0]);
    assert.deepEqual(received, Array(3).fill(received[0]));
    assert.ok(received[0].endsWith(`message ${i}`));
    numbers.push(number);
  }
  assert.deepEqual(numbers.toSorted(), ['1', '2', '3']);

  const answers = [];
  for (let i = 0; i < 3; i += 1) answers.push(await (await fetch(example.url)).text());
  assert.deepEqual(
    answers.sort(),
    [1, 2, 3].map((number) => `answered by worker ${number}\n`),
  );

  sockets[1].close(4000, 'enough');
  for (const event of ['opened', 'published a message of socket \\d+ to 3 sockets', 'closed with 4000']) {
    const line = new RegExp(`^worker ${numbers[1]}: .*${event}$`, 'm');
    await example.waitFor(() => line.test(example.output), `${line} is printed`);
  }
  await stopsCleanly(example);
});

test('rest-auth: login, bearer token, and a socket that belongs to its user', async (t) => {
  const example = await startExample(t, 'rest-auth/server.mjs', { SECRET: 'a secret of the test' });
  const call = async (path, { token, body } = {}) => {
    const response = await fetch(example.url + path, {
      method: body === undefined ? 'GET' : 'POST',
      headers: token ? { authorization: `Bearer ${token}` } : {},
      body: typeof body === 'object' ? JSON.stringify(body) : body,
    });
    return { status: response.status, headers: response.headers, value: await response.json() };
  };
  const login = async (user, password) => (await call('/login', { body: { user, password } })).value.token;

  await t.test('a login needs the right password', async () => {
    for (const body of [
      { user: 'alice', password: 'wrong' },
      { user: 'nobody', password: 'wonderland' },
    ]) {
      assert.equal((await call('/login', { body })).status, 401);
    }
    for (const body of ['', 'no json', 'null', '[]', { user: 1, password: 2 }]) {
      assert.equal((await call('/login', { body })).status, 400, JSON.stringify(body));
    }
  });

  await t.test('the API wants a valid token', async () => {
    const token = await login('alice', 'wonderland');
    const { status, value } = await call('/me', { token });
    assert.equal(status, 200);
    assert.equal(value.user, 'alice');
    assert.ok(value.expires > Date.now());

    const [payload, signature] = token.split('.');
    const forged = Buffer.from(JSON.stringify({ user: 'bob', expires: value.expires })).toString('base64url');
    const expired = signed({ user: 'alice', expires: Date.now() - 1 });
    for (const bad of [undefined, 'x', `${forged}.${signature}`, payload, `${payload}.`, expired]) {
      const answer = await call('/me', { token: bad });
      assert.equal(answer.status, 401, bad);
      assert.equal(answer.headers.get('www-authenticate'), 'Bearer');
    }
    assert.equal((await call('/elsewhere', { token })).status, 404);
  });

  await t.test('an upgrade without a valid token is answered with 401', async () => {
    assert.equal(await refusal(example.socketUrl), 401);
    assert.equal(await refusal(`${example.socketUrl}/?token=x`), 401);
    assert.equal(await refusal(example.socketUrl, { headers: { authorization: 'Bearer x' } }), 401);
  });

  await t.test('what is for a user reaches all of their sockets and nobody else', async () => {
    const [alice, bob] = [await login('alice', 'wonderland'), await login('bob', 'builder')];
    const byHeader = await connect(t, example.socketUrl, { headers: { authorization: `Bearer ${alice}` } });
    const byQuery = await connect(t, `${example.socketUrl}/?token=${alice}`);
    const other = await connect(t, `${example.socketUrl}/?token=${bob}`);

    const toAlice = await call('/notify', { token: bob, body: { to: 'alice', text: 'hi' } });
    assert.deepEqual(toAlice.value, { delivered: 2 });
    const toBob = await call('/notify', { token: alice, body: { to: 'bob', text: 'hi yourself' } });
    assert.deepEqual(toBob.value, { delivered: 1 });

    assert.deepEqual(await byHeader.nextJson(), { from: 'bob', text: 'hi' });
    assert.deepEqual(await byQuery.nextJson(), { from: 'bob', text: 'hi' });
    assert.deepEqual(await other.nextJson(), { from: 'alice', text: 'hi yourself' });

    const toNobody = await call('/notify', { token: bob, body: { to: 'x'.repeat(600), text: 'hi' } });
    assert.equal(toNobody.status, 404);
  });

  await t.test('a socket may renew its token, and is closed when it did not', async () => {
    const socket = await connect(t, `${example.socketUrl}/?token=${await login('alice', 'wonderland')}`);

    socket.sendJson({ token: await login('bob', 'builder') });
    assert.match((await socket.nextJson()).error, /a valid token of alice/);
    socket.send('no json');
    assert.match((await socket.nextJson()).error, /a valid token of alice/);

    const expires = Date.now() + 1000;
    socket.sendJson({ token: signed({ user: 'alice', expires }) });
    assert.deepEqual(await socket.nextJson(), { renewed: { user: 'alice', expires } });

    await eventually(() => assert.ok(Date.now() > expires));
    socket.send('still here?');
    assert.deepEqual(await within(socket.closed, 'close'), { code: 4401, reason: 'session expired' });
  });

  await stopsCleanly(example);

  function signed(session) {
    const payload = Buffer.from(JSON.stringify(session)).toString('base64url');
    return `${payload}.${createHmac('sha256', 'a secret of the test').update(payload).digest('base64url')}`;
  }
});

test('chat: serves its page', async (t) => {
  const { url } = await startExample(t, 'chat/server.mjs');

  const page = await fetch(`${url}/?room=lobby`);
  assert.equal(page.status, 200);
  assert.equal(page.headers.get('content-type'), 'text/html; charset=utf-8');
  assert.equal(page.headers.get('cache-control'), 'no-cache');
  const html = await page.text();
  for (const [, file] of html.matchAll(/(?:href|src)="([^"]+)"/g)) {
    const response = await fetch(new URL(file, url));
    assert.equal(response.status, 200, file);
    assert.notEqual((await response.text()).length, 0, file);
  }

  const etag = page.headers.get('etag');
  const again = await fetch(url, { headers: { 'if-none-match': etag } });
  assert.equal(again.status, 304);
  assert.equal(await again.text(), '');

  const head = await fetch(url, { method: 'HEAD' });
  assert.equal(head.status, 200);
  assert.equal(head.headers.get('etag'), etag);
  assert.equal(head.headers.get('content-length'), String(Buffer.byteLength(html)));

  for (const path of ['/nothing', '/..%2fserver.mjs', '/../server.mjs', '/constructor', '/index.html/']) {
    const response = await fetch(url + path);
    assert.equal(response.status, 404, path);
    await response.text();
  }
  const post = await fetch(url, { method: 'POST', body: 'x' });
  assert.equal(post.status, 405);
  assert.equal(post.headers.get('allow'), 'GET, HEAD');
  assert.equal(await refusal(`${url.replace('http', 'ws')}/elsewhere`), 404);
});

test('chat: a room hears who joins, writes, says something and leaves', async (t) => {
  const example = await startExample(t, 'chat/server.mjs');
  const [ann, bob] = [await connect(t, `${example.socketUrl}/chat`), await connect(t, `${example.socketUrl}/chat`)];

  const annIs = await join(ann, 'tea', ' Ann ');
  assert.deepEqual(annIs, { type: 'joined', room: 'tea', id: annIs.id, name: 'Ann' });
  const bobIs = await join(bob, 'tea', 'Bob');
  const both = [
    { id: annIs.id, name: 'Ann' },
    { id: bobIs.id, name: 'Bob' },
  ];
  for (const socket of [ann, bob]) assert.deepEqual((await socket.find(listOf(2))).members, both);

  // A list may come once more, when a worker looked at the room between two changes.
  const next = (socket) => socket.find((message) => message.type !== 'who');
  bob.sendJson({ type: 'typing', typing: true });
  assert.deepEqual(await next(ann), { type: 'typing', id: bobIs.id, name: 'Bob', typing: true, room: 'tea' });
  bob.sendJson({ type: 'say', text: ' <b>hello</b> ' });
  // Bob himself got no 'typing' before his message.
  for (const socket of [ann, bob]) {
    const { time, ...message } = await next(socket);
    assert.deepEqual(message, { type: 'message', id: bobIs.id, name: 'Bob', text: '<b>hello</b>', room: 'tea' });
    assert.ok(Math.abs(Date.now() - time) < 60_000);
  }

  bob.sendJson({ type: 'leave' });
  assert.deepEqual(await next(bob), { type: 'left', room: 'tea' });
  assert.deepEqual((await ann.find(listOf(1))).members, [both[0]]);
  ann.sendJson({ type: 'say', text: 'alone' });
  assert.equal((await next(ann)).text, 'alone');
  // Bob is in another room now, and has heard nothing since he left.
  bob.sendJson({ type: 'join', room: 'coffee', name: 'Bob' });
  assert.equal((await next(bob)).type, 'joined');

  await stopsCleanly(example);
});

test('chat: whatever a client sends, it gets an error and may go on', async (t) => {
  const example = await startExample(t, 'chat/server.mjs');
  const socket = await connect(t, `${example.socketUrl}/chat`);
  const rubbish = [
    '',
    'no json',
    '{',
    'null',
    '7',
    '"join"',
    '[]',
    '{}',
    '{"type":"constructor"}',
    '{"type":7}',
    Buffer.from('{}'),
  ];
  const bad = [
    { type: 'say', text: 'in no room' },
    { type: 'typing', typing: true },
    { type: 'leave' },
    { type: 'join' },
    { type: 'join', room: 'tea', name: ' \n ' },
    { type: 'join', room: '\u200b', name: 'Ann' },
    { type: 'join', room: 'tea', name: 'x'.repeat(25) },
    { type: 'join', room: 'x'.repeat(41), name: 'Ann' },
    { type: 'join', room: ['tea'], name: { toString: 'Ann' } },
  ];
  for (const message of [...rubbish, ...bad.map((each) => JSON.stringify(each))]) {
    socket.send(message);
    assert.equal((await socket.nextJson()).type, 'error', String(message));
  }

  await join(socket, 'x'.repeat(40), '\ud800'.padEnd(24, '☕')); // the longest names, with half a character
  await socket.find(listOf(1));
  for (const text of [undefined, 7, '', ' \n ', 'x'.repeat(2001)]) {
    socket.sendJson({ type: 'say', text });
    assert.equal((await socket.nextJson()).type, 'error', String(text));
  }
  socket.sendJson({ type: 'say', text: '\u0001'.repeat(2000) }); // the longest JSON that is allowed: 12 kB
  assert.equal((await socket.nextJson()).text, '\u0001'.repeat(2000));
  assert.equal(example.errors, '');
  await stopsCleanly(example);
});

test('chat: however many change rooms at once in however many workers, all end up with the right list', async (t) => {
  const example = await startExample(t, 'chat/server.mjs', { WORKERS: '4' });
  const people = [];
  for (let i = 0; i < 24; i += 1) {
    people.push({ name: `member ${i}`, socket: await connect(t, `${example.socketUrl}/chat`), list: [] });
  }
  // The next message that fits; on the way to it, the newest list is kept.
  const find = (person, fits) =>
    person.socket.find((message) => {
      if (message.type === 'who' && message.room === person.room) person.list = message.members.map(({ name }) => name);
      return fits(message);
    });

  for (let round = 1; round <= 8; round += 1) {
    const staying = round < 8 ? people : people.filter((_, i) => i % 3 !== 0);
    for (const [i, person] of people.entries()) {
      person.room = ['tea', 'coffee', 'water'][(i + round * (1 + (i % 2))) % 3];
      if (staying.includes(person)) person.socket.sendJson({ type: 'join', room: person.room, name: person.name });
      else person.socket.close(1000);
    }
    await Promise.all(staying.map((person) => find(person, (message) => message.type === 'joined')));

    // Everybody says something: when all of a room have heard all, whatever was published of the joins has arrived too.
    for (const { socket } of staying) socket.sendJson({ type: 'say', text: `round ${round}` });
    await Promise.all(
      staying.map(async (person) => {
        const expected = staying
          .filter(({ room }) => room === person.room)
          .map(({ name }) => name)
          .sort();
        const isRight = () => isDeepStrictEqual(person.list.toSorted(), expected);
        let heard = 0;
        await find(person, (message) => {
          if (message.text === `round ${round}`) heard += 1;
          return heard === expected.length;
        });
        if (!isRight()) await find(person, isRight);
      }),
    );
  }
  await stopsCleanly(example);
});

test('chat: a port in use is told in a sentence', async (t) => {
  const { port } = await startExample(t, 'chat/server.mjs');
  const second = runExample(t, 'chat/server.mjs', { PORT: port });
  const { code } = await within(second.exited, 'end');
  assert.equal(code, 1);
  assert.equal(second.errors, `Port ${port} is in use. Choose another one, for example PORT=3001.\n`);
});

async function join(socket, room, name) {
  socket.sendJson({ type: 'join', room, name });
  return socket.find((message) => message.type === 'joined');
}

function listOf(count) {
  return (message) => message.type === 'who' && message.members.length === count;
}
