/**
 * DEFLATE blocks of nothing but a code table each (RFC 1951, section 3.2.7): they inflate to no byte at all, and are the
 * most work for an inflater.
 */

/** The lengths of the codes for code lengths, in the order in which they are sent: 18 has one bit, 0 and 1 have two. */
const CODE_LENGTHS = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1].map(
  (symbol) => ({ 18: 1, 0: 2, 1: 2 })[symbol] ?? 0,
);

/** One block as bits, in the order in which they are sent. */
const BLOCK = [
  ...bits(0b100, 3), // not the last block, dynamic
  ...bits(0, 10), // 257 literals and lengths, 1 distance
  ...bits(14, 4), // the lengths of 18 codes follow
  ...CODE_LENGTHS.flatMap((length) => bits(length, 3)),
  ...[0, ...bits(138 - 11, 7)], // 138 literals have no code
  ...[0, ...bits(118 - 11, 7)], // nor have 118 more
  ...[1, 1, 1, 1], // the end of the block has one of one bit, and so has the distance
  0, // the end of the block
];

function bits(value, count) {
  return Array.from({ length: count }, (_, at) => (value >> at) & 1);
}

/** A compressed message of so many blocks. */
export function tables(count) {
  const all = [...Array(count).fill(BLOCK).flat(), 0, 0, 0]; // and an empty stored block, of which the rest is left out
  const bytes = Buffer.alloc(Math.ceil(all.length / 8));
  for (const [at, bit] of all.entries()) bytes[at >> 3] |= bit << (at & 7);
  return bytes;
}
