/** The clients of the stress. What one does is in its name; all of them go sooner or later, but for the residents. */

import http from 'node:http';
import net from 'node:net';
import WebSocket from 'ws';
import { closeFrame, frame, handshake, OPCODE } from '../../test/helpers/raw.mjs';
import { socketUrl } from '../../test/helpers/serving.mjs';

/** Where those come from who are banned now and then; on Linux all of 127.0.0.0/8 is this machine. */
export const BANNED_ADDRESS = process.platform === 'linux' ? '127.0.0.9' : '203.0.113.1';

/** What clients do, and how often in relation. */
export const ACTIONS = {
  converse: 10,
  flood: 2,
  idle: 1,
  slow: 2,
  halfClose: 2,
  reset: 3,
  vanish: 3,
  rubbish: 2,
  fragments: 2,
  flinch: 2,
  refused: 1,
  banned: 2,
  request: 6,
  abort: 3,
};

/** What a message asks of its handler. */
const WISHES = {
  echo: 20,
  bytes: 10,
  later: 6,
  never: 1,
  throw: 2,
  block: 1,
  join: 6,
  leave: 4,
  broadcast: 1,
  token: 2,
  route: 1,
  kick: 1,
};

/** Numbers its messages, and looks at what comes back. */
class Conversation {
  #world;
  #sequence = 0;
  #lastAnswer = 0;
  #number;

  constructor(world) {
    this.#world = world;
    world.made += 1;
    this.#number = world.made;
  }

  get number() {
    return this.#number;
  }

  say(what, pad = '') {
    this.#world.messages += 1;
    this.#sequence += 1;
    return `${this.#world.messages} ${this.#sequence} ${what} ${pad}`;
  }

  hear(data) {
    const text = data.toString('latin1', 0, 60);
    if (!text.startsWith('e ')) return;
    const [, connection, sequence] = text.split(' ').map(Number);
    if (connection !== this.#number) this.#world.faults.push(`${this.#number} got an answer to ${connection}`);
    if (sequence <= this.#lastAnswer)
      this.#world.faults.push(`${this.#number} got ${sequence} behind ${this.#lastAnswer}`);
    this.#lastAnswer = sequence;
  }
}

/** Stays in its channel and says nothing. */
export class Resident {
  last = 0;

  constructor(world, server) {
    const { number } = new Conversation(world);
    this.client = new WebSocket(socketUrl(server, `/?${number}&resident`), { perMessageDeflate: false });
    this.opened = new Promise((resolve, reject) => this.client.on('open', resolve).on('error', reject));
    this.client.on('message', (data) => {
      const [kind, text] = data.toString('latin1', 0, 30).split(' ');
      if (kind !== 'p') return;
      // It may have opened behind the first ones.
      const isNext = this.last === 0 || Number(text) === this.last + 1;
      if (!isNext) world.faults.push(`a resident got ${text} behind ${this.last}`);
      this.last = Number(text);
    });
    this.gone = new Promise((resolve) => this.client.on('close', resolve));
    this.client.on('close', (code) => {
      if (!world.isOver) world.faults.push(`a resident was closed with ${code}`);
    });
    world.clients.add(this);
  }

  leave() {}
}

export class Client {
  #world;
  #random;
  #server;
  #conversation;
  #timers = new Set();
  #end = () => {};

  constructor(world, server, action) {
    this.#world = world;
    this.#random = world.random;
    this.#server = server;
    this.#conversation = new Conversation(world);
    world.clients.add(this);
    this.gone = new Promise((resolve) => {
      this.#over = () => {
        for (const timer of this.#timers) clearTimeout(timer);
        world.clients.delete(this);
        resolve();
      };
    });
    this[action]();
  }

  #over;

  leave() {
    this.#end();
  }

  #soon(most, act) {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      act();
    }, this.#random.below(most));
    this.#timers.add(timer);
  }

