/** The chat page: what the person does goes to the server, what the server tells is shown. The protocol is in worker.mjs. */
import { Connection } from './connection.js';
import { addMessage, addNote, clearLog, showError, showPeople, showRoom, showState, showTyping } from './view.js';

const TYPING_AGAIN_MS = 2000; // how often a page repeats that its person is still writing …
const TYPING_ENDS_MS = 5000; // … and how long the others believe it

const element = (id) => document.getElementById(id);
const form = {
  join: element('join'),
  name: element('name'),
  room: element('room'),
  say: element('say'),
  text: element('text'),
};

const connection = new Connection(`${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/chat`);

/** The room this page is in or wants to be in, and under which name; it outlives connections. */
let wanted;
/** This page's id in the room, undefined until the server has let it in. */
let me;
/** Who is in the room, name by id; undefined until the first list after joining. */
let people;
/** Who is writing, by id: their name, and the timer that ends it. */
const typers = new Map();
/** When this page last told that its person is writing; 0 after it told the end. */
let toldTyping = 0;

/* What the server tells */

connection.addEventListener('state', ({ detail }) => {
  if (detail.state === 'waiting' && me !== undefined) {
    addNote('Connection lost');
    reset();
  }
  showState(detail, () => connection.retryNow());
});

connection.addEventListener('open', () => {
  if (wanted) connection.send({ type: 'join', ...wanted });
});

connection.addEventListener('message', ({ detail: message }) => {
  if (message.type === 'error') return refused(message.text);
  // The server may have tidied up the room's name: from here on, it is the server's.
  if (message.type === 'joined') return wanted && joined(message);
  if (message.room !== wanted?.room) return undefined; // of a room just left
  switch (message.type) {
    case 'who':
      return who(message);
    case 'typing':
      return typing(message);
    case 'message':
      return said(message);
    default:
      return undefined;
  }
});

function joined({ id, room, name }) {
  me = id;
  wanted = { room, name };
  toldTyping = 0;
  remember('name', name);
  history.replaceState(null, '', `?room=${encodeURIComponent(room)}`); // an address to share
  showError('');
  if (showRoom(room)) form.text.focus();
  else addNote('Connected again');
}

function who({ members }) {
  const before = people;
  people = new Map(members.map((member) => [member.id, member.name]));
  showPeople(members, me);
  // The first list is who was there already; after it, differences are news.
  for (const [id, name] of before ? people : []) if (!before.has(id) && id !== me) addNote(`${name} joined`);
  for (const [id, name] of before ?? []) if (!people.has(id)) addNote(`${name} left`);
  for (const id of typers.keys()) if (!people.has(id)) stopTyping(id);
}

function said({ id, name, text, time }) {
  stopTyping(id);
  addMessage({ name, text, time, mine: id === me, author: id });
}

function typing({ id, name, typing: isTyping }) {
  stopTyping(id);
  if (isTyping) typers.set(id, { name, timer: setTimeout(stopTyping, TYPING_ENDS_MS, id) });
  showTyping([...typers.values()].map((typer) => typer.name));
}

function stopTyping(id) {
  clearTimeout(typers.get(id)?.timer);
  typers.delete(id);
  showTyping([...typers.values()].map((typer) => typer.name));
}

function refused(text) {
  if (me === undefined) wanted = undefined; // it was the join
  showError(text);
}

function reset() {
  me = undefined;
  people = undefined;
  for (const id of typers.keys()) stopTyping(id);
}

/* What the person does */

form.join.addEventListener('submit', (event) => {
  event.preventDefault();
  const [room, name] = [form.room.value, form.name.value].map((value) => value.replace(/\s+/g, ' ').trim());
  wanted = { room, name };
  showError('');
  // Without a connection it joins as soon as there is one.
  connection.send({ type: 'join', ...wanted });
});

element('leave').addEventListener('click', () => {
  connection.send({ type: 'leave' });
  wanted = undefined;
  reset();
  clearLog();
  showRoom(undefined);
  form.room.focus();
});

form.say.addEventListener('submit', (event) => {
  event.preventDefault();
  const text = form.text.value.trim();
  // What cannot be sent now stays where it is.
  if (!text || me === undefined || !connection.send({ type: 'say', text })) return;
  showError('');
  form.text.value = '';
  toldTyping = 0; // a message ends the writing for everybody
  form.text.focus();
});

form.text.addEventListener('keydown', (event) => {
  // Shift+Enter is a new line; Enter that ends the composition of a character is not for us.
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  form.say.requestSubmit();
});

form.text.addEventListener('input', () => {
  const writing = form.text.value.trim() !== '';
  const told = Date.now() - toldTyping < TYPING_AGAIN_MS;
  if (me === undefined || (writing ? told : toldTyping === 0)) return;
  connection.send({ type: 'typing', typing: writing });
  toldTyping = writing ? Date.now() : 0;
});

/* The beginning */

form.name.value = recall('name') ?? '';
form.room.value = new URLSearchParams(location.search).get('room') ?? 'lobby';
(form.name.value ? form.room : form.name).focus();
connection.connect();

function remember(key, value) {
  try {
    localStorage.setItem(key, value);
  } catch {
    // The browser stores nothing for this page; the name is asked for again next time.
  }
}

function recall(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}
