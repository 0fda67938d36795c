// The Autobahn TestSuite: where its Python is, its installation in target/autobahn, a run of its fuzzing client.
//
// The suite is a package of PyPI for CPython 2.7, which no current distribution carries. pyenv builds one
// (`pyenv install 2.7.18`), Debian 10 and Ubuntu 22.04 have the packages python2.7 and python2.7-dev.

import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { ROOT, run, StepFailed, say } from './setup.mjs';

const SUITE_VERSION = '25.10.1';

/** The last releases for Python 2.7, for a Python without pip. */
const BOOTSTRAP = ['pip==20.3.4', 'setuptools==44.1.1', 'wheel==0.37.1'];

const FOLDER = path.join(ROOT, 'target', 'autobahn');
const REPORTS = path.join(FOLDER, 'reports');
const AGENT = 'wsbroker';

/** All cases take some minutes; in this time, in ms, even a slow machine is done. */
const DEADLINE = 45 * 60_000;

/** More would be in each other's way: some cases give the server a second for its answer. */
const MAX_CLIENTS = 4;

const FUZZ = 'from autobahntestsuite.wstest import run; run()';

const RESOLVE = `
import json, sys
from autobahntestsuite.case import CaseSetname, CaseBasename, Cases, CaseCategories, CaseSubCategories
from autobahntestsuite.caseset import CaseSet
cases = CaseSet(CaseSetname, CaseBasename, Cases, CaseCategories, CaseSubCategories)
ids = cases.parseSpecCases(json.loads(sys.argv[1]))
print(json.dumps([id for id in ids if id in cases.CasesById]))`;

/** The suite cannot run on this machine, for the reason in the message. */
export class CannotRun extends Error {}

export class AutobahnSuite {
  version = SUITE_VERSION;
  #python;
  #site;

  constructor(python, pythonVersion) {
    this.#python = python;
    this.pythonVersion = pythonVersion;
    this.#site = path.join(FOLDER, `python-${pythonVersion}`);
  }

  /**
   * The suite with the first Python 2.7 of this machine, installed once.
   *
   * @throws CannotRun
   */
  static install() {
    const suite = AutobahnSuite.#find();
    try {
      suite.#install();
    } catch (error) {
      if (!(error instanceof StepFailed)) throw error;
      throw new CannotRun(`the Autobahn TestSuite ${SUITE_VERSION} could not be installed: ${error.message}`);
    }
    return suite;
  }

