/**
 * The package by `require`, and a class as the worker: handlers are called as methods of the registered object.
 * Every page view is told to all open sockets.
 */
const { broadcast, connectionCount, registerWorkerThread, start } = require('wsbroker');

class Visits {
  #count = 0;

  handleHttpRequest(request) {
    this.#count += 1;
    broadcast(`visit ${this.#count}: ${request.method} ${request.path}`);
    return {
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ visits: this.#count, watching: connectionCount() }),
    };
  }
}

registerWorkerThread(new Visits());

const server = start({ bind: `127.0.0.1:${process.env.PORT ?? 3000}` });

// Once the server has stopped, nothing keeps the process alive.
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => server.stop());

console.log(`listening on ${server.url}`);
