/**
 * Shortens texts: cuts out the middle, replaces embedded files by their type and size. The time
 * depends on how much is kept, not on the length of the text.
 */
import { LIMITS } from "./tables.ts";

const CUT = /\.\.\.\[([0-9][0-9,]{0,15}) characters cut\]\.\.\./g;
const DATA_URL = /data:([\w.+-]{1,64}\/[\w.+-]{1,64})(?:;[\w.+=-]{1,64}){0,4},[^\s"'<>\\)]*/g;
const BASE64 = new RegExp(`[A-Za-z0-9+/=_-]{${LIMITS.shortestFile},}`, "g");
const DELIMITER = /[\s"'<>,;&{}()[\]]/;
const KEY_END = "PRIVATE KEY-----";
const LONE_SURROGATE = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;
const encoder = new TextEncoder();

/** A number with a comma after each three digits. */
export function grouped(count: number): string {
  return String(Math.round(count)).replace(/\B(?=(\d{3})+$)/g, ",");
}

const cutMark = (characters: number) => `...[${grouped(characters)} characters cut]...`;

/** The mark in the place of an embedded file. */
export function fileMark(mediaType: string, bytes: number): string {
  return `[${mediaType || "base64"}, ${grouped(bytes)} bytes]`;
}

/** The text without halves of surrogate pairs, which UTF-8 cannot have. */
export function wellFormed(text: string): string {
  return text.replace(LONE_SURROGATE, "?");
}

/** The size of the text in UTF-8. */
export function sizeOf(text: string): number {
  // In pieces, so that measuring a long text takes no memory of its size.
  let bytes = 0;
  for (let at = 0; at < text.length; at += 65_536) {
    bytes += encoder.encode(text.slice(at, at + 65_536)).length;
  }
  return bytes;
}

/** The text in at most `most` characters: files replaced, then the middle cut out. */
export function shortened(text: string, most: number): string {
  if (text.length < LIMITS.shortestFile) return cutMiddle(text, most);
  const window = (most >> 1) + 1_024;
  if (text.length <= 2 * window) return cutMiddle(withoutFiles(text), most);
  const whole = fileIn(text, window);
  if (whole !== null) return whole;
  const [head, tail] = [text.slice(0, window), text.slice(-window)];
  const gap = cutMark(text.length - 2 * window);
  return cutMiddle(withoutFiles(head) + gap + withoutFiles(tail), most);
}

/** The mark of a text that is one embedded file, by its beginning and end; otherwise null. */
function fileIn(text: string, window: number): string | null {
  const head = text.slice(0, window);
  const url = /^data:([\w.+-]{1,64}\/[\w.+-]{1,64})(?:;[\w.+=-]{1,64}){0,4},/.exec(head);
  const body = url === null ? head : head.slice(url[0].length);
  const isEncoded = /^[A-Za-z0-9+/=_%-]*$/;
  if (!isEncoded.test(body) || !isEncoded.test(text.slice(-window)) || !isVaried(body)) return null;
  return fileMark(url?.[1] ?? mediaTypeOf(body), ((text.length - (url?.[0].length ?? 0)) * 3) / 4);
}

function withoutFiles(text: string): string {
  let clean = text;
  if (clean.includes("data:")) {
    clean = clean.replace(DATA_URL, (url, mediaType: string) => {
      const length = url.length - url.indexOf(",") - 1;
      return length < LIMITS.shortestDataUrl ? url : fileMark(mediaType, (length * 3) / 4);
    });
  }
  return clean.replace(BASE64, (run) =>
    isVaried(run) ? fileMark(mediaTypeOf(run), (run.length * 3) / 4) : run,
  );
}

/** Whether a run of base64's characters is base64, and no word or number that is repeated. */
function isVaried(run: string): boolean {
  const block = run.slice(0, 512);
  return (
    /[a-z]/.test(block) && /[A-Z]/.test(block) && /\d/.test(block) && new Set(block).size >= 24
  );
}

const SIGNATURES: readonly (readonly [string, string])[] = [
  ["iVBORw", "image/png"],
  ["/9j/", "image/jpeg"],
  ["R0lGOD", "image/gif"],
  ["JVBER", "application/pdf"],
  ["UEsDB", "application/zip"],
  ["H4sI", "application/gzip"],
  ["T2dnUw", "audio/ogg"],
];

function mediaTypeOf(base64: string): string {
  return SIGNATURES.find(([start]) => base64.startsWith(start))?.[1] ?? "";
}

/** Beginning and end of the text with a mark between them, at most `most` characters in all. */
export function cutMiddle(text: string, most: number, wholeWords = true): string {
  if (text.length <= most) return text;
  const room = most - longestMark(text);
  if (room < 2) return text.slice(0, Math.max(0, most));
  return cutOut(text, room - (room >> 1), text.length - (room >> 1), wholeWords);
}

/** The text with its middle cut out, in `maxBytes` of UTF-8; and its size in bytes before. */
export function cutToBytes(text: string, maxBytes: number): [text: string, bytes: number] {
  // No character takes more than three bytes for each unit of UTF-16.
  if (text.length * 3 <= maxBytes) return [text, sizeOf(text)];
  const bytes = sizeOf(text);
  if (bytes <= maxBytes) return [text, bytes];
  let most = Math.min(maxBytes, Math.floor((text.length * maxBytes) / bytes));
  for (;;) {
    const cut = wellFormed(cutMiddle(text, most, false));
    const size = sizeOf(cut);
    if (size <= maxBytes || most === 0) return [cut, bytes];
    most = Math.max(0, Math.min(most - 1, Math.floor((most * maxBytes) / size)));
  }
}

function longestMark(text: string): number {
  let characters = text.length;
  for (const earlier of text.matchAll(CUT)) characters += counted(earlier);
  return cutMark(characters).length;
}

const counted = (mark: RegExpExecArray) => Number((mark[1] as string).replaceAll(",", ""));

function cutOut(text: string, from: number, to: number, wholeWords: boolean): string {
  let [start, stop] = [from, to];
  for (const earlier of text.matchAll(CUT)) {
    const end = earlier.index + earlier[0].length;
    // An earlier mark that the cut would divide becomes part of it.
    if (earlier.index < start && start <= end) start = earlier.index;
    if (earlier.index <= stop && stop < end) stop = end;
  }
  if (wholeWords) [start, stop] = atWords(text, start, stop);
  let missing = stop - start;
  for (const earlier of text.matchAll(CUT)) {
    const isInside = earlier.index >= start && earlier.index < stop;
    if (isInside) missing += counted(earlier) - earlier[0].length;
  }
  return text.slice(0, start) + cutMark(missing) + text.slice(stop);
}

// Half of a secret would not be recognised by the redaction, so a cut divides no word.
function atWords(text: string, from: number, to: number): [number, number] {
  let [start, stop] = [from, to];
  const least = Math.max(0, start - LIMITS.wordChars);
  for (let at = start; at > least; at -= 1) {
    if (DELIMITER.test(text[at - 1] as string)) {
      start = at;
      break;
    }
  }
  const next = text.slice(stop, stop + LIMITS.wordChars).search(DELIMITER);
  if (next >= 0) stop += next;
  const key = text.indexOf(KEY_END, stop);
  if (key >= 0 && !text.slice(stop, key).includes("-----BEGIN")) stop = key + KEY_END.length;
  return [start, stop];
}