  static #find() {
    const candidates = pythonCandidates();
    for (const python of candidates) {
      const version = versionOf(python);
      if (version?.startsWith('2.7.')) return new AutobahnSuite(python, version);
    }
    throw new CannotRun(
      `the Autobahn TestSuite ${SUITE_VERSION} needs CPython 2.7, and none of these is one: ${candidates.join(', ')}. ` +
        'Install it (pyenv install 2.7.18), or name one by its path in WSBROKER_PYTHON27',
    );
  }

  #install() {
    const stamp = path.join(this.#site, '.stamp');
    if (existsSync(stamp) && readFileSync(stamp, 'utf8') === SUITE_VERSION) return;
    say(`installing the Autobahn TestSuite ${SUITE_VERSION} for Python ${this.pythonVersion}`);
    rmSync(this.#site, { recursive: true, force: true });
    mkdirSync(this.#site, { recursive: true });
    if (!this.#succeeds(['-m', 'pip', '--version'])) this.#bootstrapPip();
    this.#pip(['-m', 'pip'], [`autobahntestsuite==${SUITE_VERSION}`]);
    writeFileSync(stamp, SUITE_VERSION);
  }

  // Debian's python2.7 comes without pip. Another Python's fetches the wheels, and a wheel of pip runs as it is.
  #bootstrapPip() {
    const wheels = path.join(this.#site, 'wheels');
    const target = ['--python-version', '2.7', '--implementation', 'py', '--abi', 'none', '--platform', 'any'];
    run('python3', [
      '-m',
      'pip',
      'download',
      '-q',
      '--no-deps',
      '--only-binary=:all:',
      ...target,
      '-d',
      wheels,
      ...BOOTSTRAP,
    ]);
    const files = readdirSync(wheels).map((name) => path.join(wheels, name));
    const pip = files.find((file) => path.basename(file).startsWith('pip-'));
    this.#pip([path.join(pip, 'pip')], ['--no-index', ...files]);
  }

  // A user's folder of its own: it comes before what is installed for all, and needs no virtualenv.
  #pip(pip, args) {
    run(this.#python, [...pip, '-q', 'install', '--user', '--ignore-installed', '--no-cache-dir', ...args], {
      env: this.#environment(),
    });
  }

  #environment() {
    const env = {
      ...process.env,
      PYTHONUSERBASE: this.#site,
      PYTHONDONTWRITEBYTECODE: '1',
      PIP_DISABLE_PIP_VERSION_CHECK: '1',
      PIP_NO_PYTHON_VERSION_WARNING: '1',
      PIP_NO_WARN_SCRIPT_LOCATION: '1',
    };
    delete env.PYTHONNOUSERSITE;
    delete env.PYTHONPATH;
    delete env.PYTHONHOME;
    return env;
  }

  #succeeds(args) {
    return spawnSync(this.#python, args, { env: this.#environment(), stdio: 'ignore' }).status === 0;
  }

  /**
   * Runs cases against a server.
   *
   * @returns {Promise<Record<string, { behavior: string, behaviorClose: string }>>} by case, in the order of `ids`
   */
  async run(url, ids) {
    rmSync(REPORTS, { recursive: true, force: true });
    // One client has one case under way, and for most of the time either it or the server is at work.
    const clients = Math.min(os.availableParallelism(), MAX_CLIENTS, ids.length);
    const parts = await Promise.all(
      Array.from({ length: clients }, (_, client) => {
        const share = ids.filter((_, at) => at % clients === client);
        return this.#fuzz(path.join(REPORTS, String(client + 1)), url, share);
      }),
    );
    const cases = Object.assign({}, ...parts);
    const result = ({ behavior, behaviorClose }) => ({ behavior, behaviorClose });
    return Object.fromEntries(ids.filter((id) => cases[id]).map((id) => [id, result(cases[id])]));
  }

  /** The ids of the cases that the patterns stand for, in the suite's order. */
  resolve(patterns) {
    const { status, stdout, stderr } = spawnSync(this.#python, ['-c', RESOLVE, JSON.stringify({ cases: patterns })], {
      env: this.#environment(),
      encoding: 'utf8',
    });
    if (status !== 0) throw new StepFailed(`the suite does not know ${patterns.join(' ')}:\n${stderr}`);
    return JSON.parse(stdout);
  }

  async #fuzz(folder, url, cases) {
    mkdirSync(folder, { recursive: true });
    const [specification, log] = [path.join(folder, 'fuzzingclient.json'), path.join(folder, 'fuzzingclient.log')];
    writeFileSync(specification, JSON.stringify({ outdir: folder, servers: [{ agent: AGENT, url }], cases }));
    const child = spawn(this.#python, ['-u', '-c', FUZZ, '-m', 'fuzzingclient', '-s', specification], {
      cwd: folder,
      env: this.#environment(),
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: DEADLINE,
    });
    const output = createWriteStream(log);
    for (const stream of [child.stdout, child.stderr]) stream.pipe(output, { end: false });
    const [code, signal] = await once(child, 'close');
    output.end();
    const index = path.join(folder, 'index.json');
    if (code !== 0 || !existsSync(index)) {
      throw new StepFailed(`the suite ended with ${signal ?? `exit code ${code}`}, see ${log}`);
    }
    return JSON.parse(readFileSync(index, 'utf8'))[AGENT];
  }
}

function pythonCandidates() {
  if (process.env.WSBROKER_PYTHON27) return [process.env.WSBROKER_PYTHON27];
  const pyenv = path.join(process.env.PYENV_ROOT ?? path.join(os.homedir(), '.pyenv'), 'versions');
  const built = existsSync(pyenv) ? readdirSync(pyenv).filter((name) => name.startsWith('2.7')) : [];
  return ['python2.7', 'python2', 'python', ...built.map((name) => path.join(pyenv, name, 'bin', 'python2.7'))];
}

/** The version of a CPython, or undefined. */
function versionOf(python) {
  const program =
    'import sys, platform; print("%s %d.%d.%d" % ((platform.python_implementation(),) + sys.version_info[:3]))';
  const { status, stdout } = spawnSync(python, ['-c', program], { encoding: 'utf8' });
  return status === 0 ? /^CPython (\S+)/.exec(stdout)?.[1] : undefined;
}
