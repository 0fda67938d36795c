// A thread that unregisters while handlers of many sockets are busy.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { registerWorkerThread, send } from 'wsbroker';
import { connect, listen, stopAll } from './helpers/serving.mjs';
import { deferred, eventually } from './helpers/waiting.mjs';

const SOCKETS = 200;

test('sockets whose promises settle go to the next worker, each without a look at the others', async (t) => {
  const doors = [];
  const registration = registerWorkerThread({
    handleSocketMessage() {
      const door = deferred();
      doors.push(door);
      return door.promise;
    },
  });
  t.after(stopAll);
  const server = listen();
  const clients = [];
  for (let n = 0; n < SOCKETS; n += 1) clients.push(await connect(t, server));
  for (const client of clients) client.send('wait');
  await eventually(() => assert.equal(doors.length, SOCKETS));
  registration.unregister();
  const next = registerWorkerThread({ handleSocketMessage: (data, socketId) => void send(socketId, data) });
  t.after(() => next.unregister());

  const isLookedAt = [t.mock.method(Map.prototype, 'has'), t.mock.method(Set.prototype, 'has')];
  for (const door of doors) door.resolve();
  // Behind all that the promises have left for later.
  await new Promise((resolve) => setImmediate(resolve));
  const looks = isLookedAt.reduce((sum, { mock }) => sum + mock.callCount(), 0);
  t.mock.restoreAll();
  assert.ok(looks < 20 * SOCKETS, `${looks} looks for ${SOCKETS} sockets`);

  for (const client of clients) client.send('echo');
  for (const client of clients) assert.equal(await client.inbox.next(), 'echo');
});

test('a handler that unregisters lets the sockets of its batch go when it is over', async (t) => {
  const door = deferred();
  let handled = 0;
  const registration = registerWorkerThread({
    handleSocketMessage(data, socketId) {
      handled += 1;
      send(socketId, `first ${data}`);
      if (handled === 1) registration.unregister();
      return data === 'wait' ? door.promise : undefined;
    },
  });
  t.after(stopAll);
  const server = listen();
  const clients = [];
  for (let n = 0; n < 5; n += 1) clients.push(await connect(t, server));
  for (const client of clients) client.send(client === clients[0] ? 'wait' : 'go');
  assert.equal(await clients[0].inbox.next(), 'first wait');
  const next = registerWorkerThread({ handleSocketMessage: (data, socketId) => void send(socketId, `next ${data}`) });
  t.after(() => next.unregister());
  for (const client of clients) client.send('again');
  for (const client of clients.slice(1)) {
    assert.match(await client.inbox.next(), /^(first|next) go$/);
    assert.equal(await client.inbox.next(), 'next again');
  }
  assert.equal(clients[0].inbox.length, 0);
  door.resolve();
  assert.equal(await clients[0].inbox.next(), 'next again');
});
