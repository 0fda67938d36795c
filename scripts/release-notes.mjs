// node scripts/release-notes.mjs <version>: prints what CHANGELOG.md says about it.

import { readFileSync } from 'node:fs';
import path from 'node:path';
import { main, ROOT, StepFailed } from './setup.mjs';

await main(([version]) => {
  const sections = readFileSync(path.join(ROOT, 'CHANGELOG.md'), 'utf8').split(/^## /m);
  const section = sections.find((text) => text.split(/\s/, 1)[0] === version);
  if (!section) throw new StepFailed(`CHANGELOG.md has no heading "## ${version}"`);
  console.log(section.slice(section.indexOf('\n')).trim());
});
