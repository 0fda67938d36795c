// Short texts, which cross to JavaScript many at a time and are passed on as they came.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { broadcast, send, sendToChannel, setToken, subscribe } from 'wsbroker';
import { chooseSeed, Random } from './helpers/random.mjs';
import { connect, serve } from './helpers/serving.mjs';

const CHARACTERS = ['x', 'y', '\u0000', '\u007f', 'é', '\ufeff', '€', '🙂'];

/** Texts of all short lengths, most of them ASCII, no two alike. */
function texts(chance, count) {
  return Array.from({ length: count }, (_, number) => {
    const length = chance.below(chance.oneIn(10) ? 600 : 40);
    const characters = chance.oneIn(5) ? CHARACTERS : CHARACTERS.slice(0, 4);
    const letters = Array.from({ length }, () => chance.of(characters));
    return `${number}${letters.join('')}`;
  });
}

test('texts of every length arrive as they went, alone and between others, passed on and changed', async (t) => {
  const seed = chooseSeed();
  const chance = new Random(seed);
  const server = serve(t, {
    handleSocketMessage(data, socketId, token) {
      if (token === undefined && data === 'token') setToken(socketId, 'a token');
      send(socketId, data);
      if (typeof data === 'string') send(socketId, `${data}!`);
      else {
        data[0] = 0x21;
        send(socketId, data);
      }
    },
  });
  const clients = await Promise.all(Array.from({ length: 4 }, () => connect(t, server)));
  const sent = clients.map(() =>
    texts(chance, 500).flatMap((text) => (chance.oneIn(20) ? [text, Buffer.from(text)] : [text])),
  );
  // One of them gets a token in between, which travels with each of its messages.
  sent[0].splice(250, 0, 'token');
  for (const [at, client] of clients.entries()) for (const message of sent[at]) client.send(message);
  for (const [at, client] of clients.entries()) {
    for (const [number, message] of sent[at].entries()) {
      const echo = await client.inbox.next();
      const changed = await client.inbox.next();
      const where = `seed ${seed}, client ${at}, message ${number}`;
      if (typeof message === 'string') assert.deepEqual([echo, changed], [message, `${message}!`], where);
      else {
        assert.deepEqual(echo, message, where);
        assert.deepEqual(changed, Buffer.concat([Buffer.from('!'), message.subarray(1)]), where);
      }
    }
  }
});

test('a text that equals the one in hand, or came before it, goes out as itself', async (t) => {
  const server = serve(t, {
    async handleSocketMessage(text, socketId) {
      const equal = `${text.slice(0, 5)}${text.slice(5)}`;
      const before = this.before ?? 'nothing';
      this.before = text;
      send(socketId, equal);
      send(socketId, before);
      subscribe(socketId, 'mine');
      sendToChannel('mine', text);
      broadcast(text);
      await new Promise(setImmediate);
      send(socketId, text);
      sendToChannel('mine', before);
    },
  });
  const client = await connect(t, server);
  const sent = Array.from({ length: 100 }, (_, number) => `message ${number} of some, and so on`);
  for (const text of sent) client.send(text);
  for (const [number, text] of sent.entries()) {
    const before = sent[number - 1] ?? 'nothing';
    assert.deepEqual(await client.inbox.take(6), [text, before, text, text, text, before]);
  }
});

test('what is no data is refused in a handler and outside of it', async (t) => {
  const refused = [];
  const offer = () => {
    for (const data of [undefined, null, 0, 28, Symbol('nothing'), {}]) {
      for (const call of [() => send(1, data), () => sendToChannel('a', data), () => broadcast(data)]) {
        assert.throws(call, { code: 'WSB_INVALID_ARGUMENT' });
        refused.push(data);
      }
    }
  };
  const server = serve(t, {
    handleSocketMessage(text, socketId) {
      offer();
      send(socketId, text);
    },
  });
  offer();
  const client = await connect(t, server);
  client.send('now');
  assert.equal(await client.inbox.next(), 'now');
  assert.equal(refused.length, 36);
});
