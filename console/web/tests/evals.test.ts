import { describe, expect, it } from "vitest";
import {
  changeOf,
  endsOf,
  evaluationOf,
  linesOf,
  metricsOf,
  moved,
  pairsOf,
  rateOf,
  sideOf,
  stateOfTrial,
} from "../src/lib/evals";

const trial = (number: number, success: string, trace_id = "") => ({
  trial: number,
  success,
  crashed: false,
  reason: "",
  trace_id,
});
const found = evaluationOf({
  verdict: { outcome: "fail", found: {} },
  cases: [
    { case: "same", baseline: [trial(0, "true")], candidate: [trial(0, "true")] },
    { case: "better", baseline: [trial(0, "false")], candidate: [trial(0, "true")] },
    {
      case: "worse",
      baseline: [trial(0, "true", "a"), trial(1, "true")],
      candidate: [trial(1, "false", "b"), trial(0, "unknown", "c")],
    },
    { case: "new", baseline: [], candidate: [trial(0, "false")] },
  ],
});

describe("an evaluation", () => {
  it("lists the cases that moved, the greatest loss first", () => {
    expect(moved(found.cases).map((one) => one.name)).toEqual(["worse", "better"]);
    expect(rateOf(found.cases[2].candidate)).toBe(0);
    expect(rateOf([])).toBe(0);
  });

  it("shows trials of the same number side by side", () => {
    const [first, second] = pairsOf(found.cases[2]);
    expect([first[0]?.run, first[1]?.run]).toEqual(["a", "c"]);
    expect(second.map((one) => one && stateOfTrial(one))).toEqual(["ok", "error"]);
    expect(pairsOf(found.cases[3])[0][0]).toBeNull();
  });

  it("reads anything as an empty one", () => {
    expect(evaluationOf({ cases: [null, 5] }).cases).toHaveLength(2);
    expect(evaluationOf({}).verdict).toBeNull();
  });
});

describe("metrics of a verdict", () => {
  it("have points, factors and errors, with intervals", () => {
    const metrics = metricsOf({
      found: {
        metrics: [
          { metric: "success", change: -0.123, low: -0.2, high: -0.04, failed: true },
          { metric: "cost", change: 1.1, low: 1.0, high: 1.21, passed: true },
          { metric: "tool_errors", change: -0.5, low: -0.8, high: -0.2 },
          { metric: "tokens", change: 1, low: null, high: null },
        ],
      },
    });
    expect(metrics.map((one) => one.change)).toEqual(["-12.3 points", "1.10 x", "+0.50", "1.00 x"]);
    expect(metrics.map((one) => one.interval)).toEqual([
      "-20.0 points to -4.0 points",
      "1.00 x to 1.21 x",
      "+0.20 to +0.80",
      "too few cases",
    ]);
    expect(metrics.map((one) => one.state)).toEqual([
      "fail",
      "pass",
      "inconclusive",
      "inconclusive",
    ]);
    expect(changeOf("success", null)).toBe("unknown");
  });

  it("has the pass rate of each side", () => {
    const verdict = {
      found: {
        baseline: { pass_rate: 0.9, interval: [0.8, 0.95] },
        candidate: { pass_rate: null },
      },
    };
    expect(sideOf(verdict, "baseline")).toBe("90 % (80 % to 95 %)");
    expect(sideOf(verdict, "candidate")).toBe("unknown");
  });
});

describe("success over time", () => {
  it("is one line an agent, without unknown runs in its shares", () => {
    const rows = [
      { agent: "a", time: "2026-11-29", succeeded: 3, failed: 1, unknown: 9, success_rate: 0.75 },
      { agent: "a", time: "2026-11-30", succeeded: 0, failed: 0, unknown: 2, success_rate: 0 },
      { agent: "b", time: "2026-11-30", succeeded: 1, failed: 0, unknown: 0, success_rate: 1 },
    ];
    const lines = linesOf({ rows, sentence: "", sql: "" });
    expect(lines.map((line) => line.points.map((point) => point.known))).toEqual([[4, 0], [1]]);
    expect(lines.map(endsOf)).toEqual([
      ["75 %", "75 %"],
      ["100 %", "100 %"],
    ]);
  });
});
