/** How one limit of `options.limits` is read: off, `true` for its default, or its value. Off is 0 for the addon. */

import { checkInteger, invalid, readProperties } from './arguments.cjs';

/** 2^31 - 1: the largest capacity, and the longest interval in ms, that the engine counts exactly. */
const MAX_RATE = 2_147_483_647;

/** 2^32 - 1, more than a machine can have open or has memory for. */
const MAX_COUNT = 4_294_967_295;

/** A rate as the addon takes it; a capacity of 0 is no limit. */
export interface NativeRate {
  capacity: number;
  interval: number;
}

/**
 * Throws WsBrokerError `WSB_INVALID_ARGUMENT` that names the limit.
 *
 * @param name - as the caller knows it, for example `options.limits.connections`
 */
export type LimitParser<T> = (value: unknown, name: string) => T;

/**
 * @param standard - what `true` stands for
 * @param unit - what is counted, for messages
 */
export function count(standard: number, unit: string): LimitParser<number> {
  return limit(0, standard, (value, name) => {
    if (typeof value !== 'number') invalid(name, `true, or a whole number of ${unit} from 1 to ${MAX_COUNT}`, value);
    return checkInteger(value, name, 1, MAX_COUNT, unit);
  });
}

/**
 * @param standard - what `true` stands for
 * @param unit - what is counted, for messages
 */
export function rate(standard: NativeRate, unit: string): LimitParser<NativeRate> {
  return limit({ capacity: 0, interval: 0 }, standard, (value, name) => readRate(value, name, unit));
}

export function limit<T>(off: T, standard: T, parse: LimitParser<T>): LimitParser<T> {
  return (value, name) => {
    if (value === undefined || value === false) return off;
    return value === true ? standard : parse(value, name);
  };
}

/** The properties of a rate, and `others` that it may have beside them. */
export function readRate<K extends string = never>(
  value: unknown,
  name: string,
  unit: string,
  others: readonly K[] = [],
): NativeRate & Partial<Record<K, unknown>> {
  const properties = ['capacity', 'interval', ...others] as const;
  if (typeof value !== 'object' || value === null) {
    invalid(name, `true, or { ${properties.join(', ')} }: so many ${unit} at once, all back after so many ms`, value);
  }
  const given = readProperties<'capacity' | 'interval' | K>(value, properties, name);
  return {
    ...given,
    capacity: checkInteger(given.capacity, `${name}.capacity`, 1, MAX_RATE, unit),
    interval: checkInteger(given.interval, `${name}.interval`, 1, MAX_RATE, 'ms'),
  };
}
