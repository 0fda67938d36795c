/**
 * Reads what the addon's `take` gives: a batch of events packed in one buffer.
 *
 * All integers are little-endian words of 32 bits, and every record starts at a multiple of 4.
 *
 * ```text
 * word 0    kind | flags << 8 | the code of a close << 16
 * word 1    length of the whole record in bytes, padding included
 * word 2,3  id, low and high half: a socket's, or a request's for request, upgrade and abort
 * word 4    length of the token in bytes; 0xffff_ffff: no token
 * word 5    length of the payload in bytes
 * word 6    open, message, drain, close: how many milliseconds the handler may take; 0: any time
 * then      the token, padded to a multiple of 4; the payload; padding to a multiple of 4
 * ```
 *
 * The data of a large text, which a flag tells, is not in its record: the addon gives one after the other.
 */

import { Buffer } from 'node:buffer';
import { leaveHand } from './in-hand.cjs';
import { native } from './native.cjs';
import { openRequest, type PackedRequest } from './request.cjs';

/** The kinds of event. */
export const OPEN = 1;
export const MESSAGE = 2;
export const DRAIN = 3;
export const CLOSE = 4;
export const REQUEST = 5;
export const UPGRADE = 6;
export const ABORT = 7;

const FLAG_TEXT = 1;
/** A text message of nothing but ASCII, for which the latin1 decoder is the fastest. */
const FLAG_ASCII = 2;
/** A text message whose data is not in its record. */
const FLAG_LARGE = 4;

const HEAD_BYTES = 28;

/**
 * So many bytes of records are decoded together: some texts of 64 bytes, which makes up for most of the calls that they
 * would take, and no more than an application that keeps one of them can bear to keep.
 */
export const DECODED_TOGETHER = 512;

/**
 * The same for the values of a request's headers, which few keep when it has been answered: more than most browsers send,
 * cookies included. What is kept of an upgrade is kept for each socket.
 */
const VALUES_DECODED_TOGETHER = 2048;

const NO_TOKEN = 0xffff_ffff;
const HIGH_HALF = 2 ** 32;

/**
 * The decoders behind `buffer.toString(encoding, start, end)`. Called directly they spare a fifth of the time that a
 * short message takes to decode. Node, Bun and Deno have them, without a word in their documentation.
 */
export interface Decoder extends Buffer {
  latin1Slice(start: number, end: number): string;
  utf8Slice(start: number, end: number): string;
}

/** What a Buffer makes views of itself with: in Node and Deno a class that has no name outside, in Bun `Buffer`. */
const BufferView = (Reflect.get(Buffer, Symbol.species) ?? Buffer) as new (
  store: ArrayBufferLike,
  offset: number,
  length: number,
) => Buffer;

/**
 * A batch, and a place in it. The accessors speak of the record that {@link next} moved to.
 */
export class Batch {
  /** Data stands where the addon has put it. */
  isAsTaken = true;
  #bytes!: Decoder;
  /** What the bytes stand in, and where they begin there. */
  #store!: ArrayBufferLike;
  #storeOffset!: number;
  #words!: Uint32Array;
  /** Byte offsets of the current record, of the one behind it, and of the end of the last one. */
  #start = 0;
  #end = 0;
  #length: number;
  /** The buffer from one offset to another as Latin-1. */
  #decoded = '';
  #decodedStart = 0;
  #decodedEnd = 0;

  constructor(bytes: Buffer) {
    this.#read(bytes);
    this.#length = bytes.length;
  }

