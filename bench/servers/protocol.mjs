// What every server of the benchmark does with a message, told by its first byte:
//
//   j<channel> …   joins the channel, and sends the message back
//   p<channel> …   publishes the message to the channel
//   g …            collects the garbage, and sends the message back
//   i …            answers with the name of the thread that handles it
//   x<ms> …        blocks its thread for so long, and sends the message back
//   anything else  is sent back
//
// A channel's name ends with a space. Text is answered with text, bytes with bytes. `GET /` is answered GREETING, and
// `POST /` its body.

export const GREETING = 'Hello, World!';

/** Larger than the largest message of the benchmark, with what Socket.IO wraps around it. */
export const MAX_MESSAGE = 2 * 1024 * 1024;

export const JOIN = 106;
export const PUBLISH = 112;
const COLLECT_GARBAGE = 103;
const IDENTIFY = 105;
const BLOCK = 120;

/** The first byte of a text or of bytes. */
export function kindOf(data) {
  return typeof data === 'string' ? data.charCodeAt(0) : data[0];
}

/** The text between the first byte and the first space. */
export function nameIn(data) {
  if (typeof data === 'string') return data.slice(1, data.indexOf(' '));
  // Bun has Buffers and Uint8Arrays, Deno the latter.
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength).latin1Slice(1, data.indexOf(32));
}

/** What is sent back for a message that neither joins nor publishes. */
export function answer(data, kind, thread = 'main') {
  if (kind === COLLECT_GARBAGE) collectGarbage();
  else if (kind === BLOCK) block(Number(nameIn(data)));
  else if (kind === IDENTIFY) return thread;
  return data;
}

function collectGarbage() {
  if (typeof globalThis.Bun !== 'undefined') globalThis.Bun.gc(true);
  else globalThis.gc?.();
}

function block(milliseconds) {
  const until = performance.now() + milliseconds;
  while (performance.now() < until);
}

/**
 * Tells the benchmark where the server is and what it uses, and ends with the benchmark.
 *
 * @param {{ port: number, version: string, options: Record<string, unknown> }} about `options` are those that are not
 *   the defaults
 */
export function ready(about) {
  console.log(JSON.stringify(about));
  process.stdin.resume();
  process.stdin.on('end', () => process.exit(0));
}
