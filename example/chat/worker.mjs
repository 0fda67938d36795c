/**
 * One worker of the chat. Several run side by side, and any of them may serve any member of a room.
 * They share no JavaScript state: the broker itself knows who is where. A room is a channel, its members are
 * the subscribers, and each member's token holds its room and name.
 *
 * The protocol is one JSON object per text message. A name has 1 to 24 characters, a room 1 to 40, a text 1 to 2000.
 *
 *   from the page
 *     { type: 'join', room, name }       enter a room under a name; leaves the room before
 *     { type: 'leave' }                  leave the room
 *     { type: 'typing', typing }         true: still writing (repeated every few seconds), false: stopped
 *     { type: 'say', text }              say something in the room
 *
 *   to the page
 *     { type: 'joined', room, id, name }                  you are in; `id` is you in all that follows
 *     { type: 'left', room }                              you are out
 *     { type: 'who', room, members: [{ id, name }, …] }   who is there now, whenever that changes
 *     { type: 'typing', room, id, name, typing }          somebody else is writing, or stopped
 *     { type: 'message', room, id, name, text, time }     somebody, or you, said something; time in ms since 1970
 *     { type: 'error', text }                             your last message was refused, and why
 */
import { parentPort } from 'node:worker_threads';
import {
  getToken,
  registerWorkerThread,
  send,
  sendToChannel,
  setToken,
  subscribe,
  subscribers,
  unsubscribe,
} from 'wsbroker';
import { serveFile } from './files.mjs';

const MAX_NAME = 24;
const MAX_ROOM = 40;
const MAX_TEXT = 2000;

/** How long after publishing a list of members it is compared with the room again. */
const LOOK_AGAIN_MS = 100;

registerWorkerThread({
  handleHttpRequest: serveFile,

  handleSocketUpgrade(request) {
    return request.pathname === '/chat' || { status: 404 };
  },

  handleSocketMessage(data, socketId) {
    const message = parse(data);
    switch (message?.type) {
      case 'join':
        return join(socketId, message);
      case 'leave':
        return leave(socketId);
      case 'typing':
        return typing(socketId, message);
      case 'say':
        return say(socketId, message);
      default:
        return refuse(socketId, 'Expected a JSON object with a known "type".');
    }
  },

  handleSocketClose(_socketId, token) {
    // The socket has left its channel by itself; the others should hear of it.
    const member = memberIn(token);
    if (member) changed(member.room);
  },
});

parentPort.postMessage('ready');

function join(socketId, message) {
  const room = clean(message.room, MAX_ROOM);
  const name = clean(message.name, MAX_NAME);
  if (!room) return refuse(socketId, `A room's name has 1 to ${MAX_ROOM} characters.`);
  if (!name) return refuse(socketId, `A name has 1 to ${MAX_NAME} characters.`);

  const before = memberOf(socketId);
  if (before) exit(socketId, before.room);
  // The token first: whoever finds the socket in the channel shall find its name too.
  setToken(socketId, Buffer.from(JSON.stringify({ room, name })));
  subscribe(socketId, channelOf(room));
  reply(socketId, { type: 'joined', room, id: socketId, name });
  changed(room);
}

function leave(socketId) {
  const member = memberOf(socketId);
  if (!member) return refuse(socketId, 'You are in no room.');
  exit(socketId, member.room);
  reply(socketId, { type: 'left', room: member.room });
}

function typing(socketId, message) {
  const member = memberOf(socketId);
  if (!member) return refuse(socketId, 'Join a room first.');
  const event = { type: 'typing', id: socketId, name: member.name, typing: message.typing === true };
  publish(member.room, event, { except: socketId });
}

function say(socketId, message) {
  const member = memberOf(socketId);
  if (!member) return refuse(socketId, 'Join a room first.');
  const text = typeof message.text === 'string' ? message.text.trim() : '';
  if (!text || text.length > MAX_TEXT) return refuse(socketId, `A message has 1 to ${MAX_TEXT} characters.`);
  // To its author as well: what all pages show is what the server passed on, and in one order.
  publish(member.room, { type: 'message', id: socketId, name: member.name, text, time: Date.now() });
}

function exit(socketId, room) {
  unsubscribe(socketId, channelOf(room));
  setToken(socketId, undefined);
  changed(room);
}

/**
 * Rooms this worker has to announce, each with the list it announced last, or undefined when it knows of a change since.
 *
 * To read the members and to publish them are two steps, and another worker may do both in between: its newer list
 * would then be followed by our older one. So a worker looks again after it has published, until nothing is new. That
 * also bounds the work when many join at once: one list per LOOK_AGAIN_MS and worker, however many they are.
 */
const announced = new Map();

function changed(room) {
  // Not at once: all changes of this batch of events make one list.
  if (!announced.has(room)) setImmediate(announce, room);
  announced.set(room, undefined);
}

function announce(room) {
  const list = JSON.stringify(membersOf(room));
  if (list === announced.get(room)) {
    announced.delete(room);
    return;
  }
  announced.set(room, list);
  publish(room, { type: 'who', members: JSON.parse(list) });
  setTimeout(announce, LOOK_AGAIN_MS, room);
}

function membersOf(room) {
  return Array.from(subscribers(channelOf(room)), (id) => ({ id, ...memberOf(id) }))
    .filter((member) => member.room === room) // not who is just closing, or on the way to another room
    .map(({ id, name }) => ({ id, name }))
    .sort((a, b) => a.id - b.id);
}

/** The room and name of a socket, undefined while it is in no room. Asked of the broker, so every worker gets the same answer. */
function memberOf(socketId) {
  return memberIn(getToken(socketId));
}

function memberIn(token) {
  return token && JSON.parse(token.toString());
}

function channelOf(room) {
  return `room:${room}`;
}

function publish(room, message, options) {
  sendToChannel(channelOf(room), JSON.stringify({ ...message, room }), options);
}

function reply(socketId, message) {
  send(socketId, JSON.stringify(message));
}

function refuse(socketId, text) {
  reply(socketId, { type: 'error', text });
}

function parse(data) {
  if (typeof data !== 'string') return undefined;
  try {
    return JSON.parse(data);
  } catch {
    return undefined;
  }
}

/** A name on one line, without space around it. Undefined when nothing to see is left, or too much. */
function clean(value, maxLength) {
  if (typeof value !== 'string') return undefined;
  const name = value
    .toWellFormed()
    .replace(/[\p{Cc}\s]+/gu, ' ')
    .trim();
  const visible = /[\p{L}\p{N}\p{P}\p{S}]/u.test(name);
  return visible && name.length <= maxLength ? name : undefined;
}
