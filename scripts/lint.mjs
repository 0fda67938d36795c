// npm run lint    every format and lint check of both languages; any finding fails
// npm run format  mends what can be mended by itself

import { existsSync } from 'node:fs';
import path from 'node:path';
import { checkTools, ensureDependencies, main, ROOT, run, runBin, say } from './setup.mjs';

await main((args) => {
  checkTools();
  ensureDependencies();
  if (args.includes('--fix')) {
    runBin('@biomejs/biome', ['check', '--write']);
    run('cargo', ['fmt', '--all']);
    return;
  }
  say('biome: format, imports and lint of TypeScript, JavaScript, JSON and CSS');
  runBin('@biomejs/biome', ['check', '--error-on-warnings']);
  say('tsc: types');
  runBin('typescript', ['--project', 'tsconfig.json', '--noEmit']);
  say('rustfmt');
  run('cargo', ['fmt', '--all', '--check']);
  say('clippy, warnings denied');
  run('cargo', ['clippy', '--workspace', '--all-targets', ...lockedIfCommitted(), '--', '-D', 'warnings']);
});

function lockedIfCommitted() {
  return existsSync(path.join(ROOT, 'Cargo.lock')) ? ['--locked'] : [];
}
