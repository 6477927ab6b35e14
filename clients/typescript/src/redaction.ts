/**
 * Secrets out of texts, before they leave the process: by their form (keys of known services, web
 * tokens, private keys) and by their name (`"password": "..."`, `api_key=...`).
 *
 * The same rules as the Python SDK's, from the same tables; the time is linear in the text.
 */
import {
  CREDENTIALS,
  HARMLESS_TOKENS,
  KEYS,
  NAMES,
  NUMBERED,
  PATTERNS,
  REDACTED,
  REDACTION,
  TEXT_FORMS,
} from "./tables.ts";

type Span = readonly [start: number, end: number, instead: string];

const sticky = (source: string, flags = "") => new RegExp(source, `y${flags}`);
const ASSIGNED = sticky(PATTERNS.assigned);
const OPENING = sticky(PATTERNS.opening);
const LIST = sticky(PATTERNS.list);
const NUMBER = sticky(PATTERNS.number);
const BARE = sticky(PATTERNS.bare);
const CODE = new RegExp(`^(?:${PATTERNS.code})`);
const SCHEME = sticky(PATTERNS.scheme, "i");
const NOT_A_SECRET = new RegExp(`^(?:${PATTERNS.notASecret})`, "i");
const KEY_HINT = new RegExp(PATTERNS.keyHint, "g");
const TOKEN_HEAD = new RegExp(PATTERNS.tokenHead);
const TOKEN_TAIL = sticky(PATTERNS.tokenTail);
const TOKEN_CHAR = /[A-Za-z0-9_-]/;

const global = (form: { hint: string; pattern: string; instead: string }) => ({
  ...form,
  pattern: new RegExp(form.pattern, "g"),
});
const FORMS = TEXT_FORMS.map(global);
const HEADERS = CREDENTIALS.map(global);
const KEY_FORMS = new Map(KEYS.map(([start, source]) => [start, new RegExp(source, "g")]));
const NAME_FORMS = NAMES.map(([stem, rest, before]) => ({
  stem,
  before,
  rest: sticky(`(?:${rest})`),
  whole: sticky(`(?:${rest})$`),
}));
const NUMBERED_STEMS = new Set(NUMBERED);
const LEVELS = new Set<number>(REDACTION.levels);

/** The text with `[redacted]` where secrets were. */
export function withoutSecrets(text: string): string {
  let clean = text;
  for (const form of FORMS) {
    if (clean.includes(form.hint)) clean = clean.replace(form.pattern, form.instead);
  }
  // `eyJ` is base64 of `{"`: the payload of a JSON Web Token begins so.
  if (clean.includes(".eyJ")) clean = replaced(clean, webTokens(clean));
  for (const form of HEADERS) {
    if (clean.includes(form.hint)) clean = clean.replace(form.pattern, form.instead);
  }
  for (const start of keyStarts(clean)) {
    clean = clean.replace(KEY_FORMS.get(start) as RegExp, REDACTED);
  }
  return replaced(clean, new Named(clean).spans());
}

/** Whether a field's name is one of secrets: `db_password`, `X-Api-Key`, `accessToken`. */
export function isSecretName(name: string): boolean {
  const low = name.toLowerCase();
  for (const { stem, whole, before } of NAME_FORMS) {
    const at = low.lastIndexOf(stem);
    if (at < 0) continue;
    whole.lastIndex = at + stem.length;
    if (whole.test(low) && precededBy(low, at, before)) return !isHarmless(low, at, stem);
  }
  return false;
}

function precededBy(low: string, at: number, before: readonly string[]): boolean {
  return before.length === 0 || before.some((word) => low.endsWith(word, at));
}

function isHarmless(low: string, at: number, stem: string): boolean {
  if (stem !== "token") return false;
  const before = low.slice(Math.max(0, at - 40), at).replace(/[_\-. ]+$/, "");
  return HARMLESS_TOKENS.some((word) => before.endsWith(word));
}

function matchAt(pattern: RegExp, text: string, at: number): RegExpExecArray | null {
  pattern.lastIndex = at;
  return pattern.exec(text);
}

