import { get, post, skew } from "./api";
import { type Question, questionsOf } from "./ask";
import type { Contents } from "./contents";
import { session } from "./session.svelte";
import type { Step } from "./steps";
import {
  contentsOf,
  type Json,
  list,
  maybe,
  num,
  object,
  type Run,
  runOf,
  stepsOfColumns,
  text,
} from "./wire";

const API = "/api/v1";

/** Reads who uses the page. Raises `Problem`. */
export async function readSession(): Promise<void> {
  const found = object(await get<Json>(`${API}/session`));
  session.known = true;
  session.user = text(found.user);
  session.mayAct = found.may_act === true;
  session.readOnly = found.read_only
    ? text(found.read_only_reason) || "This console shows and does not act."
    : "";
  session.projects = list(found.projects).map(text);
  session.bySession = found.by_session === true;
  session.version = text(found.version);
  setServerTime(found.server_time);
}

/** Ends the session: its cookie and every copy of it are refused afterwards. */
export async function signOut(): Promise<void> {
  await post<Json>(`${API}/logout`, {});
}

/** Takes the server's time of an answer that has just arrived. */
export function setServerTime(value: unknown): void {
  const stamp = num(value);
  if (stamp) skew.ms = stamp / 1000 - Date.now();
}

/** An answer of the query layer: rows as objects, and what they mean in a sentence. */
export interface Answer {
  rows: Json[];
  sentence: string;
  sql: string;
}

export function answerOf(value: unknown): Answer {
  const found = object(value);
  const columns = list(found.columns).map(text);
  const rows = list(found.rows).map((row) =>
    Array.isArray(row) ? Object.fromEntries(columns.map((name, k) => [name, row[k]])) : object(row),
  );
  return { rows, sentence: text(found.sentence), sql: text(found.sql) };
}

/** A page of runs with the numbers of each facet. */
export interface RunList {
  runs: Run[];
  total: number;
  matching: number;
  facets: [string, [string, number][]][];
  asOf: number;
}

export async function runs(params: URLSearchParams): Promise<RunList> {
  const found = object(await get<Json>(`${API}/runs?${params}`));
  const rows = list(found.runs).map((row) => runOf(object(row)));
  return {
    runs: rows,
    total: num(found.total),
    matching: num(found.matching ?? found.total),
    facets: Object.entries(object(found.facets)).map(([name, values]) => [
      name,
      list(values).map((pair): [string, number] => [text(list(pair)[0]), num(list(pair)[1])]),
    ]),
    asOf: num(found.as_of),
  };
}

/** 5th percentile, median and 95th percentile of good runs. */
export interface Range {
  low: number;
  median: number;
  high: number;
}

export function rangeOf(value: unknown): Range | null {
  const [low, median, high] = list(value).map(maybe);
  return low === null || median === null || high === null || high === undefined
    ? null
    : { low: low as number, median: median as number, high };
}

export interface RunHead {
  run: Run;
  normal: {
    runs: number;
    cost: Range | null;
    duration: Range | null;
    steps: Range | null;
    input: Range | null;
    output: Range | null;
  };
  alerts: Alert[];
  asOf: number;
}

function headOf(found: Json): RunHead {
  const normal = object(found.normal);
  return {
    run: runOf(object(found.run)),
    normal: {
      runs: num(normal.runs),
      cost: rangeOf(normal.cost_usd),
      duration: rangeOf(normal.duration_us),
      steps: rangeOf(normal.steps),
      input: rangeOf(normal.input_tokens),
      output: rangeOf(normal.output_tokens),
    },
    alerts: list(found.alerts).map((one) => alertOf(object(one))),
    asOf: num(found.as_of),
  };
}

export async function run(id: string): Promise<RunHead> {
  return headOf(object(await get<Json>(`${API}/runs/${encodeURIComponent(id)}`)));
}

/** The header of a run that the store does not have yet, as one of its steps describes it. */
export function headOfNew(id: string, step: Step): RunHead {
  const { agent, name, start } = step;
  return headOf({ run: { trace_id: id, agent, name, status: "running", start_time: start } });
}

