// The programs of the README are programs: strict TypeScript takes them as they stand, and the first of them does what it says.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile, symlink } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import WebSocket from 'ws';
import * as wsbroker from 'wsbroker';
import {
  compileStrictly,
  lendNodeTypes,
  ROOT,
  remove,
  succeed,
  temporaryFolder,
  writeProgram,
} from './helpers/package.mjs';
import { Inbox, within } from './helpers/waiting.mjs';

let project;
/** Its programs, in their order. */
let programs;

before(async () => {
  project = await temporaryFolder('readme');
  await lendNodeTypes(project);
  await symlink(ROOT, path.join(project, 'node_modules/wsbroker'), 'junction');
  const readme = path.join(project, 'README.md');
  await writeProgram(project, 'README.md', await readFile(path.join(ROOT, 'README.md'), 'utf8'));
  // As it is generated now: examples come from the source.
  await succeed(process.execPath, ['scripts/docs.mjs', '--readme', readme], { cwd: ROOT });
  const text = await readFile(readme, 'utf8');
  programs = [...text.matchAll(/^```js\n([\s\S]*?)^```$/gm)].map(([, program]) => program);
  assert.ok(programs.length >= 8, `only ${programs.length} are there`);
});

after(() => remove(project));

/** A part of a program with what it takes for given: names that this package exports, and a socket. */
function whole(program) {
  if (/^import /m.test(program)) return program;
  const names = Object.keys(wsbroker).filter((name) => new RegExp(`\\b${name}\\b`).test(program));
  const socketId = /\bsocketId\b/.test(program) ? 'const socketId = 1;\n' : '';
  return `import { ${names.join(', ')} } from 'wsbroker';\n${socketId}${program}`;
}

/** What the compiler has to say about a folder of programs. */
async function compile(name, files) {
  const folder = path.join(project, name);
  await mkdir(folder);
  for (const [file, text] of Object.entries(files)) await writeProgram(folder, file, text);
  return compileStrictly(folder, { allowJs: true, checkJs: true });
}

describe('every program of the README', () => {
  for (const [language, extension] of [
    ['strict TypeScript', 'mts'],
    ['JavaScript that is checked', 'mjs'],
  ]) {
    it(`compiles as ${language}`, async () => {
      const files = programs.map((program, index) => [`program-${index}.${extension}`, whole(program)]);
      assert.equal(await compile(extension, Object.fromEntries(files)), '');
    });
  }
});

describe('the quick start', () => {
  it('lets everybody in the lobby read what one says, and ends by Ctrl-C', async (t) => {
    const port = "'127.0.0.1:3000'";
    const [program] = programs;
    assert.ok(program.includes(port) && program.startsWith('import '));
    await writeProgram(project, 'server.mjs', program.replace(port, "'127.0.0.1:0'"));
    const server = spawn(process.execPath, ['server.mjs'], { cwd: project, stdio: ['ignore', 'pipe', 'inherit'] });
    t.after(() => server.kill('SIGKILL'));
    const exited = once(server, 'exit');
    const [line] = await within(once(server.stdout.setEncoding('utf8'), 'data'), 'the address');
    const url = line.trim();
    assert.match(url, /^http:\/\/127\.0\.0\.1:\d+$/);

    const page = await fetch(url);
    assert.match(await page.text(), /^<!doctype html>/);
    assert.equal(page.headers.get('content-type'), 'text/html; charset=utf-8');
    assert.equal((await fetch(`${url}/other`)).status, 404);

    const clients = [];
    for (let count = 0; count < 2; count += 1) {
      const client = new WebSocket(url.replace('http', 'ws'));
      t.after(() => client.terminate());
      client.inbox = new Inbox();
      client.on('message', (data) => client.inbox.push(data.toString()));
      await within(once(client, 'open'), 'a client opens');
      clients.push(client);
    }
    clients[0].send('hello');
    for (const { inbox } of clients) assert.match(await inbox.next(), /^\d+: hello$/);

    const closed = clients.map((client) => once(client, 'close'));
    server.kill('SIGINT');
    for (const [code] of await within(Promise.all(closed), 'the goodbyes')) assert.equal(code, 1001);
    assert.deepEqual(await within(exited, 'the end'), [0, null]);
  });
});