function keyStarts(text: string): Set<string> {
  const found = new Set<string>();
  for (const hint of text.matchAll(KEY_HINT)) {
    const end = hint.index + 1;
    const before = text.slice(Math.max(0, end - REDACTION.longestStart), end);
    for (const [start] of KEYS) if (before.endsWith(start)) found.add(start);
  }
  return found;
}

// Found by the dot between the parts of a token, so that a run of letters is read once, however
// often `eyJ` stands in it.
function webTokens(text: string): Span[] {
  const spans: Span[] = [];
  let done = 0;
  for (let dot = text.indexOf(".eyJ"); dot >= 0; dot = text.indexOf(".eyJ", done)) {
    const tail = matchAt(TOKEN_TAIL, text, dot);
    let begin = dot;
    while (begin > done && TOKEN_CHAR.test(text[begin - 1] as string)) begin -= 1;
    const head = tail === null ? null : TOKEN_HEAD.exec(text.slice(begin, dot));
    if (tail === null || head === null) {
      done = dot + 1;
      continue;
    }
    done = dot + tail[0].length;
    spans.push([begin + head.index, done, REDACTED]);
  }
  return spans;
}

function replaced(text: string, spans: Span[]): string {
  if (spans.length === 0) return text;
  const parts: string[] = [];
  let done = 0;
  for (const [start, end, instead] of spans.sort((a, b) => a[0] - b[0] || a[1] - b[1])) {
    // Of two overlapping finds the first one is replaced.
    if (start < done) continue;
    parts.push(text.slice(done, start), instead);
    done = end;
  }
  parts.push(text.slice(done));
  return parts.join("");
}

/** A run of characters of a bare value; names within one run share what is known of it. */
interface Run {
  start: number;
  end: number;
  close: number;
  lastDigit: number;
  lastLetter: number;
}

/** Finds the values after names of secrets in one text. */
class Named {
  readonly #text: string;
  readonly #quotes = new Map<string, [at: number, slashes: number][]>();
  readonly #closings = new Map<string, [at: number, end: number][]>();
  #run: Run = { start: 0, end: 0, close: 0, lastDigit: -1, lastLetter: -1 };

  constructor(text: string) {
    this.#text = text;
  }

  spans(): Span[] {
    let low = this.#text.toLowerCase();
    // A few letters grow when lowered; positions must agree.
    if (low.length !== this.#text.length)
      low = this.#text.replace(/[A-Z]/g, (c) => c.toLowerCase());
    const spans: Span[] = [];
    for (const { stem, rest, before } of NAME_FORMS) {
      let end = 0;
      for (let at = low.indexOf(stem); at >= 0; at = low.indexOf(stem, end)) {
        end = at + stem.length;
        const name = matchAt(rest, low, end);
        if (name === null || !precededBy(low, at, before) || isHarmless(low, at, stem)) continue;
        const found = this.#valueAfter(end + name[0].length, stem);
        if (found !== null) {
          spans.push(found);
          end = Math.max(end, found[1]);
        }
      }
    }
    return spans;
  }

  #valueAfter(end: number, name: string): Span | null {
    const text = this.#text;
    const assigned = matchAt(ASSIGNED, text, end);
    if (assigned === null) return null;
    const close = assigned.groups?.["close"] ?? "";
    const at = end + assigned[0].length;
    const first = text[at];
    if (first === '"' || first === "'" || first === "\\") return this.#quoted(at, name);
    if (first === "[" && close) {
      const listed = matchAt(LIST, text, at);
      if (listed === null) return null;
      const value = listed.groups?.["value"] ?? "";
      return [at + 1, at + 1 + value.length, `${close}${REDACTED}${close}`];
    }
    if (close) {
      const number = NUMBERED_STEMS.has(name) ? matchAt(NUMBER, text, at) : null;
      if (number === null) return null;
      return [at, at + number[0].length, `${close}${REDACTED}${close}`];
    }
    const { sign, gap } = assigned.groups as { sign: string; gap: string };
    const spaced = sign === ":" || gap !== "" || /\s/.test(text[at - 1] ?? "");
    return this.#bare(at, spaced, name);
  }