export async function steps(id: string): Promise<{ steps: Step[]; cut: boolean }> {
  const found = object(await get<Json>(`${API}/runs/${encodeURIComponent(id)}/steps`));
  return {
    steps: stepsOfColumns(object(found.columns) as Record<string, unknown[]>),
    cut: found.cut === true,
  };
}

export interface BandPoint {
  elapsed: number;
  low: number;
  median: number;
  high: number;
}

export async function band(id: string): Promise<{ runs: number; points: BandPoint[] }> {
  const found = object(await get<Json>(`${API}/runs/${encodeURIComponent(id)}/band`));
  return {
    runs: num(found.runs),
    points: list(found.points).map((one) => {
      const point = object(one);
      return {
        elapsed: num(point.elapsed_us),
        low: num(point.p5),
        median: num(point.p50),
        high: num(point.p95),
      };
    }),
  };
}

/** The most of one content that the server sends. */
const MOST_BYTES = 16 * 1024 * 1024;

export async function contents(id: string, step: string, whole = false): Promise<Contents> {
  const more = whole ? `?bytes=${MOST_BYTES}` : "";
  return contentsOf(
    object(await get<Json>(`${API}/runs/${id}/steps/${encodeURIComponent(step)}/content${more}`)),
  );
}

/** The steps of two runs in order, with the ids of those that correspond. */
export async function aligned(a: string, b: string): Promise<[string, string][]> {
  const found = answerOf(await get<Json>(`${API}/compare?${new URLSearchParams({ a, b })}`));
  return found.rows.map((row) => [text(row.a_step_id), text(row.b_step_id)]);
}

export async function suspects(id: string): Promise<Answer> {
  return answerOf(await get<Json>(`${API}/runs/${id}/suspects`));
}

export async function questions(): Promise<Question[]> {
  return questionsOf(await get<Json>(`${API}/questions`));
}

export async function ask(question: string, given: Record<string, string>): Promise<Answer> {
  return answerOf(await get<Json>(`${API}/ask/${question}?${new URLSearchParams(given)}`));
}

/** Compares a provider's usage export with the recorded costs. */
export async function costCheck(csv: string, provider: string): Promise<Answer> {
  return answerOf(await post<Json>(`${API}/ask/cost-check`, { csv, provider }));
}

export interface Alert {
  id: string;
  seq: number;
  state: string;
  severity: string;
  name: string;
  rule: string;
  policy: string;
  project: string;
  agent: string;
  version: string;
  task: string;
  run: string;
  runs: string[];
  subject: string;
  steps: string[];
  value: number | null;
  threshold: number | null;
  baseline: number | null;
  baselineRuns: number;
  unit: string;
  message: string;
  detail: string;
  quoted: string;
  opened: number;
  updated: number;
  resolved: number;
  acknowledgedBy: string;
  silencedUntil: number;
  action: string;
  change: string;
  by: string;
  reopened: number;
  runCount: number;
  withdrawn: boolean;
}

export function alertOf(row: Json): Alert {
  return {
    id: text(row.alert_id),
    seq: num(row.seq),
    state: text(row.state),
    severity: text(row.severity),
    name: text(row.alert),
    rule: text(row.rule),
    policy: text(row.policy),
    project: text(row.project),
    agent: text(row.agent),
    version: text(row.agent_version),
    task: text(row.task),
    run: text(row.trace_id),
    runs: list(row.trace_ids).map(text),
    subject: text(row.subject),
    steps: list(row.step_ids).map(text),
    value: maybe(row.value),
    threshold: maybe(row.threshold),
    baseline: maybe(row.baseline),
    baselineRuns: num(row.baseline_runs),
    unit: text(row.unit),
    message: text(row.message),
    detail: text(row.detail),
    quoted: text(row.quoted),
    opened: num(row.opened_at),
    updated: num(row.updated_at),
    resolved: num(row.resolved_at),
    acknowledgedBy: text(row.acknowledged_by),
    silencedUntil: num(row.silenced_until),
    action: text(row.action),
    change: text(row.change),
    by: text(row.by),
    reopened: num(row.reopened),
    runCount: num(row.runs),
    withdrawn: row.withdrawn === true,
  };
}

