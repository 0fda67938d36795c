// A process of idle-clients.mjs: plain sockets that know just enough of RFC 6455 to be idle.
// Arguments: host, port, number of sockets. It obeys one command at a time and answers `done` or what went wrong.

import net from 'node:net';

const [host, port, count] = process.argv.slice(2);

/** Handshakes at the same time: below the backlog of a listening socket, which is 128 on older kernels. */
const HANDSHAKES = 100;

/** RFC 6455, section 1.3 has this key as its example; nothing says that it must differ between sockets. */
const HANDSHAKE =
  `GET / HTTP/1.1\r\nHost: ${host}:${port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
  'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n';
const ACCEPTED = 's3pPLMBiTxaQ9kYGzzhZRbK+xOo=';

const GREETING = 'hello';
const NO_MASK = Buffer.alloc(4);
const PING = 0x89;
const TEXT = 0x81;
const CLOSE = 0x88;

class IdleSocket {
  #bytes = Buffer.alloc(0);
  #isUpgraded = false;
  #connection = net.connect({ host, port: Number(port), noDelay: true });
  #wanted = deferred();
  closeCode = undefined;
  messages = [];

  constructor() {
    this.ended = new Promise((resolve) => this.#connection.once('close', resolve));
    this.#connection.write(HANDSHAKE);
    this.#connection.on('data', (data) => this.#receive(data));
    this.#connection.on('error', (error) => this.#wanted.reject(error));
  }

  /** Waits for the next message; there must be exactly one. */
  async message() {
    await Promise.race([this.#wanted.promise, this.ended]);
    this.#wanted = deferred();
    const [message, ...more] = this.messages.splice(0);
    if (message === undefined) throw new Error(`the socket ended with ${this.closeCode}`);
    if (more.length > 0) throw new Error(`${message} came, and ${more}`);
    return message;
  }

  #receive(data) {
    this.#bytes = this.#bytes.length === 0 ? data : Buffer.concat([this.#bytes, data]);
    if (!this.#isUpgraded) this.#upgrade();
    while (this.#isUpgraded && this.#frame());
  }

  #upgrade() {
    const end = this.#bytes.indexOf('\r\n\r\n');
    if (end < 0) return;
    const answer = this.#bytes.toString('latin1', 0, end);
    this.#bytes = this.#bytes.subarray(end + 4);
    if (!answer.startsWith('HTTP/1.1 101 ') || !answer.includes(ACCEPTED)) {
      this.#wanted.reject(new Error(`the handshake was answered ${answer}`));
      return;
    }
    this.#isUpgraded = true;
    this.#send(TEXT, Buffer.from(GREETING));
  }

  /** Takes one frame of at most 125 bytes, if it is whole. */
  #frame() {
    const [opcode, length] = this.#bytes;
    if (this.#bytes.length < 2 || this.#bytes.length < 2 + length) return false;
    const payload = Buffer.from(this.#bytes.subarray(2, 2 + length));
    this.#bytes = this.#bytes.subarray(2 + length);
    if (opcode === TEXT) {
      this.messages.push(payload.toString());
      this.#wanted.resolve();
    } else if (opcode === PING) {
      this.#send(PING + 1, payload);
    } else if (opcode === CLOSE) {
      this.closeCode = payload.readUInt16BE(0);
      this.#send(CLOSE, payload);
    } else {
      this.#wanted.reject(new Error(`a frame with the first byte ${opcode}`));
    }
    return true;
  }

  // A mask of zeroes is a mask, and leaves the payload as it is.
  #send(opcode, payload) {
    this.#connection.write(Buffer.concat([Buffer.from([opcode, 0x80 | payload.length]), NO_MASK, payload]));
  }
}

function deferred() {
  let settle;
  const promise = new Promise((resolve, reject) => {
    settle = { resolve, reject };
  });
  promise.catch(() => {}); // whoever waits hears of it
  return { promise, ...settle };
}

const sockets = [];

const commands = {
  async open() {
    await Promise.all(Array.from({ length: HANDSHAKES }, openSome));
  },

  async receive(expected) {
    for (const socket of sockets) {
      const message = await socket.message();
      if (message !== expected) throw new Error(`${message} came instead of ${expected}`);
    }
  },

  async closed(code) {
    await Promise.all(sockets.map(({ ended }) => ended));
    for (const { closeCode, messages } of sockets) {
      if (closeCode !== code) throw new Error(`a socket was closed with ${closeCode}`);
      if (messages.length > 0) throw new Error(`${messages} came unasked`);
    }
  },
};

async function openSome() {
  while (sockets.length < Number(count)) {
    const socket = new IdleSocket();
    sockets.push(socket);
    const message = await socket.message();
    if (message !== GREETING) throw new Error(`${message} came instead of ${GREETING}`);
  }
}

process.on('message', async ([command, ...args]) => {
  try {
    await commands[command](...args);
    process.send('done');
  } catch (error) {
    process.send(error.message);
  }
});
process.on('disconnect', () => process.exit());
