// Native routes: messages that are echoed or relayed without any JavaScript.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  bufferedAmount,
  channels,
  close,
  send,
  sendToChannel,
  setMessageRoute,
  setToken,
  stats,
  subscribe,
  unsubscribe,
} from 'wsbroker';
import { connect, listen, refusal, serve, throwsCode } from './helpers/serving.mjs';
import { handlerOf, startThreads } from './helpers/threads.mjs';
import { eventually, Inbox } from './helpers/waiting.mjs';

/** What the broker has counted since. */
function counting() {
  const before = stats();
  return () => {
    const now = stats();
    return {
      messagesIn: now.messagesIn - before.messagesIn,
      messagesOut: now.messagesOut - before.messagesOut,
      notSubscribed: now.dropped.notSubscribed - before.dropped.notSubscribed,
      slowConsumer: now.dropped.slowConsumer - before.dropped.slowConsumer,
    };
  };
}

/**
 * A server whose upgrades are decided by the path: `decisions[path]`. `handled` has what came to a handler, and `open`
 * gives `{ client, id }`.
 */
function deciding(t, decisions, options) {
  const opened = new Inbox();
  const handled = new Inbox();
  const closed = new Inbox();
  const drained = new Inbox();
  const server = serve(
    t,
    {
      handleSocketUpgrade: ({ path }) => decisions[path],
      handleSocketOpen: (socketId) => void opened.push(socketId),
      handleSocketMessage: (data, socketId) => void handled.push({ data, socketId }),
      handleSocketDrain: (socketId) => void drained.push(socketId),
      handleSocketClose: (socketId, token, code) => void closed.push({ socketId, token, code }),
    },
    options,
  );
  const open = async (path, clientOptions = {}) => {
    const client = await connect(t, server, { path, ...clientOptions });
    return { client, id: await opened.next('the socket opens') };
  };
  return { server, open, handled, closed, drained };
}

const ROOM = { channels: ['room'], route: { relay: 'room' } };
const ROOM_WITH_ECHO = { channels: ['room'], route: { relay: 'room', echo: true } };

test('an echo comes back as it was, and no handler hears of it', async (t) => {
  const { open, handled, closed } = deciding(t, { '/echo': { route: 'echo', token: 'mine' } });
  const counted = counting();
  const { client, id } = await open('/echo');
  const messages = ['text', '', 'héllo'.repeat(1000), Buffer.from([0, 255]), Buffer.alloc(0), Buffer.alloc(100_000, 7)];
  for (const message of messages) client.send(message);
  assert.deepEqual(await client.inbox.take(messages.length), messages);
  const { messagesIn, messagesOut } = counted();
  assert.deepEqual([messagesIn, messagesOut], [messages.length, messages.length]);
  client.close(4000);
  assert.deepEqual(await closed.next(), { socketId: id, token: Buffer.from('mine'), code: 4000 });
  assert.equal(handled.length, 0);
});

test('members of a channel get what the others say, in order, and not what they say themselves', async (t) => {
  const { open, handled } = deciding(t, { '/': ROOM, '/outside': true });
  const members = await Promise.all([open('/'), open('/'), open('/'), open('/')]);
  const outsider = await open('/outside');
  const counted = counting();
  const sent = members.map((_, from) => Array.from({ length: 200 }, (_, n) => `${from} ${n}`));
  for (let n = 0; n < 200; n += 1) for (const [from, { client }] of members.entries()) client.send(sent[from][n]);
  for (const [at, { client }] of members.entries()) {
    const got = await client.inbox.take(600);
    for (const from of members.keys()) {
      const expected = from === at ? [] : sent[from];
      assert.deepEqual(
        got.filter((text) => text.startsWith(`${from} `)),
        expected,
        `${from} to ${at}`,
      );
    }
  }
  assert.deepEqual(counted(), { messagesIn: 800, messagesOut: 2400, notSubscribed: 0, slowConsumer: 0 });
  send(outsider.id, 'last');
  assert.equal(await outsider.client.inbox.next(), 'last', 'nothing before it');
  assert.equal(handled.length, 0);
});

