/** Fields of what handlers return that nobody reads: usually misspelt, and told once each. */

import { nobodyReads } from './arguments.cjs';
import { WsBrokerError } from './errors.cjs';
import { RESPONSE } from './response.cjs';

/** An application that makes names of what its clients send has an end of it here. */
const MOST = 64;

/** What has been told to one registration. */
export class UnreadFields {
  readonly #told = new Set<string>();

  /** The errors of those fields that have not been told yet. */
  errors(handler: string, fields: readonly string[]): WsBrokerError[] {
    const errors: WsBrokerError[] = [];
    for (const field of fields) {
      const place = `${handler}.${field}`;
      if (this.#told.has(place) || this.#told.size >= MOST) continue;
      this.#told.add(place);
      const text = `what ${handler} returned was sent without ${JSON.stringify(field)}: ${nobodyReads(field, RESPONSE)}`;
      errors.push(new WsBrokerError('WSB_INVALID_ARGUMENT', text));
    }
    return errors;
  }
}
