/** The options of `start` and `stop`, parsed once: unknown names, wrong types and senseless values end here. */

import { isMainThread } from 'node:worker_threads';
import { checkCloseCode, checkCloseReason, checkInteger, invalid, readProperties } from './arguments.cjs';
import { parseProxyProtocol, parseTrustProxy } from './clients.cjs';
import { parseCompression } from './compression.cjs';
import { parseOrigins, parseProtocols } from './handshake.cjs';
import { parseLimits } from './limits.cjs';
import type { NativeStartOptions } from './native.cjs';
import type { StartOptions, StopOptions } from './types.cjs';

/** V8's longest string on 64-bit systems, 2^29 - 24: what is longer could not be handed over as text. */
const MAX_PAYLOAD = 536_870_888;

/** 2^31 - 1 ms are 24 days; longer timers overflow in JavaScript as well. */
const MAX_TIME = 2_147_483_647;

/** A request's id tells its I/O thread in eight bits. */
const MAX_IO_THREADS = 256;

interface Limit {
  /** Used when the option is left out. The same values stand in the documentation of `StartOptions`. */
  default: number;
  min: number;
  max: number;
  unit: 'bytes' | 'headers' | 'ms';
}

type NumericOption = Exclude<
  {
    [K in keyof StartOptions]-?: NonNullable<StartOptions[K]> extends number ? K : never;
  }[keyof StartOptions],
  'ioThreads' | 'handlerTimeout' | 'minBodyRate'
>;

const NUMERIC_OPTIONS: Readonly<Record<NumericOption, Limit>> = {
  maxMessageSize: { default: 1_048_576, min: 1, max: MAX_PAYLOAD, unit: 'bytes' },
  maxBodySize: { default: 10_485_760, min: 0, max: MAX_PAYLOAD, unit: 'bytes' },
  maxHeaderSize: { default: 32_768, min: 256, max: 1_048_576, unit: 'bytes' },
  maxHeaders: { default: 100, min: 1, max: 1000, unit: 'headers' },
  maxBackpressure: { default: 1_048_576, min: 1, max: Number.MAX_SAFE_INTEGER, unit: 'bytes' },
  headerTimeout: { default: 10_000, min: 1, max: MAX_TIME, unit: 'ms' },
  bodyTimeout: { default: 30_000, min: 1, max: MAX_TIME, unit: 'ms' },
  requestTimeout: { default: 30_000, min: 1, max: MAX_TIME, unit: 'ms' },
  writeTimeout: { default: 30_000, min: 1, max: MAX_TIME, unit: 'ms' },
  keepAliveTimeout: { default: 65_000, min: 1, max: MAX_TIME, unit: 'ms' },
  closeTimeout: { default: 5_000, min: 1, max: MAX_TIME, unit: 'ms' },
};

/** Bytes per second. */
const DEFAULT_MIN_BODY_RATE = 240;
const MAX_BODY_RATE = 1_073_741_824;

const DEFAULT_HEARTBEAT = { interval: 45_000, timeout: 120_000 };
const HEARTBEAT_OPTIONS = Object.keys(DEFAULT_HEARTBEAT) as (keyof typeof DEFAULT_HEARTBEAT)[];

const START_OPTIONS: readonly (keyof StartOptions)[] = [
  'bind',
  ...(Object.keys(NUMERIC_OPTIONS) as NumericOption[]),
  'minBodyRate',
  'protocols',
  'origins',
  'compression',
  'heartbeat',
  'slowConsumer',
  'handlerTimeout',
  'limits',
  'trustProxy',
  'proxyProtocol',
  'ioThreads',
];

const DEFAULT_STOP = { timeout: 10_000, spread: 0, code: 1001, reason: '' };
const STOP_OPTIONS = Object.keys(DEFAULT_STOP) as (keyof StopOptions)[];

/**
 * @throws WsBrokerError `WSB_INVALID_ARGUMENT` that names the option
 */
export function parseStartOptions(value: unknown): NativeStartOptions {
  const options = readProperties(value, START_OPTIONS, 'options');
  if (typeof options.bind !== 'string') {
    invalid('options.bind', "an address such as '127.0.0.1:3000', ':3000' or 'unix:/run/app.sock'", options.bind);
  }
  return {
    bind: options.bind,
    ...parseNumericOptions(options),
    minBodyRate: parseMinBodyRate(options.minBodyRate),
    protocols: parseProtocols(options.protocols),
    ...parseOrigins(options.origins),
    compression: parseCompression(options.compression),
    ...parseHeartbeat(options.heartbeat),
    dropsForSlowConsumers: parseSlowConsumer(options.slowConsumer) === 'drop',
    handlerTimeout: parseHandlerTimeout(options.handlerTimeout),
    limits: parseLimits(options.limits),
    trustProxy: parseTrustProxy(options.trustProxy),
    proxyProtocol: parseProxyProtocol(options.proxyProtocol),
    ioThreads: parseIoThreads(options.ioThreads),
    isMainThread,
  };
}

