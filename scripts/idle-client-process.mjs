// A process of idle-clients.mjs: sockets that know just enough of RFC 6455, and RFC 7692, to be idle.
// Arguments: host, port, number of sockets, bytes of a compressed first message or 0. It obeys one command at a time and answers `done` or what went wrong.

import net from 'node:net';
import zlib from 'node:zlib';

const [host, port, count, compressed] = process.argv.slice(2);

/** Handshakes at the same time: below the backlog of a listening socket, which is 128 on older kernels. */
const HANDSHAKES = 100;

/** RFC 6455, section 1.3 has this key as its example; nothing says that it must differ between sockets. */
const HANDSHAKE =
  `GET / HTTP/1.1\r\nHost: ${host}:${port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
  'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n' +
  `${Number(compressed) > 0 ? 'Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n' : ''}\r\n`;
const ACCEPTED = 's3pPLMBiTxaQ9kYGzzhZRbK+xOo=';

const GREETING = Number(compressed) > 0 ? 'compressed;'.padEnd(Number(compressed), 'and again;') : 'hello';
const RSV1 = 0x40;
const DEFLATE_TAIL = Buffer.from([0, 0, 0xff, 0xff]);
const NO_MASK = Buffer.alloc(4);
const PING = 0x89;
const TEXT = 0x81;
const CLOSE = 0x88;
const LENGTH_16 = 126;

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
    const agreed = answer.includes('permessage-deflate') === Number(compressed) > 0;
    if (!answer.startsWith('HTTP/1.1 101 ') || !answer.includes(ACCEPTED) || !agreed) {
      this.#wanted.reject(new Error(`the handshake was answered ${answer}`));
      return;
    }
    this.#isUpgraded = true;
    if (Number(compressed) > 0) this.#send(TEXT | RSV1, deflated(GREETING, answer));
    else this.#send(TEXT, Buffer.from(GREETING));
  }

  /** Takes one frame of at most 65,535 bytes, if it is whole. */
  #frame() {
    const [opcode, length] = this.#bytes;
    const header = length === LENGTH_16 ? 4 : 2;
    if (this.#bytes.length < header) return false;
    const size = length === LENGTH_16 ? this.#bytes.readUInt16BE(2) : length;
    if (this.#bytes.length < header + size) return false;
    const payload = Buffer.from(this.#bytes.subarray(header, header + size));
    this.#bytes = this.#bytes.subarray(header + size);
    if ((opcode & ~RSV1) === TEXT) {
      this.messages.push(opcode & RSV1 ? inflated(payload) : payload.toString());
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
    const long = payload.length > 125;
    const header = long
      ? [opcode, 0x80 | LENGTH_16, payload.length >> 8, payload.length & 0xff]
      : [opcode, 0x80 | payload.length];
    this.#connection.write(Buffer.concat([Buffer.from(header), NO_MASK, payload]));
  }
}

/** A message as it stands in a frame (RFC 7692, section 7.2.1), in the window that was agreed on. */
function deflated(message, answer) {
  const windowBits = Number(/client_max_window_bits=(\d+)/.exec(answer)?.[1] ?? 15);
  const options = { windowBits, finishFlush: zlib.constants.Z_SYNC_FLUSH };
  return zlib.deflateRawSync(message, options).subarray(0, -DEFLATE_TAIL.length);
}

/** The first compressed message of a connection, which refers to nothing before it. */
function inflated(payload) {
  const options = { finishFlush: zlib.constants.Z_SYNC_FLUSH };
  return zlib.inflateRawSync(Buffer.concat([payload, DEFLATE_TAIL]), options).toString();
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
