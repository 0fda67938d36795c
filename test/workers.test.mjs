// Several threads, and threads that end in the middle of anything.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { channelCount, connectionCount, getToken, registerWorkerThread, send, stats } from 'wsbroker';
import { connect, listen, refusal, request, serve, stopAll } from './helpers/serving.mjs';
import { ask, handlerOf, startThreads } from './helpers/threads.mjs';
import { deferred, eventually, Inbox, within } from './helpers/waiting.mjs';

function connectAll(t, server, count) {
  return Promise.all(Array.from({ length: count }, () => connect(t, server)));
}

/** Messages that ended threads were holding, since the process started. */
const lost = () => stats().dropped.workerEnded;

test('sockets are given to the threads in turn, and requests one by one', async (t) => {
  const threads = await startThreads(t, 3);
  const server = listen();
  const clients = [];
  for (let n = 0; n < 6; n += 1) clients.push(await connect(t, server));
  const handlers = [];
  for (const client of clients) handlers.push((await handlerOf(client, threads)).id);
  assert.deepEqual(handlers.slice(0, 3).sort(), threads.map(({ id }) => id).sort());
  assert.deepEqual(handlers.slice(3), handlers.slice(0, 3));

  const answers = [];
  for (let n = 0; n < 6; n += 1) answers.push((await request(server)).body);
  assert.equal(new Set(answers.slice(0, 3)).size, 3);
  assert.deepEqual(answers.slice(3), answers.slice(0, 3));
});

test('any thread reaches any socket', async (t) => {
  const threads = await startThreads(t, 2, { decides: true });
  const server = listen();
  const [one, two] = await connectAll(t, server, 2);
  const handlers = [await handlerOf(one, threads), await handlerOf(two, threads)];
  assert.notEqual(handlers[0], handlers[1]);
  const [[second]] = handlers[1].of('open');
  one.send(`send ${second} hello`);
  assert.equal(await two.inbox.next(), 'hello');
  one.send('publish all');
  assert.deepEqual([await one.inbox.next(), await two.inbox.next()], ['all', 'all']);
  // The main thread handles nothing and may call everything.
  assert.equal(send(second, 'from main'), true);
  assert.equal(await two.inbox.next(), 'from main');
  assert.equal(getToken(second), undefined);
});

test('when a thread is terminated its sockets go on with the others', async (t) => {
  const threads = await startThreads(t, 2);
  const server = listen();
  const clients = await connectAll(t, server, 6);
  const [victim, survivor] = threads;
  await victim.worker.terminate();
  for (const client of clients) assert.equal(await handlerOf(client, threads), survivor);
  assert.equal(connectionCount(), 6);
  await eventually(() => assert.equal(stats().workers.length, 1));

  for (const client of clients) client.close(4000);
  await survivor.told('close', 6);
  const closed = survivor.of('close').map(([socketId]) => socketId);
  assert.equal(new Set(closed).size, 6);
  assert.deepEqual([connectionCount(), channelCount()], [0, 0]);
});

for (const [how, code] of [
  ['exit', 7],
  ['crash', 1],
]) {
  test(`a thread that ends by itself is unregistered by itself (${how})`, async (t) => {
    const threads = await startThreads(t, 2);
    const server = listen();
    const [client, other] = await connectAll(t, server, 2);
    const victim = await handlerOf(client, threads);
    const survivor = threads.find((thread) => thread !== victim);
    client.send(how);
    assert.equal(await within(victim.ended, 'the thread ends'), code);
    assert.equal(await handlerOf(client, threads), survivor);
    assert.equal(await handlerOf(other, threads), survivor);
  });
}

test('every message is handled once, or counted as what a terminated thread was holding', async (t) => {
  const threads = await startThreads(t, 2);
  const server = listen();
  const clients = await connectAll(t, server, 2);
  const victim = await handlerOf(clients[0], threads);
  const survivor = threads.find((thread) => thread !== victim);
  await eventually(() => assert.equal(victim.finished, 1)); // it counts behind its answer
  const before = lost();

  const sent = 1000;
  for (let n = 0; n < sent; n += 1) clients[0].send(n === 300 ? 'block' : 'send 1 nobody');
  await victim.told('blocked');
  await victim.worker.terminate();
  assert.equal(await handlerOf(clients[0], threads), survivor); // behind all the others

  const finished = victim.finished - 1;
  assert.equal(finished, 300, 'what came before the blocking one');
  const dropped = lost() - before;
  assert.ok(dropped >= 1, 'at least the message it was handling');
  await eventually(() => assert.equal(finished + dropped + survivor.finished - 1, sent));
});