  #read(bytes: Buffer): void {
    // The addon's buffers have a store of their own, which is aligned; another runtime might cut them from a pool.
    const aligned = bytes.byteOffset % 4 === 0 ? bytes : Buffer.from(Uint8Array.from(bytes).buffer);
    this.isAsTaken = aligned === bytes;
    this.#bytes = aligned as Decoder;
    this.#store = aligned.buffer;
    this.#storeOffset = aligned.byteOffset;
    this.#words = new Uint32Array(this.#store, this.#storeOffset, aligned.byteLength >>> 2);
  }

  /** Another batch has come into the buffer, of so many bytes. */
  restart(length: number): this {
    this.#length = length;
    this.#end = 0;
    this.#decodedEnd = 0;
    return this;
  }

  /** Moves to the next record. False: there is none. */
  next(): boolean {
    this.#start = this.#end;
    if (this.#start >= this.#length) return false;
    this.#repair();
    this.#end += this.#word(1);
    return true;
  }

  /**
   * Reads the batch again if the current record is none any more. A handler may have transferred the buffer behind bytes that
   * it got, or have filled all of it: easily done by mistake, and the other events of the batch must come all the same.
   */
  #repair(): void {
    if (this.#bytes.length > 0) {
      const length = this.#word(1);
      if (length >= HEAD_BYTES && this.#start + length <= this.#length) return;
    }
    leaveHand();
    this.#read(native.takeAgain());
    this.#decodedEnd = 0;
  }

  /** The sockets of the current record and of those behind it. */
  socketsLeft(): Set<number> {
    const [start, end] = [this.#start, this.#end];
    const sockets = new Set<number>();
    this.#end = start;
    // By this batch itself: if it has to be taken again, then by whoever reads on.
    while (this.next()) if (this.kind <= CLOSE) sockets.add(this.id);
    this.#start = start;
    this.#end = end;
    return sockets;
  }

  /** Of the current record, in bytes. */
  get offset(): number {
    return this.#start;
  }

  get kind(): number {
    return this.#word(0) & 0xff;
  }

  /** The socket's id, or the request's for request, upgrade and abort. */
  get id(): number {
    return this.#word(2) + this.#word(3) * HIGH_HALF;
  }

  /** The code of a close. */
  get code(): number {
    return this.#word(0) >>> 16;
  }

  /** How many milliseconds the handler of a socket's event may take; 0: any time. It may have been called already. */
  get handlerTimeout(): number {
    this.#repair();
    return this.#word(6);
  }

  get token(): Buffer | undefined {
    const length = this.#word(4);
    if (length === NO_TOKEN) return undefined;
    const start = this.#start + HEAD_BYTES;
    return this.#bytes.subarray(start, start + length);
  }

  /** A message's data as handlers get it. To be read once for each message, in their order. */
  get data(): string | Buffer {
    const flags = this.#word(0) >>> 8;
    if ((flags & FLAG_LARGE) !== 0) return native.takeLargeText((flags & FLAG_ASCII) !== 0);
    const start = this.#payloadStart();
    const end = start + this.#word(5);
    // Not by `subarray`, which asks the buffer for its store by a call into V8, nor by `Buffer.from`, which asks what it got.
    if ((flags & FLAG_TEXT) === 0) return new BufferView(this.#store, this.#storeOffset + start, end - start);
    return (flags & FLAG_ASCII) !== 0 ? this.#ascii(start, end) : this.#bytes.utf8Slice(start, end);
  }

  /**
   * Short texts that follow each other are decoded together, records and all, and each is a piece of that: V8 makes one
   * in a third of the time that a call to the decoder takes. A piece keeps the whole in memory, which is why that is short.
   */
  #ascii(start: number, end: number): string {
    if (end > this.#decodedEnd) {
      const isLast = end + HEAD_BYTES >= this.#length;
      if (isLast || 2 * (end - start) > DECODED_TOGETHER) return this.#bytes.latin1Slice(start, end);
      this.#decodedStart = start;
      this.#decodedEnd = Math.min(start + DECODED_TOGETHER, this.#length);
      this.#decoded = this.#bytes.latin1Slice(start, this.#decodedEnd);
    }
    return this.#decoded.substring(start - this.#decodedStart, end - this.#decodedStart);
  }

  /** The reason of a close. */
  get reason(): string {
    const start = this.#payloadStart();
    return this.#bytes.utf8Slice(start, start + this.#word(5));
  }

  /** The request of an open, a request or an upgrade. */
  get request(): PackedRequest {
    const decodedTogether = this.kind === REQUEST ? VALUES_DECODED_TOGETHER : DECODED_TOGETHER;
    return openRequest(this.#bytes, this.#words, this.#payloadStart(), decodedTogether);
  }

  // No private getter: V8 calls its runtime for one.
  #payloadStart(): number {
    const tokenLength = this.#word(4);
    const start = this.#start + HEAD_BYTES;
    return tokenLength === NO_TOKEN ? start : start + align(tokenLength);
  }

  #word(index: number): number {
    return this.#words[(this.#start >>> 2) + index] as number;
  }
}

function align(length: number): number {
  return (length + 3) & ~3;
}
