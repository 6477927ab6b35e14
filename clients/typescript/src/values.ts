/**
 * Inputs, outputs and attributes as text: a text as it is, anything else as JSON. Never throws.
 *
 * No method, getter or `toJSON` of a value is called: it could be slow, throw or have side effects.
 * The time depends on how much is kept, not on the size of the value.
 */
import { fileMark, grouped, shortened, sizeOf, wellFormed } from "./shortening.ts";
import { LIMITS } from "./tables.ts";

/** A content as it is queued: its text, and its size in bytes where a part was left out. */
export interface Content {
  text: string;
  bytes?: number;
}

type Plain = string | number | boolean | null | Plain[] | { [key: string]: Plain };

const LEAST_CHARS = 64;
const ITEM_CHARS = 32;
const ESTIMATED_ITEMS = 8;

/** The value as text of about `maxBytes`; longer texts are cut again after the redaction. */
export function toText(value: unknown, maxBytes: number): Content {
  if (value === undefined || value === null) return { text: "" };
  if (typeof value === "string") return textOf(value, maxBytes);
  const reader = new Reader();
  // The characters of JSON (quotes, commas, brackets) are counted roughly: a sixteenth is left.
  let room = maxBytes - (maxBytes >> 4);
  for (let attempt = 0; ; attempt += 1) {
    reader.cut = 0;
    const plain = reader.plain(value, room, 0);
    const text = typeof plain === "string" ? plain : JSON.stringify(plain);
    const bytes = sizeOf(text);
    if (bytes <= maxBytes || attempt === 2) {
      return reader.cut > 0 ? { text, bytes: bytes + reader.cut } : { text };
    }
    room = Math.floor((((room * maxBytes) / bytes) * 9) / 10);
  }
}

function textOf(value: string, maxBytes: number): Content {
  const most = maxBytes + LIMITS.slackChars;
  // A text that is only a little longer is cut after the redaction, so that a secret across the
  // cut is recognised.
  const text = shortened(value, value.length <= most ? most : maxBytes);
  return text.length === value.length ? { text } : { text, bytes: sizeOf(value) };
}

/** A name or id as a short text; empty for anything that is no text or number. */
export function label(value: unknown, most: number = LIMITS.textChars): string {
  if (typeof value === "number" || typeof value === "bigint" || typeof value === "boolean") {
    return String(value);
  }
  return typeof value === "string" ? wellFormed(value.slice(0, most)) : "";
}

class Reader {
  cut = 0;
  readonly #above = new Set<object>();

  /** The value as plain data in about `room` characters. */
  plain(value: unknown, room: number, depth: number): Plain {
    try {
      switch (typeof value) {
        case "string":
          return this.#text(value, room);
        case "number":
          return Number.isFinite(value) ? value : String(value);
        case "bigint":
          return this.#text(value.toString(), room);
        case "boolean":
          return value;
        case "object":
          return value === null ? null : this.#object(value, room, depth);
        case "undefined":
          return null;
        default:
          return `<${typeof value}>`;
      }
    } catch {
      return "<unreadable>"; // a revoked proxy, for instance
    }
  }

  #text(value: string, room: number): string {
    const text = wellFormed(shortened(value, Math.max(room, LEAST_CHARS)));
    this.cut += Math.max(0, value.length - text.length);
    return text;
  }

  #object(value: object, room: number, depth: number): Plain {
    const scalar = scalarOf(value);
    if (scalar !== null) return this.#text(scalar, room);
    if (this.#above.has(value)) return "<circular>";
    if (depth >= LIMITS.contentDepth) return "<deeper>";
    this.#above.add(value);
    try {
      if (Array.isArray(value)) return this.#items(value, value.length, room, depth);
      if (value instanceof Set) {
        const size = sizeOfSet.call(value);
        return this.#items(first(Set.prototype.values.call(value), room), size, room, depth);
      }
      if (value instanceof Map) {
        const size = sizeOfMap.call(value);
        return this.#pairs(first(Map.prototype.entries.call(value), room), size, room, depth);
      }
      const pairs = propertiesOf(value, room);
      return this.#pairs(pairs.kept, pairs.count, room, depth);
    } finally {
      this.#above.delete(value);
    }
  }

  #items(items: readonly unknown[], count: number, room: number, depth: number): Plain[] {
    const most = Math.max(2, Math.floor(room / ITEM_CHARS));
    const tail = items.length > most ? most >> 1 : 0;
    const chosen =
      items.length > most
        ? [...part(items, 0, most - tail), ...part(items, items.length - tail, items.length)]
        : part(items, 0, items.length);
    const shares = sharesOf(chosen, room);
    const plain = chosen.map((item, i) => this.plain(item, shares[i] ?? 0, depth + 1));
    const left = count - chosen.length;
    if (left > 0) {
      this.cut += left * ITEM_CHARS;
      plain.splice(chosen.length - tail, 0, `...[${grouped(left)} items cut]...`);
    }
    return plain;
  }

  #pairs(pairs: readonly [unknown, unknown][], count: number, room: number, depth: number): Plain {
    const found: { [key: string]: Plain } = Object.create(null);
    const shares = sharesOf(
      pairs.map(([, value]) => value),
      room,
    );
    for (const [i, [key, value]] of pairs.entries()) {
      if (value === undefined) continue;
      const name = typeof key === "string" ? key : JSON.stringify(this.plain(key, 64, depth + 1));
      found[wellFormed(name.slice(0, LIMITS.keyChars))] = this.plain(
        value,
        shares[i] ?? 0,
        depth + 1,
      );
    }
    if (count > pairs.length) {
      this.cut += (count - pairs.length) * ITEM_CHARS;
      found["..."] = `[${grouped(count - pairs.length)} keys cut]`;
    }
    return found;
  }
}