test('messages behind a promise that never settles are counted too', async (t) => {
  const threads = await startThreads(t, 2);
  const server = listen();
  const [client] = await connectAll(t, server, 2);
  const victim = await handlerOf(client, threads);
  const survivor = threads.find((thread) => thread !== victim);
  const before = lost();
  for (const command of ['hang', 'who', 'who', 'who']) client.send(command);
  await victim.told('hanging');
  await victim.worker.terminate();
  assert.equal(await handlerOf(client, threads), survivor);
  const dropped = lost() - before;
  await eventually(() => assert.equal(dropped + survivor.finished - 1, 4));
});

test('a close that a terminated thread had not begun to handle comes to another, once', async (t) => {
  const threads = await startThreads(t, 2);
  const server = listen();
  const clients = await connectAll(t, server, 4);
  const victim = await handlerOf(clients[0], threads);
  const survivor = threads.find((thread) => thread !== victim);
  for (const client of clients) await ask(client); // all are open for their handlers
  clients[0].send('block');
  await victim.told('blocked');
  for (const client of clients) client.terminate();
  await eventually(() => assert.equal(connectionCount(), 0));
  await victim.worker.terminate();
  await survivor.told('close', 4);
  const closed = survivor.of('close').map(([socketId]) => socketId);
  assert.deepEqual(closed.sort(), [...victim.of('open'), ...survivor.of('open')].flat().sort());
});

test('a socket that waited behind a promise of a terminated thread is read on by the next', async (t) => {
  const threads = await startThreads(t, 2);
  const server = listen();
  const [client] = await connectAll(t, server, 2);
  const victim = await handlerOf(client, threads);
  client.send('hang');
  // More than waits behind a promise before the socket is paused.
  for (let n = 0; n < 2000; n += 1) client.send(`send 1 ${'x'.repeat(1000)}`);
  await victim.told('hanging');
  await eventually(() => assert.ok(stats().workers.every(({ queuedEvents }) => queuedEvents === 0)));
  await victim.worker.terminate();
  assert.notEqual(await handlerOf(client, threads), victim);
});

test('a request that a terminated thread was holding is answered 503', async (t) => {
  const threads = await startThreads(t, 1);
  const server = listen();
  const before = stats().dropped.unansweredRequests;
  const answer = request(server, '/hang');
  await threads[0].told('request');
  await threads[0].worker.terminate();
  assert.equal((await answer).status, 503);
  assert.equal(stats().dropped.unansweredRequests, before + 1);
});

test('a thread that unregisters finishes what it holds, and gets no more', async (t) => {
  const threads = await startThreads(t, 2);
  const server = listen();
  const clients = await connectAll(t, server, 4);
  const before = lost();
  const { body } = await request(server, '/unregister');
  const [, id] = /^answered by (\d+) after it left$/.exec(body);
  const leaver = threads.find((thread) => thread.id === Number(id));
  const stayer = threads.find((thread) => thread !== leaver);
  for (const client of clients) assert.equal(await handlerOf(client, threads), stayer);
  assert.equal((await request(server)).body, String(stayer.id));
  assert.equal(await within(leaver.ended, 'a thread without registration ends'), 0);
  assert.equal(stats().workers.length, 1);
  assert.equal(lost(), before, 'nothing was lost');
});

test('sockets without any worker wait for the next one', async (t) => {
  const [first] = await startThreads(t, 1);
  const server = listen();
  const client = await connect(t, server);
  await handlerOf(client, [first]);
  await first.worker.terminate();
  await eventually(() => assert.equal(stats().workers.length, 0));
  client.send('who');
  assert.equal((await request(server)).status, 503);
  assert.equal(connectionCount(), 1);
  const [second] = await startThreads(t, 1);
  assert.equal(await client.inbox.next(), String(second.id));
  assert.equal(await handlerOf(client, [second]), second);
});

test('threads come and go in the middle of traffic', async (t) => {
  const [steady] = await startThreads(t, 1);
  const server = listen();
  const clients = [];
  const before = lost();
  let sent = 0;
  let handled = steady.finished;
  for (let n = 0; n < 10; n += 1) {
    const [visitor] = await startThreads(t, 1);
    clients.push(...(await connectAll(t, server, 4))); // two of them are the visitor's
    for (let m = 0; m < 50; m += 1) for (const client of clients) client.send('send 1 nobody');
    sent += 50 * clients.length;
    await visitor.worker.terminate();
    handled -= visitor.finished;
  }
  // Behind everything that was sent; a thread that is gone answers nothing.
  for (const client of clients) assert.equal(await handlerOf(client, [steady]), steady);
  // A thread may end between the last statement of a handler and our count behind it: then its last message counts twice.
  const twice = () => steady.finished - handled - clients.length + lost() - before - sent;
  await eventually(() => assert.ok(twice() >= 0, `${-twice()} messages are missing`));
  assert.ok(twice() <= 10, `${twice()} messages more than 10 threads can have counted twice`);
});