test('with echo the sender gets it too; bytes stay bytes', async (t) => {
  const { open } = deciding(t, { '/': ROOM, '/loud': ROOM_WITH_ECHO });
  const [quiet, loud] = [await open('/'), await open('/loud')];
  loud.client.send('text');
  loud.client.send(Buffer.from('bytes'));
  for (const { client } of [quiet, loud]) {
    assert.deepEqual(await client.inbox.take(2), ['text', Buffer.from('bytes')]);
  }
});

test('a name of bytes is the channel of the same text', async (t) => {
  const route = { relay: new Uint8Array(Buffer.from('room')), echo: true };
  const { open } = deciding(t, { '/': { channels: ['room'], route } });
  const { client } = await open('/');
  client.send('here');
  assert.equal(await client.inbox.next(), 'here');
});

test('who is not subscribed is left out and counted, until it is', async (t) => {
  const { open } = deciding(t, { '/': ROOM, '/early': { route: { relay: 'room', echo: true } } });
  const [member, early] = [await open('/'), await open('/early')];
  const counted = counting();
  for (let n = 0; n < 10; n += 1) early.client.send('nobody hears this');
  await eventually(() => assert.equal(counted().notSubscribed, 10));
  assert.equal(subscribe(early.id, 'room'), true);
  early.client.send('hello');
  assert.deepEqual([await early.client.inbox.next(), await member.client.inbox.next()], ['hello', 'hello']);
  unsubscribe(early.id, 'room');
  early.client.send('nor this');
  await eventually(() => assert.equal(counted().notSubscribed, 11));
  assert.deepEqual(counted(), { messagesIn: 12, messagesOut: 2, notSubscribed: 11, slowConsumer: 0 });
});

test('a route is changed at any time, and holds for what is read later', async (t) => {
  const { open, handled } = deciding(t, { '/': { channels: ['room'] } });
  const [one, other] = [await open('/'), await open('/')];
  const ask = async () => {
    one.client.send('to whom?');
    const who = [
      one.client.inbox.next().then(() => 'myself'),
      other.client.inbox.next().then(() => 'the other'),
      handled.next().then(() => 'a handler'),
    ];
    const answer = await Promise.race(who);
    // Whoever still waits is told, so that it takes nothing of the next.
    for (const inbox of [one.client.inbox, other.client.inbox, handled]) inbox.push('enough');
    await Promise.all(who);
    for (const inbox of [one.client.inbox, other.client.inbox, handled]) while (inbox.length > 0) await inbox.next();
    return answer;
  };
  assert.equal(await ask(), 'a handler');
  for (let n = 0; n < 10; n += 1) {
    assert.equal(setMessageRoute(one.id, 'echo'), true);
    assert.equal(await ask(), 'myself');
    assert.equal(setMessageRoute(one.id, { relay: 'room' }), true);
    assert.equal(await ask(), 'the other');
    assert.equal(setMessageRoute(one.id, 'handler'), true);
    assert.equal(await ask(), 'a handler');
  }
  close(one.id);
  assert.equal(setMessageRoute(one.id, 'echo'), false, 'it is gone');
});

test('a handler hands its socket over: what was read before is still handled', async (t) => {
  const said = [];
  const server = serve(t, {
    handleSocketMessage(data, socketId) {
      said.push(data);
      if (data === 'join') {
        subscribe(socketId, 'match');
        setMessageRoute(socketId, { relay: 'match', echo: true });
        send(socketId, 'joined');
      }
    },
  });
  const players = await Promise.all([connect(t, server), connect(t, server)]);
  for (const player of players) {
    player.send('join');
    assert.equal(await player.inbox.next(), 'joined');
  }
  players[0].send('x 1 y 2');
  for (const player of players) assert.equal(await player.inbox.next(), 'x 1 y 2');
  assert.deepEqual(said, ['join', 'join']);
});

test('what handlers send goes to sockets with a route as to others', async (t) => {
  const { open } = deciding(t, { '/': ROOM });
  const { client, id } = await open('/');
  assert.equal(send(id, 'to you'), true);
  assert.equal(sendToChannel('room', 'to all'), 1);
  assert.deepEqual(await client.inbox.take(2), ['to you', 'to all']);
  assert.equal(setToken(id, 'token'), true);
  assert.deepEqual(channels(id), [Buffer.from('room')]);
});

