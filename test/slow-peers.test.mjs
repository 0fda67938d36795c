// Clients that take their time with HTTP: each kind of slowness has a limit, and nobody else notices.

import assert from 'node:assert/strict';
import http from 'node:http';
import { test } from 'node:test';
import { connectionCount, stats } from 'wsbroker';
import { connectRaw } from './helpers/raw.mjs';
import { connect, request, serve } from './helpers/serving.mjs';
import { deferred, eventually, Inbox, within } from './helpers/waiting.mjs';

const SOON = 300;
const LONG = 1_000_000;

/** More than the kernel's buffers of a connection hold. */
const LARGE = 64 << 20;

/** A server with a socket that nothing may disturb. */
async function serveWithBystander(t, options) {
  const server = serve(
    t,
    {
      handleHttpRequest: ({ path, body }) => ({ body: path === '/large' ? Buffer.alloc(LARGE) : `${path} ${body}` }),
      handleSocketMessage: () => {},
    },
    options,
  );
  const bystander = await connect(t, server);
  const stillServes = async () => {
    assert.equal((await request(server, '/fine')).body, '/fine ');
    assert.equal(bystander.readyState, bystander.OPEN);
    assert.equal(connectionCount(), 1);
  };
  return { server, stillServes };
}

test('a head that comes too slowly gets 408, silence nothing, and both are ended', async (t) => {
  const { server, stillServes } = await serveWithBystander(t, { headerTimeout: SOON });
  const { slowRequests } = stats().dropped;
  const silent = await connectRaw(t, server);
  const half = (await connectRaw(t, server)).write('GET / HTTP/1.1\r\nHost: x\r\n');
  const trickle = (await connectRaw(t, server)).write('GET / HTTP/1.1\r\nHost: x\r\nX: ');
  const timer = setInterval(() => trickle.write('x'), 20);
  t.after(() => clearInterval(timer));
  for (const client of [half, trickle]) {
    const { status, headers, body } = await client.response();
    assert.deepEqual([status, headers.connection, body], [408, 'close', 'the head came too slowly\n']);
    clearInterval(timer);
    await client.end();
  }
  await silent.end();
  assert.equal(stats().dropped.slowRequests, slowRequests + 2);
  await stillServes();
});

test('a body below the least rate gets 408 after its grace', async (t) => {
  const { server, stillServes } = await serveWithBystander(t, { bodyTimeout: LONG, minBodyRate: 1000 });
  const { slowRequests } = stats().dropped;
  const { requests } = stats();
  const client = await connectRaw(t, server);
  client.write('POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n');
  const timer = setInterval(() => client.write('x'), 50);
  t.after(() => clearInterval(timer));
  const { status, headers } = await client.response();
  assert.deepEqual([status, headers.connection], [408, 'close']);
  clearInterval(timer);
  await client.end();
  assert.equal(stats().dropped.slowRequests, slowRequests + 1);
  assert.equal(stats().requests, requests, 'no handler has seen it');
  await stillServes();
});

test('without a least rate a body has its whole time', async (t) => {
  const { server } = await serveWithBystander(t, { bodyTimeout: SOON, minBodyRate: false });
  const client = await connectRaw(t, server);
  client.write('POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf');
  assert.equal((await client.response()).status, 408);
  await client.end();
});

test('an idle connection is kept for keepAliveTimeout, and less for half of a head', async (t) => {
  const { server } = await serveWithBystander(t, { keepAliveTimeout: SOON, headerTimeout: LONG });
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  t.after(() => agent.destroy());
  const ended = new Inbox();
  agent.on('free', (socket) => socket.once('close', () => ended.push(socket)));
  const first = await request(server, '/1', { agent });
  assert.equal(first.body, '/1 ');
  await ended.next('the idle connection is ended');
  assert.equal((await request(server, '/2', { agent })).body, '/2 ');
});

test('a connection that was kept longer than any head may take is as good as new', async (t) => {
  const { server } = await serveWithBystander(t, { keepAliveTimeout: LONG, headerTimeout: SOON });
  const kept = await connectRaw(t, server);
  const get = (path) => kept.write(`GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`).response();
  assert.equal((await get('/1')).body, '/1 ');
  await (await connectRaw(t, server)).end('so long it takes');
  assert.equal((await get('/2')).body, '/2 ');
  kept.write('GET /3');
  assert.equal((await kept.response()).status, 408);
  await kept.end();
});

test('an answer that is not read is cut, and counted', async (t) => {
  const { server, stillServes } = await serveWithBystander(t, { writeTimeout: SOON });
  const { unreadResponses } = stats().dropped;
  const client = await connectRaw(t, server);
  client.socket.pause();
  client.write('GET /large HTTP/1.1\r\nHost: x\r\n\r\n');
  await eventually(() => assert.equal(stats().dropped.unreadResponses, unreadResponses + 1));
  let received = 0;
  client.socket.on('data', ({ length }) => {
    received += length;
  });
  client.socket.resume();
  await client.end();
  assert.ok(received < LARGE, 'what had not been taken is gone');
  await stillServes();
});

test('a handler may take longer than any client', async (t) => {
  const answer = deferred();
  const asked = new Inbox();
  const server = serve(
    t,
    {
      handleHttpRequest: () => {
        asked.push('asked');
        return answer.promise;
      },
    },
    { headerTimeout: SOON, keepAliveTimeout: SOON, bodyTimeout: SOON, writeTimeout: SOON },
  );
  const response = request(server, '/', { method: 'POST', body: 'body' });
  await asked.next();
  for (let n = 0; n < 2; n += 1) await (await connectRaw(t, server)).end('so long it takes');
  answer.resolve({ body: 'at last' });
  assert.equal((await within(response, 'the answer')).body, 'at last');
});

test('a head has its limits in bytes and in headers, to the byte and to the header', async (t) => {
  const { server, stillServes } = await serveWithBystander(t, { maxHeaderSize: 1000, maxHeaders: 10 });
  const ofSize = (size) => {
    const [start, end] = ['GET / HTTP/1.1\r\nHost: x\r\nX: ', '\r\n\r\n'];
    return start + 'x'.repeat(size - start.length - end.length) + end;
  };
  const ofCount = (count) => {
    const more = Array.from({ length: count - 1 }, (_, n) => `x-${n}: ${n}\r\n`);
    return `GET / HTTP/1.1\r\nHost: x\r\n${more.join('')}\r\n`;
  };
  for (const [fits, isTooLarge] of [
    [ofSize(1000), ofSize(1001)],
    [ofCount(10), ofCount(11)],
  ]) {
    const client = await connectRaw(t, server);
    assert.equal((await client.write(fits).response()).status, 200);
    assert.equal((await client.write(isTooLarge).response()).status, 431);
    await client.end();
  }
  await stillServes();
});
