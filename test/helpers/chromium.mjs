/** Finds and drives a Chromium that the machine has. The package playwright-core brings none. */
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { chromium } from 'playwright-core';

const NAMES = ['chromium', 'chromium-browser', 'google-chrome-stable', 'google-chrome'];

const FLAGS = [
  '--headless',
  '--no-sandbox', // the sandbox does not work for root, which CI often is
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

const executablePath = find();

/** For a test's `skip`: why it cannot run here, or false. In CI it must run, so there it fails at the launch instead. */
export const skipReason =
  executablePath || process.env.CI === 'true'
    ? false
    : 'no Chromium: install it, or name its executable in WSBROKER_CHROMIUM';

/**
 * Starts Chromium with a new, empty profile, and ends it with the test `t`. Its pages wait at most 15 s for anything.
 * It cannot outlive this process: Chromium ends when the pipe over which it is driven is closed.
 */
export async function launchChromium(t) {
  if (!executablePath) throw new Error(`no Chromium in PATH (${NAMES.join(', ')}) and none in WSBROKER_CHROMIUM`);
  const browser = await chromium.launch({ executablePath, args: FLAGS });
  t.after(() => browser.close());

  return {
    /** A page in a context of its own, so with its own storage; `options` as for playwright's newContext. */
    async newPage(options) {
      const context = await browser.newContext(options);
      context.setDefaultTimeout(15_000);
      return context.newPage();
    },
  };
}

function find() {
  if (process.env.WSBROKER_CHROMIUM) return process.env.WSBROKER_CHROMIUM;
  for (const directory of (process.env.PATH ?? '').split(delimiter)) {
    for (const name of NAMES) {
      const path = join(directory, name);
      try {
        accessSync(path, constants.X_OK);
        return path;
      } catch {
        // Not there; maybe under the next name.
      }
    }
  }
  return undefined;
}
