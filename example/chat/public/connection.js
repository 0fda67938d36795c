/**
 * A WebSocket that comes back. After a loss it waits, tries again, and waits longer each time: the waiting time doubles from
 * half a second to 15 seconds, and a random part of it keeps the pages of a restarted server from all coming at once.
 *
 * Tells what happens by events: `open`; `message` with the parsed JSON in `detail`; `state`, with
 * `{ state: 'connecting' | 'open' | 'waiting', retryAt? }` (ms since 1970) in `detail`.
 */
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;

export class Connection extends EventTarget {
  #url;
  #socket;
  #timer;
  #failures = 0;

  constructor(url) {
    super();
    this.#url = url;
    // The network is back, or somebody looks at the page again: no reason to wait any longer.
    addEventListener('online', () => this.retryNow());
    document.addEventListener('visibilitychange', () => {
      if (!document.hidden) this.retryNow();
    });
  }

  get isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  connect() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#tell('state', { state: 'connecting' });

    this.#socket = new WebSocket(this.#url);
    this.#socket.addEventListener('open', () => {
      this.#failures = 0;
      this.#tell('state', { state: 'open' });
      this.#tell('open');
    });
    this.#socket.addEventListener('message', (event) => this.#tell('message', JSON.parse(event.data)));
    // Comes after every loss and after every attempt that failed; 'error' would add nothing.
    this.#socket.addEventListener('close', () => this.#wait());
  }

  /** Sends an object as JSON; false, and nothing sent, while there is no connection. */
  send(message) {
    if (!this.isOpen) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  retryNow() {
    if (this.#timer !== undefined) this.connect();
  }

  #wait() {
    const longest = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** this.#failures);
    this.#failures += 1;
    const wait = longest * (0.5 + Math.random() / 2);
    this.#timer = setTimeout(() => this.connect(), wait);
    this.#tell('state', { state: 'waiting', retryAt: Date.now() + wait });
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
