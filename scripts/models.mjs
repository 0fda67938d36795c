// npm run models [-- names]
//
// Runs the models of what threads do together, or those with such a part in their names: how a shard is woken, a worker's
// queue, channels that come and go, the room for what waits for a socket. loom tries every order of their steps, see
// crates/broker/src/models.rs.

import path from 'node:path';
import { checkTools, main, ROOT, run } from './setup.mjs';

await main((names) => {
  checkTools();
  const target = path.join(ROOT, 'target/models');
  run(
    'cargo',
    [
      'test',
      '--package',
      'wsbroker-engine',
      '--lib',
      '--target-dir',
      target,
      ...(names.length > 0 ? names : ['models::']),
    ],
    {
      env: {
        ...process.env,
        RUSTFLAGS: `${process.env.RUSTFLAGS ?? ''} --cfg wsbroker_loom`,
        CARGO_PROFILE_TEST_OPT_LEVEL: '1',
      },
    },
  );
});
