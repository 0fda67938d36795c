// One attack, in a process of its own and behind everybody else where the processor is short: what is to be seen is
// what the attacked server does, not how two processes share a core. Arguments: the attack, the port, how long in ms.

import os from 'node:os';
import { ATTACKS } from './attacks.mjs';

os.setPriority(os.constants.priority.PRIORITY_LOW);
const [name, port, duration] = process.argv.slice(2);
const end = performance.now() + Number(duration);
const outcome = await ATTACKS[name].attack(Number(port), () => performance.now() > end);
process.send(outcome, () => process.exit());
