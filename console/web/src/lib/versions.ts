import type { Answer } from "./data";
import { count, dollars, period, share } from "./format";
import { maybe, num, text } from "./wire";

/** One measure of two versions: values, difference and how certain it is. */
export interface Measure {
  name: string;
  before: string;
  after: string;
  difference: string;
  /** the interval of 95 % in words; why there is none otherwise */
  interval: string;
  verdict: string;
  /** whether the difference is certain and for the worse or the better */
  tone: "" | "better" | "worse";
  /** positions on a rail from -1 to 1, 0 is no difference; null without an interval */
  low: number | null;
  high: number | null;
  at: number | null;
}

/** A version of an agent with the number of its closed runs. */
export interface Version {
  agent: string;
  version: string;
  runs: number;
}

const SHOWN: Record<string, (value: number) => string> = {
  "error rate": (value) => share(value),
  "cost in dollars": (value) => dollars(value),
  seconds: (value) => period(value * 1e6),
  steps: (value) => value.toFixed(1),
  tokens: (value) => count(value),
};
const NAMES: Record<string, string> = {
  "error rate": "Failed runs",
  "cost in dollars": "Cost of a run",
  seconds: "Time of a run",
  steps: "Steps of a run",
  tokens: "Tokens of a run",
};

function signed(value: number, show: (value: number) => string): string {
  if (value === 0) return "none";
  return `${value > 0 ? "+" : "-"}${show(Math.abs(value))}`;
}

/** The rows of the question `versions` for people. More of every measure is worse. */
export function measures(answer: Answer): Measure[] {
  return answer.rows.map((row) => {
    const measure = text(row.measure);
    const show = SHOWN[measure] ?? ((value: number) => value.toPrecision(3));
    const [before, after] = [maybe(row.old_value), maybe(row.new_value)];
    const [difference, low, high] = [maybe(row.difference), maybe(row.low), maybe(row.high)];
    const known = difference !== null && low !== null && high !== null;
    const most = known ? Math.max(Math.abs(low), Math.abs(high), 1e-12) : 1;
    const clear = row.is_clear === true;
    const relative =
      difference !== null && before ? ` (${signed(difference / Math.abs(before), share)})` : "";
    return {
      name: NAMES[measure] ?? measure,
      before: before === null ? "no runs" : show(before),
      after: after === null ? "no runs" : show(after),
      difference: difference === null ? "" : signed(difference, show) + relative,
      interval: known ? `${signed(low, show)} to ${signed(high, show)}` : "too few runs",
      verdict: !known
        ? "not known"
        : !clear
          ? "may be chance"
          : (difference ?? 0) > 0
            ? "more"
            : "less",
      tone: !clear || !difference ? "" : difference > 0 ? "worse" : "better",
      low: known ? low / most : null,
      high: known ? high / most : null,
      at: known ? (difference ?? 0) / most : null,
    };
  });
}

/** Agents with several versions, from the question `percentiles`; the most used versions first. */
export function versionsOf(answer: Answer): Map<string, Version[]> {
  const found = new Map<string, Version[]>();
  for (const row of answer.rows) {
    const one = { agent: text(row.agent), version: text(row.agent_version), runs: num(row.runs) };
    found.set(one.agent, [...(found.get(one.agent) ?? []), one]);
  }
  return new Map([...found].filter(([, versions]) => versions.length > 1));
}

/** Versions in their order: 2 before 10, v1.9 before v1.10. */
export function inOrder(versions: Version[]): Version[] {
  return [...versions].sort((a, b) =>
    a.version.localeCompare(b.version, "en", { numeric: true, sensitivity: "base" }),
  );
}
