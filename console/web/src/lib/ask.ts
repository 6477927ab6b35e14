import { clock, count, dollars, period, share } from "./format";
import { oneLine } from "./visible";
import { type Json, list, maybe, micros, object, text } from "./wire";

/** A parameter of a question: what it means and what is used where none is given. */
export interface Parameter {
  name: string;
  kind: string;
  help: string;
  /** null: it has to be given */
  fallback: string | null;
  choices: string[];
}

export interface Question {
  name: string;
  asks: string;
  parameters: Parameter[];
  /** what each column means */
  columns: Record<string, string>;
}

export function questionsOf(value: unknown): Question[] {
  return list(object(value).questions).map((one) => {
    const row = object(one);
    return {
      name: text(row.name),
      asks: text(row.asks),
      parameters: list(row.parameters).map((given) => {
        const parameter = object(given);
        return {
          name: text(parameter.name),
          kind: text(parameter.kind),
          help: text(parameter.help),
          fallback: parameter.default === null ? null : text(parameter.default),
          choices: list(parameter.choices).map(text),
        };
      }),
      columns: Object.fromEntries(
        Object.entries(object(row.columns)).map(([name, meaning]) => [name, text(meaning)]),
      ),
    };
  });
}

/** The parameters of a question that the address gives. */
export function givenOf(question: Question, params: URLSearchParams): Record<string, string> {
  const found: Record<string, string> = {};
  for (const one of question.parameters) {
    const value = params.get(one.name);
    if (value) found[one.name] = value;
  }
  return found;
}

/** Names of the parameters that have to be given and are not. */
export function missing(question: Question, given: Record<string, string>): string[] {
  return question.parameters
    .filter((one) => one.fallback === null && !given[one.name])
    .map((one) => one.name);
}

const OPTIONS = ["by", "since", "until", "project", "environment", "agent", "limit"];

function quoted(value: string): string {
  return /^[\w.,:=@/+-]+$/.test(value) ? value : `'${value.replaceAll("'", `'\\''`)}'`;
}

/** The command that gives the same answer in the terminal. */
export function commandOf(question: string, given: Record<string, string>): string {
  const words = Object.entries(given).map(([name, value]) =>
    OPTIONS.includes(name) ? `--${name} ${quoted(value)}` : quoted(`${name}=${value}`),
  );
  return ["stepstream ask", question, ...words].join(" ");
}

/** The line of Python that gives the same answer. */
export function pythonOf(question: string, given: Record<string, string>): string {
  const words = Object.entries(given).map(([name, value]) => `, ${name}=${JSON.stringify(value)}`);
  return `stepstream.query(${JSON.stringify(question)}${words.join("")})`;
}

/** A value as people read it; the name of its column decides its form. */
export function cell(name: string, value: unknown, now: number): string {
  if (value === null || value === undefined) return "";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Array.isArray(value)) {
    const items = value.map((one) =>
      Array.isArray(one)
        ? one
            .map((part) => cell("", part, now))
            .filter(Boolean)
            .join(" ")
        : cell("", one, now),
    );
    return oneLine(items.join(", "), 300);
  }
  const number = maybe(value);
  if (number !== null && (typeof value === "number" || name.endsWith("_usd"))) {
    if (name.endsWith("_usd")) return dollars(number);
    if (isTime(name)) return clock(number, now);
    if (name.endsWith("_us")) return period(number);
    if (/(share|rate|similarity)$/.test(name)) return share(number);
    if (Number.isInteger(number)) return count(number);
    return String(+number.toPrecision(4));
  }
  if (isTime(name)) return clock(micros(value) ?? 0, now);
  return oneLine(text(value), 300);
}

function isTime(name: string): boolean {
  return /(^|_)(time|hour|at|start_us|opened|updated)$/.test(name);
}

/** Whether a column is aligned to the right. */
export function isNumber(rows: readonly Json[], name: string): boolean {
  return rows.some((row) => typeof row[name] === "number") || name.endsWith("_usd");
}

/** The page of what a cell names; "" where it names none. */
export function linkOf(name: string, row: Json): string {
  const run = text(row.trace_id);
  if (name === "trace_id" && run) return `/runs/${run}`;
  if (name === "step_id" && run && text(row.step_id))
    return `/runs/${run}?step=${text(row.step_id)}`;
  return "";
}