/**
 * @throws WsBrokerError `WSB_INVALID_ARGUMENT` that names the option
 */
export function parseStopOptions(value: unknown): Required<StopOptions> {
  if (value === undefined) return DEFAULT_STOP;
  const {
    timeout = DEFAULT_STOP.timeout,
    spread = DEFAULT_STOP.spread,
    code = DEFAULT_STOP.code,
    reason = DEFAULT_STOP.reason,
  } = readProperties(value, STOP_OPTIONS, 'options');
  const checkedTimeout = checkInteger(timeout, 'options.timeout', 0, MAX_TIME, 'ms');
  const checkedSpread = checkInteger(spread, 'options.spread', 0, MAX_TIME, 'ms');
  if (checkedSpread > checkedTimeout) {
    invalid('options.spread', `at most the timeout of ${checkedTimeout} ms, after which all are cut`, spread);
  }
  return {
    timeout: checkedTimeout,
    spread: checkedSpread,
    code: checkCloseCode(code, 'options.code'),
    reason: checkCloseReason(reason, 'options.reason'),
  };
}

function parseNumericOptions(options: Partial<Record<NumericOption, unknown>>): Record<NumericOption, number> {
  const parsed = {} as Record<NumericOption, number>;
  for (const [name, limit] of Object.entries(NUMERIC_OPTIONS) as [NumericOption, Limit][]) {
    const { [name]: value = limit.default } = options;
    parsed[name] = checkInteger(value, `options.${name}`, limit.min, limit.max, limit.unit);
  }
  return parsed;
}

function parseMinBodyRate(value: unknown = DEFAULT_MIN_BODY_RATE): number {
  return parseOrOff(value, 'options.minBodyRate', MAX_BODY_RATE, 'bytes per second');
}

function parseHeartbeat(value: unknown): Pick<NativeStartOptions, 'heartbeatInterval' | 'heartbeatTimeout'> {
  if (value === false) return { heartbeatInterval: 0, heartbeatTimeout: 0 };
  if (value !== undefined && (typeof value !== 'object' || value === null)) {
    invalid('options.heartbeat', 'false or { interval, timeout } in ms', value);
  }
  const { interval = DEFAULT_HEARTBEAT.interval, timeout = DEFAULT_HEARTBEAT.timeout } =
    value === undefined ? DEFAULT_HEARTBEAT : readProperties(value, HEARTBEAT_OPTIONS, 'options.heartbeat');
  const heartbeatInterval = checkInteger(interval, 'options.heartbeat.interval', 1, MAX_TIME, 'ms');
  const heartbeatTimeout = checkInteger(timeout, 'options.heartbeat.timeout', 1, MAX_TIME, 'ms');
  if (heartbeatTimeout <= heartbeatInterval) {
    const expected = `a time longer than the interval of ${heartbeatInterval} ms, so that a ping can be answered`;
    invalid('options.heartbeat.timeout', expected, heartbeatTimeout);
  }
  return { heartbeatInterval, heartbeatTimeout };
}

function parseSlowConsumer(value: unknown): 'close' | 'drop' {
  if (value === undefined) return 'close';
  if (value === 'close' || value === 'drop') return value;
  return invalid('options.slowConsumer', "'close' or 'drop'", value);
}

function parseHandlerTimeout(value: unknown = false): number {
  return parseOrOff(value, 'options.handlerTimeout', MAX_TIME, 'ms');
}

/** What `false` turns off: then it is 0, which is no value of the option. */
function parseOrOff(value: unknown, name: string, max: number, unit: string): number {
  if (value === false) return 0;
  if (typeof value !== 'number') invalid(name, `false, or a whole number of ${unit} from 1 to ${max}`, value);
  return checkInteger(value, name, 1, max, unit);
}

/** 0 leaves the number of threads to the environment variable or the machine. */
function parseIoThreads(value: unknown): number {
  if (value === undefined) return 0;
  return checkInteger(value, 'options.ioThreads', 1, MAX_IO_THREADS, 'threads');
}
