/**
 * Text of models, tools and users as it is shown: control characters and characters that change
 * the direction of writing appear as names in brackets, because hidden ones can make a text read
 * differently from what it is. Line breaks and tabs stay.
 */
const HIDDEN =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb]|[\ufe00-\ufe0f]|\udb40[\udc00-\udfff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

const NAMES: Record<number, string> = {
  0: "NUL",
  7: "BEL",
  8: "BS",
  13: "CR",
  27: "ESC",
  127: "DEL",
  173: "SHY",
  1564: "ALM",
  8203: "ZWSP",
  8204: "ZWNJ",
  8205: "ZWJ",
  8206: "LRM",
  8207: "RLM",
  8234: "LRE",
  8235: "RLE",
  8236: "PDF",
  8237: "LRO",
  8238: "RLO",
  8294: "LRI",
  8295: "RLI",
  8296: "FSI",
  8297: "PDI",
  65279: "BOM",
};

function named(text: string): string {
  const code = text.codePointAt(0) as number;
  return `⟦${NAMES[code] ?? `U+${code.toString(16).toUpperCase().padStart(4, "0")}`}⟧`;
}

/** The text with hidden characters named. A joiner or selector within an emoji stays. */
export function visible(text: string): string {
  if (text.search(HIDDEN) < 0) return text;
  return text.replace(HIDDEN, (hit, at: number) => {
    const code = hit.charCodeAt(0);
    const joins = code === 0x200d || (code >= 0xfe00 && code <= 0xfe0f);
    if (joins && at > 0 && /\p{Extended_Pictographic}|[\udc00-\udfff]|\ufe0f/u.test(text[at - 1]))
      return hit;
    if (code === 13 && text[at + 1] === "\n") return "";
    return named(hit);
  });
}

/** One line of at most `limit` characters, hidden characters named. */
export function oneLine(text: string, limit = 200): string {
  const cut = text.length > limit * 2 ? text.slice(0, limit * 2) : text;
  const line = visible(cut).replace(/\s+/g, " ").trim();
  return line.length > limit ? `${line.slice(0, limit - 1)}…` : line;
}
