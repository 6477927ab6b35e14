import { get, post } from "./api";
import type { Contents } from "./contents";
import { live } from "./live.svelte";
import { session } from "./session.svelte";
import type { Step } from "./steps";
import {
  contentsOf,
  type Json,
  list,
  num,
  object,
  type Run,
  runOf,
  stepsOfColumns,
  text,
} from "./wire";

const API = "/api/v1";

/** Reads who uses the page. Failures leave it unknown; the pages report their own. */
export async function startSession(): Promise<void> {
  try {
    const found = object(await get<Json>(`${API}/session`));
    session.known = true;
    session.user = text(found.user ?? found.name);
    session.mayAct = found.may_act === true || list(found.scopes).includes("act");
    session.readOnly =
      text(found.read_only_reason) ||
      (found.read_only ? "This console shows and does not act." : "");
    session.projects = list(found.projects).map(text);
    session.version = text(found.version);
  } catch {
    live.value = "off";
  }
}

/** A page of runs with the numbers of each facet. */
export interface RunList {
  runs: Run[];
  total: number;
  matching: number;
  facets: [string, [string, number][]][];
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
      Array.isArray(values)
        ? values.map((pair): [string, number] =>
            Array.isArray(pair)
              ? [text(pair[0]), num(pair[1])]
              : [text(object(pair).value), num(object(pair).count)],
          )
        : Object.entries(object(values)).map(([value, n]): [string, number] => [value, num(n)]),
    ]),
  };
}

export async function run(id: string): Promise<Json> {
  return object(await get<Json>(`${API}/runs/${encodeURIComponent(id)}`));
}

export async function steps(id: string): Promise<Step[]> {
  const found = object(await get<Json>(`${API}/runs/${encodeURIComponent(id)}/steps`));
  return stepsOfColumns(object(found.columns) as Record<string, unknown[]>);
}

export async function contents(id: string, step: string): Promise<Contents> {
  return contentsOf(object(await get<Json>(`${API}/runs/${id}/steps/${step}`)));
}

/** An answer of the query layer: rows as objects, and what they mean in a sentence. */
export interface Answer {
  question: string;
  rows: Json[];
  sentence: string;
  sql: string;
}

export async function ask(question: string, given: Record<string, string>): Promise<Answer> {
  const found = object(await get<Json>(`${API}/ask/${question}?${new URLSearchParams(given)}`));
  const columns = list(found.columns).map(text);
  const rows = list(found.rows).map((row) =>
    Array.isArray(row) ? Object.fromEntries(columns.map((name, k) => [name, row[k]])) : object(row),
  );
  return { question, rows, sentence: text(found.sentence), sql: text(found.sql) };
}

export async function act(id: string, action: string, more: Json = {}): Promise<Json> {
  return object(await post<Json>(`${API}/runs/${id}/${action}`, more));
}