export async function alerts(params: URLSearchParams): Promise<{ alerts: Alert[]; counts: Json }> {
  const found = object(await get<Json>(`${API}/alerts?${params}`));
  return {
    alerts: list(found.alerts).map((one) => alertOf(object(one))),
    counts: object(found.counts),
  };
}

export async function alert(id: string): Promise<{ alert: Alert; events: Alert[] }> {
  const found = object(await get<Json>(`${API}/alerts/${encodeURIComponent(id)}`));
  return {
    alert: alertOf(object(found.alert)),
    events: list(found.events).map((one) => alertOf(object(one))),
  };
}

export interface RunningRun {
  run: Run;
  normal: Range | null;
  lastStep: { kind: string; title: string; start: number } | null;
}

/** A limit of spend, and what of it is used. */
export interface Budget {
  policy: string;
  name: string;
  /** what it is for: a project, an agent, a user ... */
  whose: string;
  window: string;
  spent: number | null;
  limit: number;
}

function budgetOf(row: Json): Budget {
  return {
    policy: text(row.policy),
    name: text(row.alert),
    whose: text(row.group) || text(row.project) || "all projects",
    window: text(row.window),
    spent: row.spent_usd === null ? null : Number(row.spent_usd),
    limit: Number(row.limit_usd),
  };
}

export interface NowData {
  running: RunningRun[];
  ended: { runs: number; failed: number; seconds: number };
  alerts: Alert[];
  firing: number;
  hour: number | null;
  hourBefore: number | null;
  byAgent: [string, number][];
  /** null until the console has read them */
  budgets: Budget[] | null;
  asOf: number;
}

export async function now(project: string): Promise<NowData> {
  const found = object(
    await get<Json>(`${API}/now${project ? `?${new URLSearchParams({ project })}` : ""}`),
  );
  const ended = object(found.ended);
  const spend = object(found.spend);
  return {
    running: list(found.running).map((one) => {
      const row = object(one);
      const last = object(row.last_step);
      return {
        run: runOf(row),
        normal: rangeOf(row.normal),
        lastStep: last.step_id
          ? {
              kind: text(last.kind),
              title: text(last.model) || text(last.tool) || text(last.name),
              start: num(last.start_time),
            }
          : null,
      };
    }),
    ended: { runs: num(ended.runs), failed: num(ended.failed), seconds: num(ended.seconds) },
    alerts: list(found.alerts).map((one) => alertOf(object(one))),
    firing: num(found.firing),
    hour: maybe(spend.hour_usd),
    hourBefore: maybe(spend.hour_before_usd),
    byAgent: list(spend.by_agent).map((one) => [
      text(object(one).agent),
      num(object(one).cost_usd),
    ]),
    budgets:
      found.budgets === null ? null : list(found.budgets).map((one) => budgetOf(object(one))),
    asOf: num(found.as_of),
  };
}

export async function cost(
  params: URLSearchParams,
): Promise<{ by: Record<string, Answer>; spikes: Answer }> {
  const found = object(await get<Json>(`${API}/cost?${params}`));
  return {
    by: Object.fromEntries(
      Object.entries(object(found.by)).map(([name, one]) => [name, answerOf(one)]),
    ),
    spikes: answerOf(found.spikes),
  };
}

export async function system(doctor: boolean): Promise<Json> {
  return object(await get<Json>(`${API}/system${doctor ? "?doctor=1" : ""}`));
}

export async function actOnRun(id: string, action: string, body: Json): Promise<Json> {
  return object(await post<Json>(`${API}/runs/${id}/${action}`, body));
}

export async function actOnAlert(id: string, action: string, body: Json): Promise<Alert> {
  const found = object(await post<Json>(`${API}/alerts/${id}/${action}`, body));
  return alertOf(object(found.alert));
}
