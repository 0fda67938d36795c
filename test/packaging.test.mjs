// The package as its users get it: packed, installed into an empty folder, loaded in every way there is.

import assert from 'node:assert/strict';
import { readFile, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import {
  execute,
  installInto,
  lendNodeTypes,
  listPlatformFolders,
  PLATFORM,
  packAll,
  ROOT,
  readJson,
  remove,
  succeed,
  temporaryFolder,
  writeProgram,
} from './helpers/package.mjs';

let scratch;
let packed;

before(async () => {
  scratch = await temporaryFolder('packaging');
  packed = await packAll(scratch);
});

after(() => remove(scratch));

describe('the tarballs', () => {
  it('hold what is needed and nothing else', () => {
    const sources = packed.main.files.filter((file) => file.startsWith('lib/'));
    const others = packed.main.files.filter((file) => !file.startsWith('lib/'));
    assert.deepEqual(others, ['CHANGELOG.md', 'LICENSE', 'README.md', 'package.json']);
    for (const file of sources) assert.match(file, /^lib\/[\w/-]+\.(cjs|mjs|d\.cts|d\.mts)$/);
    for (const entry of ['index.cjs', 'index.mjs', 'index.d.cts', 'index.d.mts', 'load.cjs']) {
      assert.ok(sources.includes(`lib/${entry}`), `lib/${entry} is missing`);
    }
    assert.deepEqual(packed.platform.files, ['LICENSE', 'README.md', 'index.node', 'package.json']);
  });

  it('depend on every platform package in exactly this version, and leave the checkout as it was', async () => {
    const { version, neon } = await readJson('package.json');
    const project = await installInto(
      path.join(scratch, 'manifest'),
      [packed.main, packed.dependency],
      ['--omit=optional'],
    );
    const installed = JSON.parse(await readFile(path.join(project, 'node_modules/wsbroker/package.json'), 'utf8'));
    const expected = Object.keys(neon.platforms).map((platform) => [`@wsbroker/${platform}`, version]);
    assert.deepEqual(installed.optionalDependencies, Object.fromEntries(expected));
    assert.equal(packed.manifestAfter, await readFile(path.join(ROOT, 'package.json'), 'utf8'));
  });
});

describe('installed into an empty folder', () => {
  let project;
  const run = (file, options) => execute(process.execPath, [file], { cwd: project, ...options });

  before(async () => {
    project = await installInto(path.join(scratch, 'project'), [packed.main, packed.platform, packed.dependency]);
  });

  it('serves a request from CommonJS', async () => {
    const program = await writeProgram(project, 'serve.cjs', `const wsbroker = require('wsbroker');\n${SERVE}`);
    assert.deepEqual(await run(program), { code: 0, stdout: '200 hello\n', stderr: '' });
  });

  it('serves a request from an ES module', async () => {
    const program = await writeProgram(project, 'serve.mjs', `import * as wsbroker from 'wsbroker';\n${SERVE}`);
    assert.deepEqual(await run(program), { code: 0, stdout: '200 hello\n', stderr: '' });
  });

  it('is one instance for import and require in one process', async () => {
    const program = await writeProgram(project, 'mixed.mjs', MIXED);
    assert.deepEqual(await run(program), { code: 0, stdout: 'one instance\n', stderr: '' });
  });

  for (const [module, moduleResolution] of [
    ['node16', 'node16'],
    ['esnext', 'bundler'],
  ]) {
    it(`has types that resolve with moduleResolution ${moduleResolution}`, async () => {
      const folder = path.join(scratch, `types-${moduleResolution}`);
      await installInto(folder, [packed.main, packed.platform, packed.dependency]);
      await lendNodeTypes(folder);
      await writeProgram(folder, 'uses.mts', TYPED);
      if (moduleResolution === 'node16') await writeProgram(folder, 'requires.cts', TYPED_REQUIRE);
      const compilerOptions = {
        module,
        moduleResolution,
        target: 'es2022',
        strict: true,
        noEmit: true,
        types: ['node'],
      };
      await writeProgram(folder, 'tsconfig.json', JSON.stringify({ compilerOptions }));
      await succeed(process.execPath, [path.join(ROOT, 'node_modules/typescript/bin/tsc'), '-p', '.'], { cwd: folder });
    });
  }
});

describe('an addon that cannot be loaded', () => {
  let project;
  const load = async () => {
    const { code, stdout, stderr } = await execute(process.execPath, ['load.cjs'], { cwd: project });
    assert.equal(code, 0, stderr);
    return JSON.parse(stdout);
  };

  beforeEach(async () => {
    project = path.join(scratch, 'broken');
    await remove(project);
    await installInto(project, [packed.main, packed.platform, packed.dependency]);
    await writeProgram(project, 'load.cjs', LOAD);
  });

  it('for want of the platform package: names the platform, the package and the npm option', async () => {
    await rm(path.join(project, 'node_modules/@wsbroker'), { recursive: true });
    const { code, message, cause } = await load();
    assert.equal(code, 'WSB_LOAD_FAILED');
    assert.match(message, new RegExp(`for ${PLATFORM} from @wsbroker/${PLATFORM}: Cannot find module`));
    assert.match(message, /--omit=optional/);
    assert.match(message, new RegExp(`npm install @wsbroker/${PLATFORM}`));
    assert.match(cause, /Cannot find module/);
  });

  it('for a damaged binary: repeats what the system said', async () => {
    await writeFile(path.join(project, `node_modules/@wsbroker/${PLATFORM}/index.node`), 'not a binary '.repeat(1000));
    const { code, message, cause } = await load();
    assert.equal(code, 'WSB_LOAD_FAILED');
    assert.ok(cause.length > 0 && message.includes(cause), `${message} does not repeat ${cause}`);
    if (process.platform === 'linux') assert.match(message, /invalid ELF header/);
    assert.match(message, /install again/);
  });

  it('for a damaged local build: says so and does not take the published binary instead', async () => {
    await writeFile(path.join(project, 'node_modules/wsbroker/index.node'), 'not a binary '.repeat(1000));
    const { code, message } = await load();
    assert.equal(code, 'WSB_LOAD_FAILED');
    assert.match(message, /result of a local build\. Run `npm run build` again/);
  });

  for (const [what, patch] of [
    ['a processor', `Object.defineProperty(process, 'arch', { value: 's390x' });`],
    ['a system', `Object.defineProperty(process, 'platform', { value: 'sunos' });`],
  ]) {
    it(`for ${what} without a prebuilt binary: lists those there are`, async () => {
      await writeProgram(project, 'load.cjs', `${patch}\n${LOAD}`);
      const { code, message } = await load();
      assert.equal(code, 'WSB_LOAD_FAILED');
      assert.match(message, /no prebuilt binary for (\w+-s390x|sunos-\w+)\. There is one for linux-x64-gnu, /);
      assert.match(message, /npm run build/);
    });
  }
});

describe('the parts of a release', () => {
  it('have one version', async () => {
    const { version } = await readJson('package.json');
    const lock = await readJson('package-lock.json');
    const cargo = await readFile(path.join(ROOT, 'Cargo.toml'), 'utf8');
    const changelog = await readFile(path.join(ROOT, 'CHANGELOG.md'), 'utf8');
    assert.equal(lock.version, version);
    assert.equal(lock.packages[''].version, version);
    assert.equal(/^\[workspace\.package\][^[]*?^version\s*=\s*"([^"]*)"/m.exec(cargo)?.[1], version);
    assert.match(changelog, new RegExp(`^## ${version.replaceAll('.', '\\.')}\\b`, 'm'));
    for (const platform of await listPlatformFolders()) {
      assert.equal((await readJson(`platforms/${platform}/package.json`)).version, version, platform);
    }
  });

  it('name the same platforms', async () => {
    const { neon } = await readJson('package.json');
    const platforms = Object.keys(neon.platforms).sort();
    assert.deepEqual(await listPlatformFolders(), platforms);
    const loader = await readFile(path.join(ROOT, 'src/load.cts'), 'utf8');
    const loaded = [...loader.matchAll(/'([\w-]+)': \(\) => require\('@wsbroker\/([\w-]+)'\)/g)];
    assert.deepEqual(loaded.map(([, key]) => key).sort(), platforms);
    assert.deepEqual(loaded.map(([, , name]) => name).sort(), platforms);
    const workflow = await readFile(path.join(ROOT, '.github/workflows/build.yml'), 'utf8');
    const built = [...workflow.matchAll(/platform: ([\w-]+),/g)].map(([, platform]) => platform);
    assert.deepEqual(built.sort(), platforms);
  });

  it('tell npm which system each binary is for', async () => {
    const main = await readJson('package.json');
    const license = await readFile(path.join(ROOT, 'LICENSE'), 'utf8');
    for (const [platform, target] of Object.entries(main.neon.platforms)) {
      const manifest = await readJson(`platforms/${platform}/package.json`);
      const [os, cpu, abi] = platform.split('-');
      const libc = { gnu: ['glibc'], musl: ['musl'] }[abi];
      assert.deepEqual(
        [manifest.name, manifest.os, manifest.cpu, manifest.libc, manifest.neon.rust],
        [`@wsbroker/${platform}`, [os], [cpu], libc, target],
      );
      assert.deepEqual([manifest.main, manifest.files], ['index.node', ['index.node']]);
      assert.deepEqual([manifest.license, manifest.engines], [main.license, main.engines]);
      assert.equal(await readFile(path.join(ROOT, 'platforms', platform, 'LICENSE'), 'utf8'), license);
    }
  });

  it('lock dependencies by hash and not by where they were fetched from', async () => {
    const lock = await readJson('package-lock.json');
    for (const [name, entry] of Object.entries(lock.packages)) {
      if (name === '') continue;
      assert.equal(entry.resolved, undefined, name);
      assert.match(entry.integrity, /^sha512-/, name);
    }
  });
});

/** Serves one request to itself and must then end by itself. */
const SERVE = `
wsbroker.registerWorkerThread({
  handleHttpRequest: (request) => ({ body: request.path.slice(1) }),
});
const server = wsbroker.start({ bind: '127.0.0.1:0' });
fetch(\`http://127.0.0.1:\${server.address.port}/hello\`, { headers: { connection: 'close' } })
  .then(async (response) => console.log(response.status, await response.text()))
  .then(() => server.stop());
`;

const MIXED = `
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import * as imported from 'wsbroker';
const required = createRequire(import.meta.url)('wsbroker');
for (const [name, value] of Object.entries(required)) assert.equal(imported[name], value, name);
const interop = ['__esModule', 'default', 'module.exports'];
const names = (module) => Object.keys(module).filter((name) => !interop.includes(name)).sort();
assert.deepEqual(names(imported), names(required));
// One broker too: a worker registered through one door lets the other start, where no worker would throw.
assert.throws(() => required.start({ bind: '127.0.0.1:0' }), { code: 'WSB_NO_WORKER' });
const worker = imported.registerWorkerThread({});
const server = required.start({ bind: '127.0.0.1:0' });
assert.deepEqual(await server.stop(), { closed: 0, forced: 0 });
worker.unregister();
console.log('one instance');
`;

const LOAD = `
try {
  require('wsbroker').connectionCount();
  console.log(JSON.stringify({ message: 'loaded' }));
} catch (error) {
  console.log(JSON.stringify({ code: error.code, message: error.message, cause: error.cause?.message }));
}
`;

const TYPED = `
import { registerWorkerThread, send, start, type HttpRequest, type HttpResponse, type Server } from 'wsbroker';

class Worker {
  handleHttpRequest(request: HttpRequest): HttpResponse {
    return { status: 200, headers: { 'content-type': 'text/plain' }, body: request.path };
  }
  handleSocketMessage(data: string | Buffer, socketId: number): void {
    const queued: boolean = send(socketId, data);
    if (!queued) console.log(socketId);
  }
}

const registration: { unregister(): void } = registerWorkerThread(new Worker());
const server: Server = start({ bind: '127.0.0.1:0', maxMessageSize: 1024, slowConsumer: 'drop', heartbeat: false });
const { closed }: { closed: number } = await server.stop({ timeout: 1000 });
console.log(closed.toFixed());
registration.unregister();

// The types say something: what they forbid is refused.
// @ts-expect-error
start({ bind: 3000 });
// @ts-expect-error
start({ bind: '127.0.0.1:0', slowConsumer: 'wait' });
// @ts-expect-error
send('1', 'hello');
`;

const TYPED_REQUIRE = `
import wsbroker = require('wsbroker');
const count: number = wsbroker.sendToChannel('news', 'hello', { except: 1 });
console.log(count, wsbroker.subscribers('news'));
`;
