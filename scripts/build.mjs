// npm run build | debug | cross [-- cargo arguments]
//
//   (no option)  debug build of the addon        --release   optimised build
//   --cross      link with cargo-zigbuild        --lib-only  compile the TypeScript only

import { checkTools, ensureAddon, ensureDependencies, ensureLib, main } from './setup.mjs';

const OWN_OPTIONS = new Set(['--release', '--cross', '--lib-only']);

await main(async (args) => {
  const has = (option) => args.includes(option);
  ensureDependencies();
  if (!has('--lib-only')) {
    checkTools();
    await ensureAddon({
      release: has('--release'),
      cross: has('--cross'),
      cargoArgs: args.filter((arg) => !OWN_OPTIONS.has(arg)),
    });
  }
  ensureLib();
});
