// The types say something: what is right compiles in strict TypeScript, and what is wrong does not.

import assert from 'node:assert/strict';
import { symlink } from 'node:fs/promises';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { compileStrictly, lendNodeTypes, ROOT, remove, temporaryFolder, writeProgram } from './helpers/package.mjs';

const PRELUDE = `
import * as wsbroker from 'wsbroker';
const { registerWorkerThread, send, sendToChannel, setMessageRoute, setToken, start } = wsbroker;
`;

const RIGHT = {
  'a handler that takes what comes': `registerWorkerThread({ handleSocketMessage: (data: string | Buffer) => data.length })`,
  'a handler that takes nothing': `registerWorkerThread({ handleSocketMessage() {} })`,
  'a handler that takes more': `registerWorkerThread({ handleSocketMessage: (data: unknown) => console.log(data) })`,
  'an asynchronous handler': `registerWorkerThread({ handleSocketMessage: async (data, id, token) => send(id, token ?? data) })`,
  'an instance of a class': `
    class Chat implements wsbroker.WorkerHandlers {
      readonly rooms = new Set<string>();
      handleSocketMessage(data: string | Buffer, socketId: wsbroker.SocketId): boolean {
        return send(socketId, data);
      }
      handleJoin(room: string): void {
        this.rooms.add(room);
      }
    }
    registerWorkerThread(new Chat())`,
  'handlers that are kept for later': `
    const handlers: wsbroker.WorkerHandlers = {};
    handlers.handleError = (error, { handler, socketId }) => console.error(error, handler, socketId);
    registerWorkerThread(handlers)`,
  'every kind of answer': `
    registerWorkerThread({
      handleHttpRequest: ({ path }) => (path === '/' ? { body: 'hello' } : { status: 404 }),
      handleSocketUpgrade: ({ headers }) => headers.cookie === 'a' || { status: 401 },
    })`,
  'nothing as an answer': `
    registerWorkerThread({ handleHttpRequest: async () => undefined, handleSocketUpgrade: async () => {} })`,
  'the address of a server': `
    const { url, address } = start({ bind: ':3000' });
    const text: string = url;
    console.log(text.length, 'port' in address ? address.port.toFixed() : address.path)`,
};

const WRONG = {
  'a handler that takes strings alone': `registerWorkerThread({ handleSocketMessage: (data: string) => data.length })`,
  'a handler that takes bytes alone': `registerWorkerThread({ handleSocketMessage(data: Buffer) { data.fill(0); } })`,
  'a class whose handler takes strings alone': `
    class Chat { handleSocketMessage(data: string): void { console.log(data); } }
    registerWorkerThread(new Chat())`,
  'a handler that wants its token': `
    registerWorkerThread({ handleSocketOpen: (id: number, request: wsbroker.HttpRequest, token: Buffer) => token.length + id })`,
  'an error that may be anything': `registerWorkerThread({ handleError: (error: Error) => error.message })`,
  'a request that has more than requests have': `
    registerWorkerThread({ handleHttpRequest: (request: wsbroker.HttpRequest & { user: string }) => ({ body: request.user }) })`,
  'a misspelt handler': `registerWorkerThread({ handleSocketMesage() {} })`,
  'an answer that is no object': `registerWorkerThread({ handleHttpRequest: () => 'hello' })`,
  'a status that is no number': `registerWorkerThread({ handleHttpRequest: () => ({ status: '200' }) })`,
  'an option that there is not': `start({ bind: ':3000', maxBodySise: 1 })`,
  'a port instead of an address': `start({ bind: 3000 })`,
  'the host of a Unix socket': `console.log(start({ bind: ':3000' }).address.host)`,
  'a url that is changed': `start({ bind: ':3000' }).url = 'http://localhost'`,
  'a socket that is a string': `send('1', 'hello')`,
  'data that is an object': `sendToChannel('room', { hello: 'world' })`,
  'a token that is null': `setToken(1, null)`,
  'a route that there is not': `setMessageRoute(1, 'relay')`,
  'headers that are changed': `registerWorkerThread({ handleHttpRequest({ headers }) { headers.host = 'x'; } })`,
};

let project;
let found;

before(async () => {
  project = await temporaryFolder('types');
  await lendNodeTypes(project);
  await symlink(ROOT, path.join(project, 'node_modules/wsbroker'), 'junction');
  for (const [kind, programs] of Object.entries({ right: RIGHT, wrong: WRONG })) {
    for (const [index, program] of Object.values(programs).entries()) {
      await writeProgram(project, `${kind}-${index}.mts`, PRELUDE + program);
    }
  }
  found = await compileStrictly(project, { exactOptionalPropertyTypes: true });
});

after(() => remove(project));

/** What the compiler says of one program. */
function saidOf(file) {
  return found.split('\n').filter((line) => line.startsWith(`${file}(`));
}

for (const [index, name] of Object.keys(RIGHT).entries()) {
  test(`compiles: ${name}`, () => assert.deepEqual(saidOf(`right-${index}.mts`), []));
}

for (const [index, name] of Object.keys(WRONG).entries()) {
  test(`does not compile: ${name}`, () => {
    const said = saidOf(`wrong-${index}.mts`);
    assert.equal(said.length, 1, found);
    assert.doesNotMatch(said[0], /Cannot find/);
  });
}