test('the main thread and others side by side', async (t) => {
  const own = new Inbox();
  const server = serve(t, {
    handleSocketMessage(data, socketId) {
      own.push(data);
      send(socketId, 'main');
    },
  });
  const threads = await startThreads(t, 1);
  const clients = await connectAll(t, server, 4);
  const answers = await Promise.all(clients.map((client) => ask(client)));
  assert.deepEqual(answers.sort(), [String(threads[0].id), String(threads[0].id), 'main', 'main'].sort());
  await threads[0].worker.terminate();
  for (const client of clients) assert.equal(await ask(client), 'main');
  assert.equal(own.length, 6);
});

test('unregister while a promise is open: the next handler is another worker, the answer still counts', async (t) => {
  const open = deferred();
  const before = lost();
  const registration = registerWorkerThread({
    async handleHttpRequest() {
      registration.unregister();
      await open.promise;
      return { body: 'finished all the same' };
    },
  });
  const server = listen();
  t.after(stopAll);
  const answer = request(server);
  await eventually(() => assert.deepEqual(stats().workers, []));
  registerWorkerThread({}).unregister();
  open.resolve();
  assert.equal((await answer).body, 'finished all the same');
  assert.equal(lost(), before);
});

test('an upgrade is decided by a worker that wants to, whoever gets the socket', async (t) => {
  const handlers = new Set();
  serve(t, {
    handleSocketUpgrade: ({ path }) => path === '/in',
    handleSocketMessage: (_data, socketId) => void send(socketId, 'main'),
  });
  const threads = await startThreads(t, 1); // has no opinion
  const server = listen();
  for (let n = 0; n < 4; n += 1) assert.equal((await refusal(t, server, { path: '/out' })).status, 403);
  for (let n = 0; n < 4; n += 1) handlers.add(await ask(await connect(t, server, { path: '/in' })));
  assert.deepEqual(handlers, new Set(['main', String(threads[0].id)]));
});

test('an upgrade whose only decider ended is refused, not accepted', async (t) => {
  serve(t, {}); // accepts whatever nobody wants to decide
  const [decider] = await startThreads(t, 1, { decides: true });
  const server = listen();
  // Whichever order the sockets are dealt in, one of two goes to the thread.
  const clients = await connectAll(t, server, 2);
  for (const client of clients) client.send('block');
  await decider.told('blocked');
  const answer = refusal(t, server);
  await eventually(() => assert.equal(stats().pendingRequests, 1));
  await decider.worker.terminate();
  assert.equal((await answer).status, 503);
});

test('what a worker leaves unsettled after unregister holds up nobody else', async (t) => {
  const log = new Inbox();
  const leaving = registerWorkerThread({
    handleHttpRequest: () => new Promise(() => {}),
    handleSocketMessage(data, socketId) {
      if (data === 'hang') return new Promise(() => {});
      send(socketId, 'left');
      leaving.unregister();
      const { unregister } = registerWorkerThread({
        handleSocketMessage: (next) => log.push(next),
        handleSocketClose: (_socketId, _token, code) => log.push(code),
      });
      t.after(async () => {
        await stopAll();
        unregister();
      });
    },
  });
  const server = listen({ requestTimeout: 100 });
  assert.equal((await request(server)).status, 504);
  const [hanging, going] = await connectAll(t, server, 2);
  hanging.send('hang');
  going.send('unregister');
  assert.equal(await going.inbox.next(), 'left');
  going.send('next');
  assert.equal(await log.next('the socket of the handler that unregistered goes on'), 'next');
  going.close(4000);
  assert.equal(await log.next(), 4000);
  hanging.terminate();
});

test('the signal of a request reaches a worker that has unregistered', async (t) => {
  const aborted = deferred();
  const started = deferred();
  const leaving = registerWorkerThread({
    handleHttpRequest({ signal }) {
      signal.addEventListener('abort', aborted.resolve);
      leaving.unregister();
      started.resolve();
      return aborted.promise;
    },
  });
  const server = listen();
  t.after(stopAll);
  const control = new AbortController();
  const answer = request(server, '/', { signal: control.signal });
  answer.catch(() => {});
  await started.promise;
  control.abort();
  await within(aborted.promise, 'the signal aborts');
});

test('opens that a terminated thread was holding are counted', async (t) => {
  const before = stats().dropped.workerEndedEvents;
  const [thread] = await startThreads(t, 1, { blocksOpen: true });
  const server = listen();
  await connect(t, server);
  await thread.told('blocked');
  await thread.worker.terminate();
  await eventually(() => assert.equal(stats().dropped.workerEndedEvents, before + 1));
  serve(t); // somebody has to handle the close
});
