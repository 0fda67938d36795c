/** A real browser: the chat example between two pages, and Chromium's own WebSocket against the package. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { close, registerWorkerThread, send, start } from 'wsbroker';
import { launchChromium, skipReason } from './helpers/chromium.mjs';
import { startExample } from './helpers/examples.mjs';
import { eventually, within } from './helpers/waiting.mjs';

test('chat: two pages talk, see each other, and come back after the server was killed', {
  skip: skipReason,
}, async (t) => {
  const server = await startExample(t, 'chat/server.mjs');
  const chromium = await launchChromium(t);
  const ann = await enter(chromium, server.url, 'Ann');
  const bob = await enter(chromium, server.url, 'Bob');
  const violations = watchForScripts(ann, bob);

  await t.test('both see who is there', async () => {
    await seesPeople(ann, ['Annyou', 'Bob']);
    await seesPeople(bob, ['Ann', 'Bobyou']);
    await ann.getByText('Bob joined').waitFor();
  });

  await t.test('one writes, the other sees it, until it is said', async () => {
    await messageBox(ann).pressSequentially('Hello');
    await bob.getByText('Ann is typing…').waitFor();
    assert.equal(await ann.getByText('is typing…').count(), 0);

    await messageBox(ann).press('Enter');
    await log(bob).getByText('Hello', { exact: true }).waitFor();
    await log(ann).getByText('Hello', { exact: true }).waitFor();
    await bob.getByText('is typing…').waitFor({ state: 'hidden' });
    assert.equal(await messageBox(ann).inputValue(), '');
  });

  await t.test('a text that is taken back is no longer being typed', async () => {
    await messageBox(bob).pressSequentially('x');
    await ann.getByText('Bob is typing…').waitFor();
    await messageBox(bob).press('Backspace');
    await ann.getByText('is typing…').waitFor({ state: 'hidden' });
  });

  await t.test('a script in a message is text', async () => {
    const script = '<script>window.attacked = true</script><img src=x onerror="window.attacked = true">';
    await say(bob, script);
    for (const page of [ann, bob]) {
      await log(page).getByText(script, { exact: true }).waitFor();
      assert.equal(await page.evaluate(() => document.querySelectorAll('main script, main img').length), 0);
      assert.equal(await page.evaluate(() => window.attacked), undefined);
    }
  });

  await t.test('leaving, and closing the page, is seen', async () => {
    const eve = await enter(chromium, server.url, 'Eve');
    await seesPeople(ann, ['Annyou', 'Bob', 'Eve']);
    await eve.getByRole('button', { name: 'Leave' }).click();
    await seesPeople(ann, ['Annyou', 'Bob']);
    await ann.getByText('Eve left').waitFor();

    await eve.getByRole('button', { name: 'Join the room' }).click();
    await seesPeople(ann, ['Annyou', 'Bob', 'Eve']);
    await eve.close();
    await seesPeople(ann, ['Annyou', 'Bob']);
  });

  await t.test('the server is killed and comes back: so do the pages', async (t) => {
    for (const page of [ann, bob]) await page.getByRole('status').getByText('Connected', { exact: true }).waitFor();
    await server.kill();
    for (const page of [ann, bob]) {
      await page.getByRole('status').getByText('Disconnected').waitFor();
      await log(page).getByText('Connection lost').waitFor();
    }
    // What is written meanwhile is kept, not lost.
    await messageBox(ann).fill('Are you still there?');
    await messageBox(ann).press('Enter');
    assert.equal(await messageBox(ann).inputValue(), 'Are you still there?');

    await startExample(t, 'chat/server.mjs', { PORT: server.port });
    for (const page of [ann, bob]) {
      await page.getByRole('status').getByText('Connected', { exact: true }).waitFor({ timeout: 30_000 });
      await log(page).getByText('Connected again').waitFor();
    }
    await eventually(async () => assert.deepEqual((await people(ann)).toSorted(), ['Annyou', 'Bob']));
    await eventually(async () => assert.deepEqual((await people(bob)).toSorted(), ['Ann', 'Bobyou']));

    await messageBox(ann).press('Enter');
    await log(bob).getByText('Are you still there?').waitFor();
    await say(bob, 'Yes, still here.');
    await log(ann).getByText('Yes, still here.').waitFor();
    // What was said before is still to be read.
    await log(ann).getByText('Hello', { exact: true }).waitFor();
  });

  assert.deepEqual(violations, []);
});

test('chat: the page fits a phone, and works by keyboard alone', { skip: skipReason }, async (t) => {
  const server = await startExample(t, 'chat/server.mjs');
  const chromium = await launchChromium(t);
  const page = await chromium.newPage({ ...PHONE, colorScheme: 'dark' });
  await page.goto(server.url);
  await page.getByText('Connected', { exact: true }).waitFor();

  assert.equal(await focused(page), 'name');
  await page.keyboard.type('x'.repeat(30)); // cut at 24
  await page.keyboard.press('Tab');
  assert.equal(await focused(page), 'room');
  await page.keyboard.type('tea\u0001room'); // the server makes it 'tea room'
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'tea room', exact: true }).waitFor();
  await seesPeople(page, [`${'x'.repeat(24)}you`]);
  assert.equal(await focused(page), 'text');
  await page.keyboard.type('w'.repeat(300));
  await page.keyboard.press('Enter');
  await log(page).getByText('w'.repeat(300)).waitFor();

  const { content, width } = await page.evaluate(() => ({
    content: document.documentElement.scrollWidth,
    width: innerWidth,
  }));
  assert.ok(content <= width, `${content} px wide on a screen of ${width} px`);

  await page.keyboard.press('Shift+Tab');
  assert.equal(await focused(page), 'log');
  await page.keyboard.press('Shift+Tab');
  assert.equal(await focused(page), 'leave');
  await page.keyboard.press('Enter');
  await page.getByRole('button', { name: 'Join the room' }).waitFor();
  assert.equal(await focused(page), 'room');
});

test("Chromium's WebSocket: text, bytes, a large message, and close codes on both sides", {
  skip: skipReason,
}, async (t) => {
  const closes = [];
  const registration = registerWorkerThread({
    handleHttpRequest: () => ({ headers: { 'content-type': 'text/html' }, body: '<!doctype html><title>test</title>' }),
    handleSocketMessage(data, socketId) {
      if (data === 'close me') close(socketId, 4002, 'as you like');
      else send(socketId, data);
    },
    handleSocketClose: (_socketId, _token, code, reason) => closes.push({ code, reason }),
  });
  t.after(() => registration.unregister());
  const large = 8 * 1024 * 1024;
  // An echo of that size waits in the broker while the page is still reading.
  const server = start({ bind: '127.0.0.1:0', maxMessageSize: large, maxBackpressure: 2 * large });
  t.after(() => server.stop());

  const page = await (await launchChromium(t)).newPage();
  await page.goto(`http://127.0.0.1:${server.address.port}/`);
  await page.evaluate(openClientInPage);

  await t.test('text and bytes keep their kind and order', async () => {
    const echoed = await page.evaluate(async () => {
      const sent = ['hello ☕', new Uint8Array([0, 255, 1]), '', new Uint8Array(0)];
      for (const each of sent) window.client.socket.send(each);
      const received = [];
      for (let i = 0; i < sent.length; i += 1) received.push(await window.client.nextMessage());
      return received.map((data) => (typeof data === 'string' ? data : [...new Uint8Array(data)]));
    });
    assert.deepEqual(echoed, ['hello ☕', [0, 255, 1], '', []]);
  });

  await t.test('a message of 8 MiB comes back whole', async () => {
    const same = await page.evaluate(async (length) => {
      const sent = new Uint8Array(length);
      for (let i = 0; i < length; i += 1) sent[i] = (i * 31) % 251;
      window.client.socket.send(sent);
      const received = new Uint8Array(await window.client.nextMessage());
      return received.length === length && received.every((byte, i) => byte === sent[i]);
    }, large);
    assert.equal(same, true);
  });

  await t.test('the page closes: the worker gets its code and reason', async () => {
    const seen = await page.evaluate(() => {
      window.client.socket.close(4001, 'enough ☕');
      return window.client.closed;
    });
    assert.deepEqual(seen, { code: 4001, reason: 'enough ☕', wasClean: true });
    await eventually(() => assert.deepEqual(closes, [{ code: 4001, reason: 'enough ☕' }]));
  });

  await t.test('the worker closes: the page gets its code and reason', async () => {
    await page.evaluate(openClientInPage);
    const seen = await page.evaluate(() => {
      window.client.socket.send('close me');
      return window.client.closed;
    });
    assert.deepEqual(seen, { code: 4002, reason: 'as you like', wasClean: true });
    await eventually(() => assert.deepEqual(closes.at(-1), { code: 4002, reason: 'as you like' }));
  });

  await t.test('a message over the limit of its listener closes with 1009', async (t) => {
    const narrow = start({ bind: '127.0.0.1:0', maxMessageSize: 1000 });
    t.after(() => narrow.stop());
    await page.evaluate(openClientInPage, narrow.address.port);
    const { echoed, code } = await page.evaluate(async () => {
      window.client.socket.send('x'.repeat(1000));
      const echoed = (await window.client.nextMessage()).length;
      window.client.socket.send('x'.repeat(1001));
      return { echoed, code: (await window.client.closed).code };
    });
    assert.deepEqual({ echoed, code }, { echoed: 1000, code: 1009 });
  });

  await t.test('the server stops: the page gets 1001', async () => {
    await page.evaluate(openClientInPage);
    const seen = page.evaluate(() => window.client.closed);
    await within(server.stop(), 'stop');
    assert.equal((await seen).code, 1001);
  });
});

const picture = process.env.WSBROKER_SCREENSHOT;
test('the picture of the README', { skip: picture ? skipReason : 'only for WSBROKER_SCREENSHOT=path' }, async (t) => {
  const server = await startExample(t, 'chat/server.mjs');
  const chromium = await launchChromium(t);
  const ada = await enter(chromium, server.url, 'Ada', { viewport: { width: 740, height: 600 }, colorScheme: 'light' });
  const grace = await enter(chromium, server.url, 'Grace', {
    ...PHONE,
    viewport: { width: 340, height: 600 },
    colorScheme: 'dark',
  });
  const talk = [
    [ada, 'Is anybody there?'],
    [grace, 'Yes. Another worker serves me.'],
    [ada, 'You can tell?'],
    [grace, 'Only from its log.'],
    [grace, 'Kill the server, if you like: we will be back.'],
  ];
  await seesPeople(ada, ['Adayou', 'Grace']);
  for (const [page, text] of talk) {
    await say(page, text);
    for (const each of [ada, grace]) await log(each).getByText(text, { exact: true }).waitFor();
  }
  await messageBox(ada).pressSequentially('Let me try');
  await grace.getByText('Ada is typing…').waitFor();

  const shots = [];
  for (const page of [ada, grace]) shots.push(await page.screenshot({ animations: 'disabled', scale: 'css' }));
  const album = await chromium.newPage({ viewport: { width: 1180, height: 660 } });
  const images = shots.map((shot) => `<img src="data:image/png;base64,${shot.toString('base64')}">`);
  await album.setContent(`<style>
    body { display: flex; gap: 36px; place-content: center; margin: 30px; background: #c9cde0 }
    img { height: 600px; border-radius: 12px; box-shadow: 0 8px 24px #14183240 }
  </style>${images.join('')}`);
  const png = await album.screenshot();
  assert.ok(png.length < 200_000, `${png.length} bytes are too much for a README`);
  writeFileSync(picture, png);
});

const PHONE = { viewport: { width: 390, height: 760 }, isMobile: true, hasTouch: true };

async function enter(chromium, url, name, options) {
  const page = await chromium.newPage(options);
  await page.goto(`${url}/?room=tea`);
  await page.getByLabel('Your name').fill(name);
  await page.getByRole('button', { name: 'Join the room' }).click();
  await messageBox(page).waitFor();
  return page;
}

async function say(page, text) {
  await messageBox(page).fill(text);
  await messageBox(page).press('Enter');
}

function messageBox(page) {
  return page.getByLabel('Message', { exact: true });
}

function log(page) {
  return page.getByRole('log');
}

async function people(page) {
  const names = await page
    .getByRole('list', { name: /^Here: / })
    .getByRole('listitem')
    .allTextContents();
  return names.map((text) => text.slice(1)); // without the letter in the round sign
}

async function seesPeople(page, expected) {
  await eventually(async () => assert.deepEqual(await people(page), expected));
}

async function focused(page) {
  return page.evaluate(() => document.activeElement.id);
}

/** Collects what a page reports: errors of its script, and whatever its content security policy stopped. */
function watchForScripts(...pages) {
  const seen = [];
  for (const page of pages) {
    page.on('pageerror', (error) => seen.push(error.message));
    page.on('console', (message) => {
      // A connection that fails while the server is away is reported too, and is meant to be.
      if (message.type() === 'error' && !message.text().includes('WebSocket connection to')) seen.push(message.text());
    });
  }
  return seen;
}

/** Runs in the page: makes `client`, with its `socket`, `nextMessage()` in their order, and `closed`, a promise of its end. */
async function openClientInPage(port = location.port) {
  const socket = new WebSocket(`ws://127.0.0.1:${port}`);
  socket.binaryType = 'arraybuffer';
  const received = [];
  let arrived = () => {};
  socket.onmessage = ({ data }) => {
    received.push(data);
    arrived();
  };
  const nextMessage = async () => {
    while (received.length === 0) {
      await new Promise((resolve) => {
        arrived = resolve;
      });
    }
    return received.shift();
  };
  const closed = new Promise((resolve) => {
    socket.onclose = ({ code, reason, wasClean }) => resolve({ code, reason, wasClean });
  });
  window.client = { socket, nextMessage, closed };
  await new Promise((resolve, reject) => {
    socket.onopen = resolve;
    socket.onerror = () => reject(new Error('no connection'));
  });
}
