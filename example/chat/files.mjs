/** Serves the files of public/, which are read once, when a worker starts. */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { extname } from 'node:path';

const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
};

const directory = new URL('public/', import.meta.url);

// Only what was found there can be asked for, so no path leads out of the directory.
const files = new Map(readdirSync(directory).map((name) => [`/${name}`, load(name)]));
files.set('/', files.get('/index.html'));

function load(name) {
  const body = readFileSync(new URL(name, directory));
  const headers = {
    'content-type': TYPES[extname(name)] ?? 'application/octet-stream',
    'content-security-policy': "default-src 'self'; frame-ancestors 'none'",
    'x-content-type-options': 'nosniff',
    'cache-control': 'no-cache', // a browser may keep the file, but asks each time whether the ETag is still right
    etag: `"${createHash('sha256').update(body).digest('base64url').slice(0, 22)}"`,
  };
  return { status: 200, headers, body };
}

/** Answers GET and HEAD (the broker sends no body for HEAD, only its length). */
export function serveFile(request) {
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    return { status: 405, headers: { allow: 'GET, HEAD', 'content-type': 'text/plain' }, body: 'Method not allowed\n' };
  }
  const file = files.get(request.pathname);
  if (!file) return { status: 404, headers: { 'content-type': 'text/plain' }, body: 'Not found\n' };
  const fresh = request.headers['if-none-match'] === file.headers.etag;
  return fresh ? { status: 304, headers: file.headers } : file;
}
