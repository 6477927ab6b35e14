import { get } from "./api";
import { type Answer, answerOf } from "./data";
import { share } from "./format";
import { type Json, list, maybe, num, object, text } from "./wire";

const API = "/api/v1/evals";

/** What the page of all evaluations shows. */
export interface Overview {
  verdicts: Answer;
  experiments: Answer;
  success: Answer;
  failed: Answer;
}

/** One execution of a case; `run` is empty where its run is not in the store. */
export interface Trial {
  trial: number;
  success: string;
  crashed: boolean;
  reason: string;
  run: string;
}

/** A case with the trials of both sides; of an experiment the baseline is empty. */
export interface Case {
  name: string;
  baseline: Trial[];
  candidate: Trial[];
}

/** A verdict, or published results where `verdict` is null. */
export interface Evaluation {
  verdict: Json | null;
  results: Json | null;
  cases: Case[];
  cut: boolean;
}

/** A metric of a verdict; differences are negative where the candidate is worse. */
export interface Metric {
  name: string;
  change: string;
  interval: string;
  state: "pass" | "fail" | "inconclusive";
}

export async function overview(params: URLSearchParams): Promise<Overview> {
  const found = object(await get<Json>(`${API}?${params}`));
  return {
    verdicts: answerOf(found.verdicts),
    experiments: answerOf(found.experiments),
    success: answerOf(found.success),
    failed: answerOf(found.failed_criteria),
  };
}

export async function evaluation(id: string): Promise<Evaluation> {
  return evaluationOf(object(await get<Json>(`${API}/${encodeURIComponent(id)}`)));
}

export function evaluationOf(found: Json): Evaluation {
  return {
    verdict: found.verdict ? object(found.verdict) : null,
    results: found.results ? object(found.results) : null,
    cases: list(found.cases).map((one) => {
      const row = object(one);
      return {
        name: text(row.case),
        baseline: trialsOf(row.baseline),
        candidate: trialsOf(row.candidate),
      };
    }),
    cut: found.cut === true,
  };
}

function trialsOf(value: unknown): Trial[] {
  return list(value).map((one) => {
    const row = object(one);
    return {
      trial: num(row.trial),
      success: text(row.success),
      crashed: row.crashed === true,
      reason: text(row.reason),
      run: text(row.trace_id),
    };
  });
}

const RATIOS = ["cost", "tokens", "latency"];

export function metricsOf(verdict: Json): Metric[] {
  return list(object(verdict.found).metrics).map((one) => {
    const row = object(one);
    const name = text(row.metric);
    // Errors are shown as a rise, whose larger bound is the lower one of the difference.
    const bounds = name === "tool_errors" ? [row.high, row.low] : [row.low, row.high];
    const [low, high] = bounds.map(maybe);
    return {
      name,
      change: changeOf(name, maybe(row.change)),
      interval:
        low === null || high === null
          ? "too few cases"
          : `${changeOf(name, low)} to ${changeOf(name, high)}`,
      state: row.failed === true ? "fail" : row.passed === true ? "pass" : "inconclusive",
    };
  });
}

/** A change as people read it: points of success, a factor of cost, errors per trial. */
export function changeOf(metric: string, value: number | null): string {
  if (value === null) return "unknown";
  if (RATIOS.includes(metric)) return `${value.toFixed(2)} x`;
  const shown = metric === "success" ? value * 100 : -value;
  const sign = shown > 0 ? "+" : "";
  return metric === "success" ? `${sign}${shown.toFixed(1)} points` : `${sign}${shown.toFixed(2)}`;
}

/** The pass rate of one side of a verdict, with its interval where there is one. */
export function sideOf(verdict: Json, side: "baseline" | "candidate"): string {
  const row = object(object(verdict.found)[side]);
  const rate = maybe(row.pass_rate);
  const interval = list(row.interval).map(num);
  if (rate === null) return "unknown";
  return interval.length === 2
    ? `${share(rate)} (${share(interval[0])} to ${share(interval[1])})`
    : share(rate);
}

/** The share of trials that succeeded; an unknown outcome counts as none. */
export function rateOf(trials: readonly Trial[]): number {
  return trials.length ? trials.filter((one) => one.success === "true").length / trials.length : 0;
}

/** Cases whose share of successes differs between the sides, the greatest loss first. */
export function moved(cases: readonly Case[]): Case[] {
  const change = (one: Case) => rateOf(one.candidate) - rateOf(one.baseline);
  return cases
    .filter((one) => one.baseline.length && one.candidate.length && change(one) !== 0)
    .sort((a, b) => change(a) - change(b));
}

/** The state of a trial, by the names of `states.ts`. */
export function stateOfTrial(one: Trial): string {
  return one.success === "true" ? "ok" : one.success === "false" ? "error" : "unknown";
}

/** The state of a verdict, by the names of `states.ts`. */
export function stateOfVerdict(outcome: string): string {
  return outcome === "pass" ? "ok" : outcome === "fail" ? "error" : "unknown";
}

/** Trials of the same number on both sides, as far as either has them. */
export function pairsOf(one: Case): [Trial | null, Trial | null][] {
  const numbers = [...one.baseline, ...one.candidate].map((trial) => trial.trial);
  return [...new Set(numbers)]
    .sort((a, b) => a - b)
    .map((number) => [
      one.baseline.find((trial) => trial.trial === number) ?? null,
      one.candidate.find((trial) => trial.trial === number) ?? null,
    ]);
}

/** Success of one agent over time. */
export interface Line {
  agent: string;
  points: { time: unknown; rate: number; known: number }[];
}

export function linesOf(answer: Answer): Line[] {
  const lines = new Map<string, Line>();
  for (const row of answer.rows) {
    const agent = text(row.agent);
    const line = lines.get(agent) ?? { agent, points: [] };
    const known = num(row.succeeded) + num(row.failed);
    line.points.push({ time: row.time, rate: num(row.success_rate), known });
    lines.set(agent, line);
  }
  return [...lines.values()];
}

/** The first and the last share of a line that is known, as people read it. */
export function endsOf(line: Line): [string, string] {
  const known = line.points.filter((point) => point.known);
  if (!known.length) return ["unknown", "unknown"];
  return [share(known[0].rate), share(known[known.length - 1].rate)];
}
