/**
 * The memory that a value stands for. It is asked of the value's kind, never of its properties: an application can put others
 * over `buffer`, `byteOffset` and the like, and what they say must not decide which memory the addon reads.
 */

const TypedArray = Object.getPrototypeOf(Uint8Array) as { readonly prototype: Uint8Array };

/** Undefined for what is no typed array; else the name of its kind. */
const kindOf = getterOf<string | undefined>(TypedArray.prototype, Symbol.toStringTag);
const typedArray = {
  buffer: getterOf<ArrayBufferLike>(TypedArray.prototype, 'buffer'),
  byteOffset: getterOf<number>(TypedArray.prototype, 'byteOffset'),
  byteLength: getterOf<number>(TypedArray.prototype, 'byteLength'),
};
/** These throw for a view whose memory is gone. */
const dataView = {
  buffer: getterOf<ArrayBufferLike>(DataView.prototype, 'buffer'),
  byteOffset: getterOf<number>(DataView.prototype, 'byteOffset'),
  byteLength: getterOf<number>(DataView.prototype, 'byteLength'),
};
/** Throws for a typed array whose memory is gone: transferred, or cut off from a buffer that was made shorter. */
const elementOf = uncurried<[index: number], unknown>(TypedArray.prototype.at);
/** Both throw for the other kind of buffer. */
const lengthOfBuffer = getterOf<number>(ArrayBuffer.prototype, 'byteLength');
const lengthOfShared = getterOf<number>(SharedArrayBuffer.prototype, 'byteLength');

const { isView } = ArrayBuffer;

/** A function that takes its `this` as an argument, whatever becomes of `call` later. */
function uncurried<A extends unknown[], R>(method: (...args: never[]) => unknown) {
  return Function.prototype.call.bind(method) as (self: unknown, ...args: A) => R;
}

function getterOf<R>(prototype: object, name: string | symbol) {
  const { get } = Object.getOwnPropertyDescriptor(prototype, name) as { get: () => unknown };
  return uncurried<[], R>(get);
}

/**
 * The bytes of a buffer or a view as a `Uint8Array` that no other thread can write to; undefined for everything else, and
 * for memory that {@link isGone}.
 */
export function bytesOf(value: unknown): Uint8Array | undefined {
  // What nearly all data is comes first.
  if (kindOf(value) === 'Uint8Array' && lengthOf(value as Uint8Array) > 0 && isArrayBuffer(typedArray.buffer(value))) {
    return value as Uint8Array;
  }
  try {
    return viewOf(value);
  } catch {
    return undefined;
  }
}

/** How many bytes a `Uint8Array` has. */
export function lengthOf(bytes: Uint8Array): number {
  return typedArray.byteLength(bytes);
}

/** Whether this is a buffer or a view whose memory was transferred, or is no longer part of its buffer. */
export function isGone(value: unknown): boolean {
  if (!isView(value) && !isArrayBuffer(value)) return false;
  try {
    viewOf(value);
    return false;
  } catch {
    return true;
  }
}

/** Throws for what has no bytes, or none any more. */
function viewOf(value: unknown): Uint8Array {
  if (!isView(value)) {
    const length = isArrayBuffer(value) ? lengthOfBuffer(value) : lengthOfShared(value);
    return ownBytes(value as ArrayBufferLike, 0, length);
  }
  const isTypedArray = kindOf(value) !== undefined;
  if (isTypedArray) elementOf(value, 0);
  const { buffer, byteOffset, byteLength } = isTypedArray ? typedArray : dataView;
  return ownBytes(buffer(value), byteOffset(value), byteLength(value));
}

function ownBytes(buffer: ArrayBufferLike, offset: number, length: number): Uint8Array {
  const view = new Uint8Array(buffer, offset, length);
  // Another thread may write to a SharedArrayBuffer while it is read.
  return isArrayBuffer(buffer) ? view : new Uint8Array(view);
}

function isArrayBuffer(value: unknown): boolean {
  try {
    lengthOfBuffer(value);
    return true;
  } catch {
    return false;
  }
}