// A class of the program may have iterators, a `slice` or a `size` of its own, so those of the
// language are called.
const getter = (prototype: object): (() => number) =>
  Object.getOwnPropertyDescriptor(prototype, "size")?.get as () => number;
const sizeOfSet = getter(Set.prototype);
const sizeOfMap = getter(Map.prototype);

/** The items at these places; a getter among them is not called. */
function part(items: readonly unknown[], from: number, to: number): unknown[] {
  const found: unknown[] = [];
  for (let i = 0; i < to - from; i += 1) found.push(dataOf(items, String(from + i)));
  return found;
}

/** The value of an own property, which a getter does not have; undefined where there is none. */
function dataOf(value: object, key: string): unknown {
  const property = Object.getOwnPropertyDescriptor(value, key);
  return property === undefined || "value" in property ? property?.value : "<getter>";
}

/** The first items of a set or map, as many as there is room for. */
function first<T>(values: Iterable<T>, room: number): T[] {
  const most = Math.max(2, Math.floor(room / ITEM_CHARS));
  const kept: T[] = [];
  for (const value of values) {
    if (kept.length >= most) break;
    kept.push(value);
  }
  return kept;
}

/** The object's own enumerable data properties; a getter is not called. */
function propertiesOf(value: object, room: number): { kept: [string, unknown][]; count: number } {
  const keys = Object.keys(value);
  const most = Math.max(2, Math.floor(room / ITEM_CHARS));
  const kept: [string, unknown][] = [];
  for (const key of keys.length > most ? keys.slice(0, most) : keys) {
    kept.push([key, dataOf(value, key)]);
  }
  return { kept, count: keys.length };
}

/** An object that is one text: a date, an address, an error, bytes; null for any other. */
function scalarOf(value: object): string | null {
  if (value instanceof Date) {
    const time = Date.prototype.getTime.call(value);
    return Number.isNaN(time) ? "Invalid Date" : Date.prototype.toISOString.call(value);
  }
  if (value instanceof Error) {
    const message = Object.getOwnPropertyDescriptor(value, "message")?.value;
    return `${typeName(value)}: ${typeof message === "string" ? message : ""}`;
  }
  if (value instanceof URL) return URL.prototype.toString.call(value);
  if (value instanceof RegExp) return RegExp.prototype.toString.call(value);
  if (value instanceof ArrayBuffer || value instanceof DataView) {
    return fileMark("bytes", value.byteLength);
  }
  if (ArrayBuffer.isView(value)) {
    const array = value as unknown as ArrayLike<number> & ArrayBufferView;
    if (value instanceof Uint8Array) return fileMark("bytes", value.byteLength);
    const first = Array.prototype.slice.call(array, 0, 4).join(", ");
    return `<${typeName(value)} ${grouped(array.length)}: ${first}${array.length > 4 ? ", ..." : ""}>`;
  }
  if (value instanceof Promise || value instanceof WeakMap || value instanceof WeakSet) {
    return `<${typeName(value)}>`;
  }
  return null;
}

/** The name of the value's class, read without calling anything of it. */
export function typeName(value: object): string {
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype === null || typeof prototype !== "object") return "Object";
  const built = Object.getOwnPropertyDescriptor(prototype, "constructor")?.value;
  if (typeof built !== "function") return "Object";
  const name = Object.getOwnPropertyDescriptor(built, "name")?.value;
  return typeof name === "string" && name !== "" ? name.slice(0, LIMITS.keyChars) : "Object";
}

/** What each value gets of the room: small ones what they need, the others equal shares. */
function sharesOf(values: readonly unknown[], room: number): number[] {
  const sizes = values.map((value) => estimate(value, 2));
  const shares = sizes.map(() => 0);
  const order = sizes.map((_, i) => i).sort((a, b) => (sizes[a] ?? 0) - (sizes[b] ?? 0));
  let left = room;
  for (const [done, i] of order.entries()) {
    const fair = Math.floor(left / (order.length - done));
    shares[i] = Math.min(fair, sizes[i] ?? fair);
    left -= shares[i] ?? 0;
  }
  return shares;
}

/** About how many characters the value takes; `Infinity` for what would take long to count. */
function estimate(value: unknown, depth: number): number {
  try {
    return estimated(value, depth);
  } catch {
    return ITEM_CHARS; // what cannot be read becomes a mark
  }
}

function estimated(value: unknown, depth: number): number {
  if (typeof value === "string") return value.length + 3;
  if (typeof value !== "object" || value === null) return ITEM_CHARS;
  if (depth === 0) return Number.POSITIVE_INFINITY;
  const keys = Array.isArray(value) ? null : Object.keys(value);
  const count = keys === null ? (value as readonly unknown[]).length : keys.length;
  if (count > ESTIMATED_ITEMS) return Number.POSITIVE_INFINITY;
  let size = ITEM_CHARS;
  for (let i = 0; i < count; i += 1) {
    size += ITEM_CHARS + estimated(dataOf(value, keys?.[i] ?? String(i)), depth - 1);
  }
  return size;
}
