// What handlers answer to the last messages of a client goes out before the goodbye, as `echo question | websocat` expects.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { send } from 'wsbroker';
import { closeFrame, frame, OPCODE, upgradeRaw } from './helpers/raw.mjs';
import { serve } from './helpers/serving.mjs';

test('answers to the last message of a client that ends at once come before the close frame', async (t) => {
  const server = serve(t, {
    async handleSocketMessage(data, socketId) {
      await new Promise((resolve) => setImmediate(resolve));
      send(socketId, `re: ${data}`);
    },
  });
  for (const ends of ['by a close frame', 'by the end of its stream']) {
    const client = await upgradeRaw(t, server);
    const question = frame(OPCODE.text, 'question');
    if (ends === 'by a close frame') client.write(Buffer.concat([question, closeFrame(1000)]));
    else client.socket.end(question);
    assert.equal((await client.frame()).payload.toString(), 're: question', ends);
    assert.equal((await client.frame()).opcode, OPCODE.close, ends);
  }
});
