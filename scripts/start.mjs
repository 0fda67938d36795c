// npm start: sets the checkout up and runs the chat example in this process, so that Ctrl-C reaches it.

import { ensureAll, main } from './setup.mjs';

await main(async () => {
  await ensureAll();
  await import('../example/chat/server.mjs');
});
