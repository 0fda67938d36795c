/** Where the messages of a socket go: checked, and as the addon takes it. */

import { checkChannelName, invalid, readProperties } from './arguments.cjs';
import type { NativeData } from './native.cjs';

/** A number for each way to route. */
const ROUTE = { handler: 0, echo: 1, relay: 2, relayAndEcho: 3 };

/** A route as the addon takes it. */
export interface NativeRoute {
  kind: number;
  /** Where to relay; otherwise empty, which is no channel. */
  channel: NativeData;
}

/** The route of every socket for which nothing else is said. */
export const TO_HANDLER: NativeRoute = { kind: ROUTE.handler, channel: '' };
const ECHO: NativeRoute = { kind: ROUTE.echo, channel: '' };

/**
 * @throws WsBrokerError `WSB_INVALID_ARGUMENT` that names what is wrong
 */
export function checkRoute(value: unknown, name = 'route'): NativeRoute {
  if (value === 'handler') return TO_HANDLER;
  if (value === 'echo') return ECHO;
  if (typeof value !== 'object' || value === null) {
    invalid(name, "'handler', 'echo' or { relay: channel, echo?: boolean }", value);
  }
  // A misspelt echo would be none.
  const { relay, echo = false } = readProperties(value, ['relay', 'echo'], name);
  if (typeof echo !== 'boolean') invalid(`${name}.echo`, 'true or false', echo);
  return { kind: echo ? ROUTE.relayAndEcho : ROUTE.relay, channel: checkChannelName(relay, `${name}.relay`) };
}

/** The route of an upgrade decision. */
export function checkDecidedRoute(value: unknown): NativeRoute {
  return value === undefined ? TO_HANDLER : checkRoute(value, 'decision.route');
}
