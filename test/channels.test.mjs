// Channels: names are bytes, members are sockets, and nothing else is remembered.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  channelCount,
  channels,
  close,
  copySubscriptions,
  sendToChannel,
  subscribe,
  subscriberCount,
  subscribers,
  unsubscribe,
} from 'wsbroker';
import { connect, serve } from './helpers/serving.mjs';
import { eventually, Inbox } from './helpers/waiting.mjs';

/** A server with some open sockets: `[{ id, client }]`. */
async function members(t, count) {
  const ids = new Inbox();
  const server = serve(t, { handleSocketOpen: (socketId) => ids.push(socketId) });
  const all = [];
  while (all.length < count) all.push({ client: await connect(t, server), id: await ids.next() });
  return all;
}

test('subscribe and unsubscribe tell whether something changed', async (t) => {
  const [{ id }] = await members(t, 1);
  assert.equal(subscribe(id, 'room'), true);
  assert.equal(subscribe(id, 'room'), false);
  assert.equal(channelCount(), 1);
  assert.equal(unsubscribe(id, 'hall'), false);
  assert.equal(unsubscribe(id, 'room'), true);
  assert.equal(unsubscribe(id, 'room'), false);
  assert.equal(channelCount(), 0, 'a channel without subscribers does not exist');
});

test('a name is its bytes, whatever they came in', async (t) => {
  const [{ id }] = await members(t, 1);
  const bytes = Buffer.from('zoë');
  assert.equal(subscribe(id, 'zoë'), true);
  for (const name of [
    bytes,
    new Uint8Array(bytes),
    Uint8Array.from(bytes).buffer,
    new DataView(Uint8Array.from(bytes).buffer),
  ]) {
    assert.equal(subscribe(id, name), false);
    assert.equal(subscriberCount(name), 1);
  }
  // Bytes that are no UTF-8 make a name as well, and a lone surrogate stands for U+FFFD as everywhere.
  assert.equal(subscribe(id, Buffer.from([0xff, 0x00])), true);
  assert.equal(subscribe(id, '\ud800'), true);
  assert.equal(subscriberCount('\ufffd'), 1);
  const names = channels(id).map((name) => name.toString('latin1'));
  assert.deepEqual(names.sort(), ['zo\xc3\xab', '\xef\xbf\xbd', '\xff\0'].sort());
  assert.ok(channels(id).every(Buffer.isBuffer));
});

test('a message goes to the members of that moment, and to nobody else', async (t) => {
  const [one, two, three, outsider] = await members(t, 4);
  for (const { id } of [one, two, three]) subscribe(id, 'room');
  assert.equal(sendToChannel('room', 'to three'), 3);
  assert.equal(sendToChannel('room', 'to two', { except: two.id }), 2);
  assert.equal(sendToChannel('room', 'to three again', { except: outsider.id }), 3);
  assert.equal(sendToChannel('room', 'and again', { except: undefined }), 3);
  unsubscribe(one.id, 'room');
  assert.equal(sendToChannel('room', Buffer.from('bytes'), {}), 2);
  subscribe(outsider.id, 'room');
  assert.equal(sendToChannel('room', 'end'), 3);
  assert.equal(sendToChannel('empty', 'to nobody'), 0);

  const some = ['to three', 'to three again', 'and again'];
  assert.deepEqual(await two.client.inbox.take(5), [...some, Buffer.from('bytes'), 'end']);
  assert.deepEqual(await three.client.inbox.take(6), [
    'to three',
    'to two',
    ...some.slice(1),
    Buffer.from('bytes'),
    'end',
  ]);
  assert.deepEqual(await one.client.inbox.take(4), ['to three', 'to two', ...some.slice(1)]);
  assert.deepEqual(await outsider.client.inbox.take(1), ['end']);
  sendToChannel('room', 'last');
  assert.equal(await outsider.client.inbox.next(), 'last');
  assert.equal(one.client.inbox.length, 0);
});

test('listings', async (t) => {
  const all = await members(t, 3);
  for (const [n, { id }] of all.entries()) for (let room = 0; room <= n; room += 1) subscribe(id, `room ${room}`);
  assert.equal(channelCount(), 3);
  assert.deepEqual(
    [0, 1, 2, 3].map((room) => subscriberCount(`room ${room}`)),
    [3, 2, 1, 0],
  );
  assert.deepEqual(subscribers('room 1').sort(), [all[1].id, all[2].id].sort());
  assert.deepEqual(channels(all[2].id).map(String).sort(), ['room 0', 'room 1', 'room 2']);
  assert.deepEqual(subscribers('room 3'), []);
});

test('copySubscriptions is a union at this moment', async (t) => {
  const [one, two, three] = await members(t, 3);
  for (const { id } of [one, two]) subscribe(id, 'from');
  for (const { id } of [two, three]) subscribe(id, 'to');
  assert.equal(copySubscriptions('from', 'to'), 1, 'only the first is new there');
  assert.equal(copySubscriptions('from', 'to'), 0);
  assert.deepEqual(subscribers('to').sort(), [one.id, two.id, three.id].sort());
  assert.deepEqual(subscribers('from').sort(), [one.id, two.id].sort(), 'from is unchanged');
  subscribe(three.id, 'from');
  unsubscribe(one.id, 'from');
  assert.equal(subscriberCount('to'), 3, 'what happens later is not followed');
  assert.equal(copySubscriptions('nobody', 'to'), 0);
  assert.equal(copySubscriptions('from', 'new'), 2);
  assert.equal(copySubscriptions('from', 'from'), 0);
});

test('a socket that closes leaves its channels', async (t) => {
  const [one, two] = await members(t, 2);
  for (const { id } of [one, two]) for (const room of ['a', 'b', 'c']) subscribe(id, room);
  close(one.id);
  assert.deepEqual(subscribers('a'), [two.id], 'at once, when the application closes it');
  assert.equal(subscribe(one.id, 'd'), false);
  two.client.terminate();
  await eventually(() => assert.equal(channelCount(), 0));
});

test('a channel of many members', async (t) => {
  const all = await members(t, 120);
  for (const { id } of all) assert.equal(subscribe(id, 'all'), true);
  assert.equal(subscriberCount('all'), 120);
  assert.equal(sendToChannel('all', 'hello'), 120);
  for (const { client } of all) assert.equal(await client.inbox.next(), 'hello');
});
