/** The option `compression` of `start`, parsed once. */

import { checkInteger, invalid, readProperties } from './arguments.cjs';

/** How messages are compressed, see {@link StartOptions.compression}. */
export interface CompressionOptions {
  /**
   * Messages of fewer bytes go out plain, 0 to 536,870,888. Whatever is shorter than this default fits one packet either
   * way, so that compressing it costs time and saves none.
   *
   * @defaultValue 1_024
   */
  threshold?: number;
  /**
   * From 1, the fastest, to 9, the strongest. For JSON of 1 to 64 KiB 3 to 9 take up to five times as long as 2 and make
   * it smaller by a tenth; 1 takes half as long and makes it larger by a third.
   *
   * @defaultValue 2
   */
  level?: number;
  /**
   * What a socket keeps from one message to the next.
   *
   * `'shared'`: nothing. A message is compressed for itself, once for all who receive it with the same window, on the
   * thread that sends it. A socket costs what a plain one costs.
   *
   * `'dedicated'`: what was last sent and received, one window each (RFC 7692 calls it context takeover). Messages that
   * resemble those before them become half as large again, but each is compressed for each socket, on its I/O thread,
   * which takes some 50 µs with the largest window: for many sockets that say little, not for a channel of thousands.
   * A socket costs up to 64 KiB more with the default `windowBits`; memory follows what was sent. A client that does not
   * want to keep a window gets, and sends, messages as in `'shared'`.
   *
   * @defaultValue 'shared'
   */
  memory?: 'shared' | 'dedicated';
  /**
   * The window as a power of two, 9 to 15 for 512 bytes to 32 KiB: how far back a repetition is found. A client may ask
   * for a smaller one of what it receives. With `'dedicated'` it also bounds what a socket keeps in each direction; a
   * client that does not offer `client_max_window_bits` cannot be held to it in what it sends. 12 keeps most of what
   * dedicated windows gain, for an eighth of their memory and half of the time.
   *
   * @defaultValue 15
   */
  windowBits?: number;
}

/** The same as the addon takes it; undefined for none. */
export type NativeCompression = Required<CompressionOptions> | undefined;

/** The same values stand in the documentation of {@link CompressionOptions}. */
const DEFAULTS: Required<CompressionOptions> = { threshold: 1024, level: 2, memory: 'shared', windowBits: 15 };

const NAMES = Object.keys(DEFAULTS) as (keyof CompressionOptions)[];

/** The largest `maxMessageSize`; what is sent may be longer, and that is compressed. */
const MAX_THRESHOLD = 536_870_888;

/**
 * @throws WsBrokerError `WSB_INVALID_ARGUMENT` that names the option
 */
export function parseCompression(value: unknown): NativeCompression {
  if (value === undefined || value === false) return undefined;
  if (value === true) return DEFAULTS;
  if (typeof value !== 'object' || value === null) {
    invalid('options.compression', 'true, false or { threshold, level, memory, windowBits }', value);
  }
  const {
    threshold = DEFAULTS.threshold,
    level = DEFAULTS.level,
    memory,
    windowBits = DEFAULTS.windowBits,
  } = readProperties(value, NAMES, 'options.compression');
  return {
    threshold: checkInteger(threshold, 'options.compression.threshold', 0, MAX_THRESHOLD, 'bytes'),
    level: checkInteger(level, 'options.compression.level', 1, 9, 'levels'),
    memory: parseMemory(memory),
    windowBits: checkInteger(windowBits, 'options.compression.windowBits', 9, 15, 'bits'),
  };
}

function parseMemory(value: unknown = DEFAULTS.memory): 'shared' | 'dedicated' {
  if (value === 'shared' || value === 'dedicated') return value;
  return invalid('options.compression.memory', "'shared' or 'dedicated'", value);
}
