/** A piece of a text; `mark` is set where it is one of the values that were looked for. */
export interface Piece {
  text: string;
  mark: boolean;
}

/** Splits a text at the values, longest first, at most `limit` marks. */
export function marked(text: string, values: readonly string[], limit = 200): Piece[] {
  const wanted = [...new Set(values.filter((value) => value.length > 0))].sort(
    (a, b) => b.length - a.length,
  );
  if (!wanted.length) return [{ text, mark: false }];
  const pieces: Piece[] = [];
  let from = 0;
  while (from < text.length && pieces.length < 2 * limit) {
    let at = -1;
    let found = "";
    for (const value of wanted) {
      const place = text.indexOf(value, from);
      if (place >= 0 && (at < 0 || place < at)) {
        at = place;
        found = value;
      }
    }
    if (at < 0) break;
    if (at > from) pieces.push({ text: text.slice(from, at), mark: false });
    pieces.push({ text: found, mark: true });
    from = at + found.length;
  }
  if (from < text.length) pieces.push({ text: text.slice(from), mark: false });
  return pieces;
}

/** JSON with line breaks; any other text, and long JSON, as it is. */
export function pretty(text: string): string {
  const first = text.trimStart()[0];
  if ((first !== "{" && first !== "[") || text.length > 65_536) return text;
  try {
    return JSON.stringify(JSON.parse(text), null, 1);
  } catch {
    return text;
  }
}

/** Characters of a page of a long content: a page that is larger takes long to lay out. */
export const PAGE = 65_536;

/** The page with this number, from 0, cut so that no character is split. */
export function pageOf(text: string, page: number): string {
  let from = page * PAGE;
  let to = Math.min(text.length, from + PAGE);
  if (from > 0 && isLow(text.charCodeAt(from))) from++;
  if (to < text.length && isLow(text.charCodeAt(to))) to++;
  return text.slice(from, to);
}

function isLow(code: number): boolean {
  return code >= 0xdc00 && code <= 0xdfff;
}