/** Clients of some threads, opened one after the other: `{ client, id, thread }`. */
async function clientsOf(t, server, threads, count) {
  const clients = [];
  while (clients.length < count) {
    const client = await connect(t, server);
    const thread = await handlerOf(client, threads);
    const known = clients.filter((other) => other.thread === thread).length;
    const [id] = await thread.told('open', known + 1);
    clients.push({ client, id, thread });
  }
  return clients;
}

const numbers = (from, to) => Array.from({ length: to - from }, (_, n) => `${from + n}`);

test('a relay goes on while the JavaScript of its worker is blocked', async (t) => {
  const threads = await startThreads(t, 2, { decides: true });
  const [blocked] = threads;
  const clients = await clientsOf(t, listen(), threads, 8);
  const [blocking, ...relaying] = clients.filter(({ thread }) => thread === blocked);
  const all = [blocking, ...relaying, ...clients.filter(({ thread }) => thread !== blocked)];
  for (const { id } of relaying) setMessageRoute(id, { relay: 'everyone' });
  blocking.client.send('block');
  await blocked.told('blocked');
  const [first] = relaying;
  const heardByOthers = async (texts) => {
    for (const text of texts) first.client.send(text);
    for (const { client } of all) {
      if (client !== first.client) assert.deepEqual(await client.inbox.take(texts.length), texts);
    }
  };
  await heardByOthers(numbers(0, 500));
  // Beyond what a worker takes before its sockets are no longer read.
  for (let n = 0; n < 3000; n += 1) blocking.client.send('publish much');
  await eventually(() => assert.ok(stats().workers.some(({ full }) => full)));
  await heardByOthers(numbers(500, 1000));
  assert.equal(blocked.finished, 4, 'who they were asked, and nothing since');
  // Then others handle what has waited, and nothing of it is lost.
  await blocked.worker.terminate();
  for (const { client } of all) assert.deepEqual(await client.inbox.take(3000), Array(3000).fill('much'));
  assert.equal(first.client.inbox.length, 0, 'it has not heard itself');
});

test('compressed and plain receivers of one channel get the same', async (t) => {
  for (const memory of ['shared', 'dedicated']) {
    await t.test(memory, async (t) => {
      const { open } = deciding(t, { '/': ROOM_WITH_ECHO }, { compression: { memory, threshold: 100 } });
      const members = [
        await open('/', { perMessageDeflate: true }),
        await open('/'),
        await open('/', { perMessageDeflate: true }),
        await open('/', { perMessageDeflate: { serverMaxWindowBits: 9 } }),
      ];
      const messages = Array.from({ length: 50 }, (_, n) => {
        const text = `{"n":${n},"text":"${'again and '.repeat([1, 20, 2000][n % 3])}"}`;
        return n % 2 === 0 ? text : Buffer.from(text);
      });
      for (const { client } of members) {
        for (const message of messages) client.send(message);
        for (const { client: receiver } of members) {
          assert.deepEqual(await receiver.inbox.take(messages.length), messages);
        }
      }
    });
  }
});

test('a member that does not read loses what is too much, counted, and nobody else does', async (t) => {
  const LIMIT = 200_000;
  const { open, drained } = deciding(t, { '/': ROOM }, { maxBackpressure: LIMIT, slowConsumer: 'drop' });
  const [sender, reader, slow] = [await open('/'), await open('/'), await open('/')];
  slow.client.pause();
  const counted = counting();
  let sent = 0;
  while (counted().slowConsumer < 100) {
    for (let n = 0; n < 5; n += 1) sender.client.send(Buffer.alloc(10_000, sent + n));
    sent += 5;
    await reader.client.inbox.take(5);
    assert.ok(bufferedAmount(slow.id) <= LIMIT);
  }
  await eventually(() => {
    const { messagesIn, messagesOut, slowConsumer } = counted();
    assert.deepEqual([messagesIn, messagesOut + slowConsumer], [sent, 2 * sent]);
  });
  slow.client.resume();
  assert.equal(await drained.next(), slow.id);
  await slow.client.inbox.take(2 * sent - counted().slowConsumer - sent);
  sender.client.send('there is room again');
  assert.equal(await slow.client.inbox.next(), 'there is room again');
});

