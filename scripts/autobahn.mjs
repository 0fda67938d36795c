// npm run autobahn [-- options]
//
// Runs the Autobahn TestSuite against the built package, which echoes through a handler in JavaScript, and compares what
// comes out with test/autobahn/results.json. Any difference fails, and so does a case that is not OK or INFORMATIONAL.
//
//   --write           writes the results to that file instead of comparing
//   --cases 1.*,9.1.2 runs these only
//   --quick           leaves out the cases of compression with large messages, which take most of the time
//   --dedicated       with the option compression: { memory: 'dedicated' }, otherwise with compression: true
//   --if-possible     where the suite cannot run, says why and succeeds
//
// The suite needs Python 2.7, see autobahn-suite.mjs. Its reports, a page for each case, are in target/autobahn/reports.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { autobahnTable, differences, formatResults, RESULTS_FILE, readResults } from './autobahn-results.mjs';
import { AutobahnSuite, CannotRun } from './autobahn-suite.mjs';
import { ensureAll, main, ROOT, StepFailed, say } from './setup.mjs';

/**
 * What `--quick` leaves out. Sections 12 and 13 send 1000 messages in each case; the first four of each kind are those up
 * to 1 KiB, the eleventh has fragments.
 */
const SLOW = /^1[23]\.\d+\.(?!([1-4]|11)$)/;

const SERVER = path.join(ROOT, 'scripts/autobahn-server.mjs');

await main(async (args) => {
  const options = parse(args);
  const suite = findSuite(options);
  if (suite === undefined) return;
  await ensureAll();
  const asked = suite.resolve(options.patterns).filter((id) => !(options.isQuick && SLOW.test(id)));
  if (asked.length === 0) throw new StepFailed(`no case matches ${options.patterns.join(' ')}`);

  const server = await startServer(options);
  let cases;
  try {
    say(`Autobahn TestSuite ${suite.version}: ${asked.length} cases`);
    cases = await suite.run(server.url, asked);
  } finally {
    await server.stop();
  }
  const results = { ...circumstances(suite), cases };
  console.log(`\n${autobahnTable(results)}\n`);
  if (options.isWriting) {
    writeFileSync(RESULTS_FILE, formatResults(results));
    say(`${path.relative(ROOT, RESULTS_FILE)} written`);
  }
  judge(results, asked);
});

function parse(args) {
  const options = { patterns: ['*'], isQuick: false, isDedicated: false, isWriting: false, ifPossible: false };
  for (let at = 0; at < args.length; at += 1) {
    if (args[at] === '--write') options.isWriting = true;
    else if (args[at] === '--quick') options.isQuick = true;
    else if (args[at] === '--dedicated') options.isDedicated = true;
    else if (args[at] === '--if-possible') options.ifPossible = true;
    else if (args[at] === '--cases' && args[at + 1]) options.patterns = args[++at].split(',');
    else throw new StepFailed(`unknown option ${args[at]}; the file scripts/autobahn.mjs begins with those there are`);
  }
  if (options.isWriting && (options.isQuick || options.patterns[0] !== '*')) {
    throw new StepFailed('--write is for all cases');
  }
  return options;
}

function findSuite({ ifPossible }) {
  try {
    return AutobahnSuite.install();
  } catch (error) {
    if (!(error instanceof CannotRun)) throw error;
    if (!ifPossible) throw new StepFailed(error.message);
    say(`skipped: ${error.message}`);
    return undefined;
  }
}

/** What the results were got with. */
function circumstances(suite) {
  const { version } = JSON.parse(readFileSync(path.join(ROOT, 'package.json'), 'utf8'));
  return {
    suite: `Autobahn TestSuite ${suite.version}`,
    python: suite.pythonVersion,
    wsbroker: version,
    node: process.versions.node,
    system: `${os.type()} ${os.arch()}`,
    date: new Date().toISOString().slice(0, 10),
  };
}

/** The echo server in a process of its own: `{ url, stop }`. It ends with its standard input. */
async function startServer({ isDedicated }) {
  const child = spawn(process.execPath, [SERVER, isDedicated ? 'dedicated' : 'shared'], {
    cwd: ROOT,
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const ended = once(child, 'close');
  const url = await Promise.race([
    once(createInterface(child.stdout), 'line').then(([line]) => line),
    ended.then(([code]) => {
      throw new StepFailed(`the echo server ended with exit code ${code}`);
    }),
  ]);
  const stop = async () => {
    child.stdin.end();
    const [code, signal] = await ended;
    if (code !== 0) throw new StepFailed(`the echo server ended with ${signal ?? `exit code ${code}`}`);
  };
  return { url, stop };
}

function judge(results, asked) {
  const known = existsSync(RESULTS_FILE) ? readResults().cases : {};
  const findings = differences(known, results.cases, asked);
  if (findings.length === 0) {
    say('every case is OK or informational, and as it was before');
    return;
  }
  for (const finding of findings) console.error(finding);
  throw new StepFailed(`${findings.length} findings; target/autobahn/reports/*/index.html have the details`);
}
