/** Money of one step or run: three decimals, more where they would hide all of it. */
export function money(usd: number | null | undefined): string {
  if (usd === null || usd === undefined) return "unknown";
  if (usd !== 0 && Math.abs(usd) < 0.0005)
    return Math.abs(usd) < 0.00005 ? "<0.0001" : usd.toFixed(4);
  return Math.abs(usd) >= 1000 ? grouped(usd, 2) : usd.toFixed(3);
}

export function dollars(usd: number | null | undefined): string {
  const text = money(usd);
  if (text === "unknown") return text;
  return text.startsWith("<")
    ? `<$${text.slice(1)}`
    : text.startsWith("-")
      ? `-$${text.slice(1)}`
      : `$${text}`;
}

/** Sums and budgets: two decimals. */
export function sum(usd: number | null | undefined): string {
  if (usd === null || usd === undefined) return "unknown";
  if (usd !== 0 && Math.abs(usd) < 0.005) return dollars(usd);
  return `$${grouped(usd, 2)}`;
}

export function grouped(value: number, decimals = 0): string {
  const [whole, part] = Math.abs(value).toFixed(decimals).split(".");
  const text = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  return `${value < 0 ? "-" : ""}${text}${part ? `.${part}` : ""}`;
}

/** Counts: whole up to a million, then 4.1 M. */
export function count(value: number): string {
  if (!Number.isFinite(value)) return "unknown";
  if (Math.abs(value) >= 1e9) return `${(value / 1e9).toFixed(1)} G`;
  if (Math.abs(value) >= 1e6) return `${(value / 1e6).toFixed(1)} M`;
  return grouped(Math.round(value));
}

export function factor(value: number): string {
  return `${value >= 10 ? Math.round(value) : value.toFixed(1)} x`;
}

export function share(value: number): string {
  return `${Math.round(value * 100)} %`;
}

/** 40 ms, 2.5 s, 1 m 05 s, 2 h 10 m, 3 d 4 h. */
export function period(us: number): string {
  const negative = us < 0;
  const value = Math.abs(us);
  let text: string;
  if (value < 1) text = "0 s";
  else if (value < 1000) text = `${Math.round(value)} µs`;
  else if (value < 99_950) text = `${+(value / 1000).toPrecision(2)} ms`;
  else if (value < 59_950_000) text = `${(value / 1e6).toFixed(1)} s`;
  else if (value < 3600e6) text = two(value / 1e6, 60, "m", "s");
  else if (value < 86400e6) text = two(value / 60e6, 60, "h", "m");
  else text = `${Math.floor(value / 86400e6)} d ${Math.floor((value % 86400e6) / 3600e6)} h`;
  return negative ? `-${text}` : text;
}

function two(value: number, base: number, big: string, small: string): string {
  const whole = Math.round(value);
  return `${Math.floor(whole / base)} ${big} ${String(whole % base).padStart(2, "0")} ${small}`;
}

export function bytes(value: number): string {
  if (value < 1000) return `${value} B`;
  if (value < 1e6) return `${+(value / 1e3).toPrecision(3)} KB`;
  if (value < 1e9) return `${+(value / 1e6).toPrecision(3)} MB`;
  return `${+(value / 1e9).toPrecision(3)} GB`;
}

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/** Clock in UTC; another day than that of `now` is named. Both in microseconds. */
export function clock(us: number, now: number): string {
  if (!Number.isFinite(us) || us <= 0) return "unknown";
  const date = new Date(us / 1000);
  if (Number.isNaN(date.getTime())) return "unknown";
  const hms = date.toISOString().slice(11, 19);
  const today = new Date(now / 1000);
  if (date.toISOString().slice(0, 10) === today.toISOString().slice(0, 10)) return hms;
  const day = `${date.getUTCDate()} ${MONTHS[date.getUTCMonth()]}`;
  const year = date.getUTCFullYear() === today.getUTCFullYear() ? "" : ` ${date.getUTCFullYear()}`;
  return `${day}${year} ${hms.slice(0, 5)}`;
}

/** The first six digits of an id. */
export function shortId(id: string): string {
  return id.slice(0, 6);
}

export function plural(n: number, one: string, many = `${one}s`): string {
  return `${count(n)} ${n === 1 ? one : many}`;
}
