import type { Contents } from "./contents";
import type { Step } from "./steps";

/** JSON of the server, of which nothing is assumed. */
export type Json = Record<string, unknown>;

export function text(value: unknown): string {
  return value === null || value === undefined
    ? ""
    : typeof value === "string"
      ? value
      : String(value);
}

export function num(value: unknown): number {
  const number =
    typeof value === "string" && value !== ""
      ? Number(value)
      : typeof value === "number"
        ? value
        : 0;
  return Number.isFinite(number) ? number : 0;
}

/** A number that may be unknown: null for null, an absent value and text that is no number. */
export function maybe(value: unknown): number | null {
  if (value === null || value === undefined || value === "") return null;
  const number = Number(value);
  return Number.isFinite(number) ? number : null;
}

/** Microseconds since 1970 of an integer of microseconds or a text such as 2026-11-30 12:00:00. */
export function micros(value: unknown): number | null {
  if (typeof value === "number") return Number.isFinite(value) ? value : null;
  if (typeof value !== "string" || value === "") return null;
  if (/^-?\d+$/.test(value)) return Number(value);
  const iso = value.includes("T") ? value : value.replace(" ", "T");
  const stamp = Date.parse(/[zZ]|[+-]\d\d:?\d\d$/.test(iso) ? iso : `${iso}Z`);
  if (Number.isNaN(stamp)) return null;
  const fraction = /\.(\d+)/.exec(iso)?.[1] ?? "";
  return Math.floor(stamp / 1000) * 1_000_000 + Math.round(Number(`0.${fraction || 0}`) * 1e6);
}

export function list(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}

export function object(value: unknown): Json {
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? (value as Json)
    : {};
}

/** One step from an object with the names of the view `steps`. */
export function stepOf(row: Json): Step {
  const end = row.phase === "start" ? null : micros(row.end_time);
  const usage = object(row.usage);
  const cost = maybe(row.cost_usd);
  const source = text(row.cost_source);
  return {
    id: text(row.step_id),
    parent: text(row.parent_step_id),
    kind: text(row.kind) || "other",
    name: text(row.name),
    tool: text(row.tool),
    model: text(row.model),
    agent: text(row.agent),
    start: micros(row.start_time) ?? micros(row.start_us) ?? 0,
    end,
    status: end === null ? "" : text(row.status) || "ok",
    errorType: text(row.error_type),
    errorMessage: text(row.error_message),
    attempt: num(row.attempt) || 1,
    retryOf: text(row.retry_of),
    inputTokens: num(row.input_tokens ?? usage.input_tokens),
    outputTokens: num(row.output_tokens ?? usage.output_tokens),
    cachedTokens: num(row.cached_input_tokens ?? usage.cached_input_tokens),
    cost,
    unpriced: cost === null && source === "unpriced",
    inputBytes: num(row.input_bytes),
    outputBytes: num(row.output_bytes),
    hidden: text(row.hidden_error),
    detail: text(row.detail),
  };
}

/** Steps from columns: a name to a list of values, all of the same length. */
export function stepsOfColumns(columns: Record<string, unknown[]>): Step[] {
  const names = Object.keys(columns);
  const n = columns.step_id?.length ?? 0;
  const steps: Step[] = new Array(n);
  for (let i = 0; i < n; i++) {
    const row: Json = {};
    for (const name of names) row[name] = columns[name][i];
    steps[i] = stepOf(row);
  }
  return steps;
}

/** Contents of one step from an object with the names of the view `steps`. */
export function contentsOf(row: Json): Contents {
  const input = text(row.input);
  const output = text(row.output);
  return {
    input,
    output,
    inputBytes: num(row.input_bytes) || new Blob([input]).size,
    outputBytes: num(row.output_bytes) || new Blob([output]).size,
    inputCut: Boolean(row.input_cut),
    outputCut: Boolean(row.output_cut),
    documents: list(row.documents).map((item) => {
      const document = object(item);
      return {
        id: text(document.id),
        score: maybe(document.score),
        content: text(document.content),
      };
    }),
    attributes: Object.entries(object(row.attributes)).map(([name, value]) => [name, text(value)]),
  };
}

/** A run as lists and headers show it. */
export interface Run {
  id: string;
  name: string;
  status: string;
  closed: boolean;
  project: string;
  environment: string;
  agent: string;
  version: string;
  task: string;
  /** the requested task that the run is an attempt at; empty: none */
  taskId: string;
  attempt: number;
  session: string;
  user: string;
  start: number;
  end: number | null;
  steps: number;
  errorSteps: number;
  inputTokens: number;
  outputTokens: number;
  cost: number | null;
  unpriced: number;
  failedStep: string;
  errorType: string;
  errorMessage: string;
  failedTool: string;
  findings: number;
}

export function runOf(row: Json): Run {
  const status = text(row.status);
  return {
    id: text(row.trace_id),
    name: text(row.name),
    status,
    closed: Boolean(row.closed),
    project: text(row.project),
    environment: text(row.environment),
    agent: text(row.agent),
    version: text(row.agent_version),
    task: text(row.task),
    taskId: text(row.task_id),
    attempt: num(row.attempt),
    session: text(row.session_id),
    user: text(row.user_id),
    start: micros(row.start_time) ?? 0,
    end: status === "running" ? null : micros(row.end_time),
    steps: num(row.steps),
    errorSteps: num(row.error_steps),
    inputTokens: num(row.input_tokens),
    outputTokens: num(row.output_tokens),
    cost: maybe(row.cost_usd),
    unpriced: num(row.unpriced_steps),
    failedStep: text(row.failed_step_id),
    errorType: text(row.error_type),
    errorMessage: text(row.error_message),
    failedTool: text(row.failed_tool),
    findings: num(row.findings),
  };
}

/** Agent and task as one name. */
export function runTitle(run: Run): string {
  return [run.agent || run.name || "run", run.task].filter(Boolean).join(" / ");
}