test('an echo client that does not read is closed with 1013', async (t) => {
  const { open, closed } = deciding(t, { '/echo': { route: 'echo' } }, { maxBackpressure: 100_000, closeTimeout: 200 });
  const { client, id } = await open('/echo');
  client.pause();
  const counted = counting();
  const flood = () => {
    if (client.bufferedAmount < 1_000_000) for (let n = 0; n < 100; n += 1) client.send(Buffer.alloc(10_000));
    assert.ok(bufferedAmount(id) <= 100_000);
    assert.ok(counted().slowConsumer > 0);
  };
  await eventually(flood);
  assert.deepEqual(await closed.next(), { socketId: id, token: undefined, code: 1013 });
});

test('a socket whose handler takes long gathers no drain events of what it echoes', async (t) => {
  const drained = new Inbox();
  let settle;
  const busy = new Promise((resolve) => {
    settle = resolve;
  });
  const server = serve(
    t,
    {
      handleSocketUpgrade: () => ({ route: 'echo' }),
      handleSocketOpen: () => busy,
      handleSocketDrain: (socketId) => void drained.push(socketId),
    },
    { maxBackpressure: 60_000 },
  );
  const client = await connect(t, server);
  // Each is over half of what may wait, and then nothing waits.
  for (let n = 0; n < 300; n += 1) {
    client.send(Buffer.alloc(40_000, n));
    assert.equal((await client.inbox.next())[0], n % 256);
  }
  await eventually(() => assert.equal(stats().workers[0].queuedEvents, 0));
  settle();
  await drained.next();
  client.send(Buffer.alloc(40_000));
  await client.inbox.next();
  await drained.next('the drain of the last echo');
  assert.ok(drained.length <= 1, `${drained.length} more`);
});

test('a route in a decision is checked like the rest of it: 500, and handleError is told', async (t) => {
  const wrong = {
    '/unknown': ['relay', /^decision\.route: expected 'handler', 'echo' or \{ relay: .*got "relay"/],
    '/nothing': [null, /^decision\.route: expected .* got null/],
    '/empty': [{}, /^decision\.route\.relay: expected .* got undefined/],
    '/name': [{ relay: '' }, /^decision\.route\.relay: expected a channel name of 1 to 512 bytes/],
    '/flag': [{ relay: 'room', echo: 'yes' }, /^decision\.route\.echo: expected true or false, got "yes"/],
    '/misspelt': [{ relay: 'room', ehco: true }, /^decision\.route: there is no "ehco".*did you mean/],
  };
  const errors = new Inbox();
  const server = serve(t, {
    handleSocketUpgrade: ({ path }) => ({ route: wrong[path][0] }),
    handleError: (error, { handler }) => errors.push({ error, handler }),
  });
  for (const [path, [, expected]] of Object.entries(wrong)) {
    assert.equal((await refusal(t, server, { path })).status, 500);
    const { error, handler } = await errors.next();
    assert.equal(handler, 'handleSocketUpgrade');
    assert.equal(error.code, 'WSB_INVALID_ARGUMENT');
    assert.match(error.message, expected);
    throwsCode(() => setMessageRoute(1, wrong[path][0]), 'WSB_INVALID_ARGUMENT');
  }
});

test('when the thread of its handlers ends, a relay does not notice', async (t) => {
  const threads = await startThreads(t, 2, { decides: true });
  const clients = await clientsOf(t, listen(), threads, 4);
  for (const { id } of clients) setMessageRoute(id, { relay: 'everyone', echo: true });
  const [{ client: talker, thread }] = clients;
  const before = stats().dropped.workerEnded;
  for (const number of numbers(0, 100)) talker.send(number);
  await thread.worker.terminate();
  for (const number of numbers(100, 200)) talker.send(number);
  for (const { client } of clients) assert.deepEqual(await client.inbox.take(200), numbers(0, 200));
  assert.equal(stats().dropped.workerEnded, before);
});
