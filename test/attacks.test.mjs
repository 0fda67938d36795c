// Hostile clients that speak raw bytes, a moment of each. What the attacker gets is what the list allows, the client
// beside it gets every echo, the server's memory stays within bounds, and nothing is left of it afterwards. `npm run
// attacks` takes longer and prints what this does not judge: round trips and memory.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fight } from './attacks/arena.mjs';
import { ATTACKS } from './attacks/attacks.mjs';

const TIMES = { quiet: 200, duration: 1500 };

/** What an attack may add to the server's resident memory, in MiB: some limits' worth of a worker's queue. */
const MEMORY = 96;

for (const [name, { expected, memory: most = MEMORY }] of Object.entries(ATTACKS)) {
  test(name, { skip: process.platform !== 'linux' && 'this reads /proc' }, async (t) => {
    const { outcome, during, memory, counts } = await fight(name, TIMES);
    t.diagnostic(`${JSON.stringify(outcome)}, ${(memory.peak - memory.resident) >> 20} MiB`);
    assert.deepEqual(
      Object.keys(outcome).filter((what) => !expected.includes(what)),
      [],
      JSON.stringify(outcome),
    );
    assert.ok(Object.keys(outcome).length > 0, 'the attack took place');
    assert.ok(during.length > 0, 'the neighbour was served');
    assert.ok(memory.peak - memory.resident < most << 20, `${memory.peak - memory.resident} bytes more`);
    const { connections, pendingRequests, opened, closed } = counts;
    assert.deepEqual({ connections, pendingRequests }, { connections: 1, pendingRequests: 0 }, 'the neighbour is left');
    assert.equal(opened - closed, 1, 'every socket of the attacker has had its close event');
  });
}