  #quoted(at: number, name: string): Span | null {
    const opening = matchAt(OPENING, this.#text, at);
    if (opening === null) return null;
    const start = at + opening[0].length;
    const end = this.#endOfQuoted(opening[2] as string, (opening[1] as string).length, start);
    const value = this.#text.slice(start, end);
    if (value.length <= REDACTION.examinedChars && NOT_A_SECRET.test(value)) return null;
    if (name === "token" && !isRandom(value)) return null;
    return [start, end, REDACTED];
  }

  // Every level of JSON doubles the backslashes and puts one before the quote. So with k of them
  // before the opening quote, a quote with k + b(k+1) follows b backslashes that belong to the
  // value: it closes where b is even. Deeper than the levels that are known, the next quote of
  // the kind ends it.
  #endOfQuoted(kind: string, level: number, from: number): number {
    const closings = this.#closingsOf(kind, LEVELS.has(level) ? level : -1);
    let [low, high] = [0, closings.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((closings[middle] as [number, number])[0] < from) low = middle + 1;
      else high = middle;
    }
    return closings[low]?.[1] ?? this.#text.length;
  }

  #closingsOf(kind: string, level: number): [number, number][] {
    const key = `${kind}${level}`;
    const known = this.#closings.get(key);
    if (known !== undefined) return known;
    const found: [number, number][] = [];
    for (const [at, slashes] of this.#quotesOf(kind)) {
      const own = level >= 0 ? Math.floor((slashes - level) / (level + 1)) : -1;
      const odd = level >= 0 ? slashes - level - own * (level + 1) : 0;
      if (own < 0 || this.#text[at] === "\n") found.push([at, at - slashes]);
      else if (odd === 0 && own % 2 === 0) found.push([at, at - level]);
    }
    this.#closings.set(key, found);
    return found;
  }

  #quotesOf(kind: string): [number, number][] {
    const known = this.#quotes.get(kind);
    if (known !== undefined) return known;
    const found: [number, number][] = [];
    let begin = 0;
    for (const sign of this.#text.matchAll(new RegExp(`[${kind}\\n]`, "g"))) {
      let slashes = 0;
      while (sign.index - slashes > begin && this.#text[sign.index - slashes - 1] === "\\") {
        slashes += 1;
      }
      found.push([sign.index, slashes]);
      begin = sign.index + 1;
    }
    this.#quotes.set(kind, found);
    return found;
  }

  /** A value without quotes; after `: ` or a space not a word of ordinary text. */
  #bare(from: number, spaced: boolean, name: string): Span | null {
    const text = this.#text;
    const scheme = matchAt(SCHEME, text, from);
    const at = scheme === null ? from : from + scheme[0].length;
    const run = this.#runAt(at);
    if (run.end - at < REDACTION.bareChars || CODE.test(text.slice(at, run.end + 1))) return null;
    if (run.end - at <= REDACTION.examinedChars && NOT_A_SECRET.test(text.slice(at, run.end))) {
      return null;
    }
    const isMixed = run.lastDigit >= at && run.lastLetter >= at;
    if ((spaced || name === "token") && !isMixed) return null;
    return run.close > at ? [at, run.close, REDACTED] : null;
  }

  #runAt(at: number): Run {
    if (this.#run.start <= at && at < this.#run.end) return this.#run;
    const found = matchAt(BARE, this.#text, at);
    if (found === null) return { start: at, end: at, close: at, lastDigit: -1, lastLetter: -1 };
    let length = found[0].length;
    while (length > 0 && ".:!?".includes(found[0][length - 1] as string)) length -= 1;
    const value = found[0].slice(0, length);
    const last = (pattern: RegExp) => {
      for (let place = value.length - 1; place >= 0; place -= 1) {
        if (pattern.test(value[place] as string)) return at + place;
      }
      return -1;
    };
    this.#run = {
      start: at,
      end: at + found[0].length,
      close: at + value.length,
      lastDigit: last(/\d/),
      lastLetter: last(/\p{L}/u),
    };
    return this.#run;
  }
}

/** Whether a value named token is a key and not a word or a part of a text. */
function isRandom(value: string): boolean {
  return value.length >= 8 && !/\s/.test(value) && (value.length >= 20 || /\d/.test(value));
}