  /** A client that speaks WebSocket well; `whenOpen` is called with it. */
  #connect(kind, whenOpen, options = {}) {
    const url = socketUrl(this.#server, `/?${this.#conversation.number}&${kind}`);
    const client = new WebSocket(url, { perMessageDeflate: false, ...options });
    client.on('error', () => {});
    client.on('message', (data) => this.#conversation.hear(data));
    client.on('close', this.#over);
    client.on('open', () => whenOpen(client));
    this.#end = () => client.terminate();
    return client;
  }

  converse() {
    this.#connect('proper', (client) => {
      let left = this.#random.below(40);
      const go = () => {
        if (client.readyState !== WebSocket.OPEN) return;
        for (let n = this.#random.below(4); n >= 0; n -= 1) this.#say(client);
        left -= 1;
        if (left > 0) this.#soon(30, go);
        else if (this.#random.oneIn(2)) client.close(3000 + this.#random.below(1000));
        else client.terminate();
      };
      go();
    });
  }

  #say(client) {
    const what = this.#random.weighted(WISHES);
    const pad = 'x'.repeat(this.#random.oneIn(20) ? this.#random.below(200_000) : this.#random.below(300));
    const text = this.#conversation.say(what, pad);
    client.send(this.#random.oneIn(3) ? Buffer.from(text) : text);
  }

  flood() {
    this.#connect('flood', (client) => {
      for (let n = 500 + this.#random.below(3000); n > 0; n -= 1) client.send(this.#conversation.say('echo'));
      this.#soon(500, () => client.terminate());
    });
  }

  idle() {
    this.#connect('idle', (client) => this.#soon(3000, () => client.close()));
  }

  banned() {
    this.#connect(
      'banned',
      (client) => {
        this.#say(client);
        this.#soon(300, () => client.terminate());
      },
      { localAddress: BANNED_ADDRESS === '203.0.113.1' ? undefined : BANNED_ADDRESS },
    );
  }

  refused() {
    const client = this.#connect('refuse', () => client.terminate());
  }

  flinch() {
    const client = this.#connect('flinch', () => client.terminate());
    this.#soon(10, () => client.terminate());
  }

  /** One that speaks bytes; `whenOpen` is called with its stream when the server has answered. */
  #raw(whenOpen) {
    const { host, port } = this.#server.address;
    const stream = net.connect({ host, port, allowHalfOpen: true });
    stream.on('error', () => {});
    stream.on('close', this.#over);
    stream.write(handshake({}, `GET /?${this.#conversation.number}&raw HTTP/1.1`));
    stream.once('data', () => whenOpen(stream));
    this.#end = () => stream.destroy();
    this.#soon(5000, () => stream.destroy());
  }

  #text(what, pad) {
    return frame(OPCODE.text, this.#conversation.say(what, pad));
  }

  slow() {
    this.#raw((stream) => {
      stream.pause();
      for (let n = 0; n < 5; n += 1) stream.write(this.#text('flood'));
      this.#soon(1500, () => (this.#random.oneIn(2) ? stream.destroy() : stream.resume()));
    });
  }

  halfClose() {
    this.#raw((stream) => {
      stream.resume();
      for (let n = this.#random.below(5); n > 0; n -= 1) stream.write(this.#text('echo'));
      if (this.#random.oneIn(2)) stream.write(closeFrame(1000));
      stream.end();
      stream.on('end', () => stream.destroy());
    });
  }

  reset() {
    this.#raw((stream) => {
      for (let n = this.#random.below(50); n > 0; n -= 1) stream.write(this.#text(n % 7 ? 'echo' : 'later'));
      this.#soon(20, () => stream.resetAndDestroy());
    });
  }

  vanish() {
    this.#raw((stream) => {
      stream.write(this.#text('flood'));
      stream.write(this.#text('never'));
      this.#soon(50, () => stream.destroy());
    });
  }

  rubbish() {
    this.#raw((stream) => {
      stream.resume();
      stream.write(this.#text('echo'));
      const what = this.#random.below(4);
      if (what === 0) stream.write(frame(OPCODE.text, Buffer.from([0xff])));
      if (what === 1) stream.write(frame(OPCODE.text, 'unmasked', { masked: false }));
      if (what === 2) stream.write(frame(OPCODE.text, 'reserved', { rsv: 7 }));
      if (what === 3) stream.write(frame(OPCODE.binary, '', { length: 2 ** 50 }));
      stream.on('end', () => stream.destroy());
    });
  }

  fragments() {
    this.#raw((stream) => {
      stream.resume();
      const bytes = this.#text('echo', 'y'.repeat(this.#random.below(3000)));
      let at = 0;
      const go = () => {
        const piece = 1 + this.#random.below(400);
        stream.write(bytes.subarray(at, at + piece));
        at += piece;
        if (at < bytes.length && !this.#random.oneIn(40)) this.#soon(10, go);
        else this.#soon(100, () => stream.end(closeFrame(1000)).on('end', () => stream.destroy()));
      };
      go();
    });
  }

  request() {
    const what = this.#random.weighted({ now: 10, later: 5, throw: 1, never: 1 });
    const body = 'b'.repeat(this.#random.oneIn(4) ? this.#random.below(300_000) : 0);
    const { number } = this.#conversation;
    const request = this.#ask(`/?${number}&${what}`, body);
    request.end(body);
    request.on('response', async (response) => {
      let text = '';
      response.on('error', () => {});
      for await (const piece of response.setEncoding('utf8')) text += piece;
      if (response.statusCode === 200 && text !== `${number} ${body.length}`) {
        this.#world.faults.push(`the request ${number} with ${body.length} bytes was answered ${text}`);
      }
    });
  }

  abort() {
    const request = this.#ask(`/?${this.#conversation.number}&later`, 'b'.repeat(100_000));
    request.on('response', (response) => response.on('error', () => {}).resume());
    request.write('b'.repeat(this.#random.below(100_000)));
    this.#soon(40, () => request.destroy());
  }

  #ask(path, body) {
    const { host, port } = this.#server.address;
    const request = http.request({
      host,
      port,
      path,
      method: 'POST',
      agent: false,
      headers: { 'Content-Length': body.length },
    });
    request.on('error', () => {});
    request.on('close', this.#over);
    this.#end = () => request.destroy();
    return request;
  }
}
