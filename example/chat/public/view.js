/** Everything that changes the page. What people wrote is set as text, never as HTML. */
const LONGEST_LOG = 500; // entries; older ones are removed

const element = (id) => document.getElementById(id);
const log = element('log');

let countdown;
/** The author of the newest log entry, while it is a message: the next one of the same author goes without a heading. */
let lastAuthor;

/** Shows the state of the connection; `retryNow` is called when the person does not want to wait. */
export function showState({ state, retryAt }, retryNow) {
  clearInterval(countdown);
  const shown = element('state');
  shown.dataset.state = state;
  document.body.classList.toggle('offline', state !== 'open');
  if (state !== 'waiting') {
    shown.textContent = state === 'open' ? 'Connected' : 'Connecting…';
    return;
  }
  const seconds = make('span', { ariaHidden: 'true' }); // read out once, not every second
  const button = make('button', { type: 'button', textContent: 'Retry now' });
  button.addEventListener('click', retryNow);
  shown.replaceChildren('Disconnected', seconds, button);
  const tick = () => {
    seconds.textContent = ` – next try in ${Math.max(1, Math.ceil((retryAt - Date.now()) / 1000))} s`;
  };
  tick();
  countdown = setInterval(tick, 1000);
}

/** Shows the conversation of a room, or the entrance for undefined. Returns whether that is a change. */
export function showRoom(room) {
  const changes = element('chat').hidden === (room !== undefined);
  element('chat').hidden = element('leave').hidden = room === undefined;
  element('entrance').hidden = room !== undefined;
  element('title').textContent = room ?? 'wsbroker chat';
  document.title = room === undefined ? 'wsbroker chat' : `${room} – wsbroker chat`;
  return changes;
}

export function showPeople(members, me) {
  element('people-title').textContent = `Here: ${members.length}`;
  element('people').replaceChildren(
    ...members.map(({ id, name }) => {
      const item = make('li');
      item.append(avatar(name), make('bdi', { textContent: name }));
      if (id === me) item.append(make('span', { className: 'you', textContent: 'you' }));
      return item;
    }),
  );
}

export function showTyping(names) {
  const shown = element('typing');
  shown.replaceChildren();
  if (names.length > 2) shown.textContent = 'Several people are typing…';
  else if (names.length > 0) {
    const people = names.map((name) => make('bdi', { textContent: name }));
    if (people.length === 2) people.splice(1, 0, ' and ');
    shown.append(...people, names.length === 1 ? ' is typing…' : ' are typing…');
  }
}

export function showError(text) {
  element('join-error').textContent = element('say-error').textContent = text;
}

export function addMessage({ author, name, text, time, mine }) {
  const item = make('div', { className: mine ? 'message mine' : 'message' });
  if (author !== lastAuthor) {
    const heading = make('p', { className: 'heading' });
    const date = new Date(time);
    heading.append(
      make('bdi', { className: 'author', textContent: name }),
      make('time', {
        dateTime: date.toISOString(),
        textContent: date.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' }),
      }),
    );
    item.classList.add('first');
    item.append(avatar(name), heading);
  }
  item.append(make('p', { className: 'text', dir: 'auto', textContent: text }));
  add(item);
  lastAuthor = author;
}

/** A line that is not from a person, such as who came and went. */
export function addNote(text) {
  const item = make('div', { className: 'note' });
  item.append(make('bdi', { textContent: text }));
  add(item);
  lastAuthor = undefined;
}

export function clearLog() {
  log.replaceChildren();
  lastAuthor = undefined;
  showTyping([]);
}

function add(item) {
  // Follows the conversation, unless the person has scrolled up to read something.
  const follows = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  log.append(item);
  while (log.childElementCount > LONGEST_LOG) log.firstElementChild.remove();
  if (follows || item.classList.contains('mine')) log.scrollTop = log.scrollHeight;
}

/** A round sign with the first letter of a name, in a colour that belongs to the name. */
function avatar(name) {
  let hash = 0;
  for (const character of name) hash = (hash * 31 + character.codePointAt(0)) % 65_536;
  const sign = make('span', { className: 'avatar', ariaHidden: 'true', textContent: [...name][0].toUpperCase() });
  sign.style.setProperty('--hue', (hash * 137.5) % 360); // the golden angle: neighbours get unlike colours
  return sign;
}

function make(tag, properties = {}) {
  return Object.assign(document.createElement(tag), properties);
}
