// Reads the close codes where the engine has them, so that the README cannot tell other ones.

import { readFileSync } from 'node:fs';
import path from 'node:path';
import { cell, code, table } from './api-reference.mjs';
import { ROOT } from './setup.mjs';

const SOURCE = 'crates/broker/src/codec/close.rs';

export function closeCodesTable() {
  const rust = readFileSync(path.join(ROOT, SOURCE), 'utf8');
  const numbers = new Map(
    [...rust.matchAll(/pub const (\w+): u16 = (\d+);/g)].map(([, name, number]) => [name, number]),
  );
  const rows = [...rust.matchAll(/CloseCode \{ code: (\w+), name: "([^"]*)", text: "([^"]*)" \}/g)];
  // A row in another shape must not be left out in silence.
  const begun = rust.match(/CloseCode \{\s*code:/g)?.length ?? 0;
  if (rows.length === 0 || rows.length !== begun)
    throw new Error(`${SOURCE}: ${rows.length} of ${begun} rows understood`);
  return table(
    ['Code', 'Name', 'When'],
    rows.map(([, constant, name, text]) => [code(numbers.get(constant)), cell(name), cell(text)]),
  );
}
