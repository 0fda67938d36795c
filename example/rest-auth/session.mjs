/**
 * Who may come in: passwords and bearer tokens.
 *
 * A token is `payload.signature`: the payload is base64url JSON `{ user, expires }` (ms since 1970), the signature its
 * HMAC-SHA256. The server keeps no list of tokens; whoever knows the secret can check one.
 */
import { createHmac, randomBytes, scrypt, timingSafeEqual } from 'node:crypto';
import { promisify } from 'node:util';

const secret = process.env.SECRET ?? randomBytes(32); // without SECRET, a restart invalidates every token
const lifetime = Number(process.env.TOKEN_LIFETIME ?? 3600) * 1000;
const hash = promisify(scrypt);

// Stands for a database. It would hold salt and hash; nobody needs the passwords themselves.
const accounts = new Map();
for (const [user, password] of [
  ['alice', 'wonderland'],
  ['bob', 'builder'],
]) {
  const salt = randomBytes(16);
  accounts.set(user, { salt, hash: await hash(password, salt, 32) });
}
const nobody = { salt: randomBytes(16), hash: randomBytes(32) };

export function userExists(user) {
  return accounts.has(user);
}

/** Whether the password is right. An unknown user takes as long as a wrong password. */
export async function passwordIsRight(user, password) {
  const account = accounts.get(user) ?? nobody;
  return timingSafeEqual(await hash(password, account.salt, 32), account.hash);
}

/** A new bearer token of this user. */
export function issue(user) {
  const payload = Buffer.from(JSON.stringify({ user, expires: Date.now() + lifetime })).toString('base64url');
  return `${payload}.${sign(payload).toString('base64url')}`;
}

/** The session `{ user, expires }` that a bearer token stands for, undefined when it is forged, expired or no token. */
export function verify(token) {
  if (typeof token !== 'string') return undefined;
  const [payload, signature = ''] = token.split('.');
  const given = Buffer.from(signature, 'base64url');
  const expected = sign(payload);
  if (given.length !== expected.length || !timingSafeEqual(given, expected)) return undefined;
  const session = JSON.parse(Buffer.from(payload, 'base64url').toString()); // signed, so it is what issue() wrote
  return session.expires > Date.now() ? session : undefined;
}

/** The session of the bearer token in a request's Authorization header. */
export function sessionOf(request) {
  const [, token] = /^Bearer (\S+)$/i.exec(request.headers.authorization ?? '') ?? [];
  return verify(token);
}

function sign(payload) {
  return createHmac('sha256', secret).update(payload).digest();
}
