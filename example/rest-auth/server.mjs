/**
 * A JSON API and WebSockets behind one login.
 *
 *   POST /login  { user, password }   → { token }                 401 when they do not fit
 *   GET  /me                          → { user, expires }         with Authorization: Bearer <token>
 *   POST /notify { to, text }         → { delivered }             to all sockets of that user, as { from, text }
 *
 * A WebSocket gives the token in the Authorization header or as ?token=, else the upgrade is answered with 401. It is
 * then subscribed to its user's channel, and may send { token } with a newer token to stay beyond the first one's time.
 */
import { close, registerWorkerThread, send, sendToChannel, setToken, start } from 'wsbroker';
import { issue, passwordIsRight, sessionOf, userExists, verify } from './session.mjs';

const EXPIRED = 4401; // 4000 to 4999 are an application's own close codes (RFC 6455, section 7.4.2)

registerWorkerThread({
  handleHttpRequest(request) {
    if (request.method === 'POST' && request.path === '/login') return login(request);
    const session = sessionOf(request);
    if (!session) return unauthorized();
    if (request.method === 'GET' && request.path === '/me') return json(200, session);
    if (request.method === 'POST' && request.path === '/notify') return notify(session, request);
    return json(404, { error: 'not found' });
  },

  handleSocketUpgrade(request) {
    // A browser's WebSocket cannot set headers, so it may give the token in the query.
    const session = sessionOf(request) ?? verify(new URLSearchParams(request.query).get('token'));
    return session ? { token: tokenOf(session), channels: [channelOf(session.user)] } : unauthorized();
  },

  // The broker's token of a socket is the session that the bearer token stood for.
  handleSocketMessage(data, socketId, token) {
    const session = JSON.parse(token.toString());
    const renewed = verify(parse(data)?.token);
    if (renewed?.user === session.user) {
      setToken(socketId, tokenOf(renewed));
      send(socketId, JSON.stringify({ renewed }));
    } else if (session.expires <= Date.now()) {
      close(socketId, EXPIRED, 'session expired');
    } else {
      send(socketId, JSON.stringify({ error: `expected { "token": a valid token of ${session.user} }` }));
    }
  },
});

const server = start({ bind: `127.0.0.1:${process.env.PORT ?? 3000}`, maxBodySize: 16 * 1024 });

// Once the server has stopped, nothing keeps the process alive.
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => server.stop());

console.log(`listening on ${server.url}`);

async function login(request) {
  const { user, password } = parse(request.body) ?? {};
  if (typeof user !== 'string' || typeof password !== 'string')
    return json(400, { error: 'expected user and password' });
  if (!(await passwordIsRight(user, password))) return json(401, { error: 'wrong user or password' });
  return json(200, { token: issue(user) });
}

function notify(session, request) {
  const { to, text } = parse(request.body) ?? {};
  if (typeof to !== 'string' || typeof text !== 'string') return json(400, { error: 'expected to and text' });
  if (!userExists(to)) return json(404, { error: 'no such user' });
  return json(200, { delivered: sendToChannel(channelOf(to), JSON.stringify({ from: session.user, text })) });
}

function unauthorized() {
  return json(401, { error: 'a valid token is needed' }, { 'www-authenticate': 'Bearer' });
}

function json(status, value, headers) {
  return { status, headers: { ...headers, 'content-type': 'application/json' }, body: JSON.stringify(value) };
}

function tokenOf(session) {
  return Buffer.from(JSON.stringify(session));
}

function channelOf(user) {
  return `user:${user}`;
}

function parse(data) {
  try {
    return JSON.parse(data.toString());
  } catch {
    return undefined;
  }
}
