import { describe, expect, it } from "vitest";
import { inOrder, measures, versionsOf } from "../src/lib/versions";

const answer = (rows: Record<string, unknown>[]) => ({ rows, sentence: "", sql: "" });

describe("two versions", () => {
  it("shows size, uncertainty and result of each measure", () => {
    const [cost, rate, steps] = measures(
      answer([
        {
          measure: "cost in dollars",
          old_value: 0.1,
          new_value: 0.15,
          difference: 0.05,
          low: 0.01,
          high: 0.09,
          is_clear: true,
        },
        {
          measure: "error rate",
          old_value: 0.2,
          new_value: 0.1,
          difference: -0.1,
          low: -0.3,
          high: 0.1,
          is_clear: false,
        },
        {
          measure: "steps",
          old_value: 4,
          new_value: null,
          difference: null,
          low: null,
          high: null,
        },
      ]),
    );
    expect([cost.before, cost.after, cost.difference]).toEqual([
      "$0.100",
      "$0.150",
      "+$0.050 (+50 %)",
    ]);
    expect([cost.interval, cost.verdict, cost.tone]).toEqual([
      "+$0.010 to +$0.090",
      "more",
      "worse",
    ]);
    expect([cost.low, cost.high]).toEqual([0.01 / 0.09, 1]);
    expect([rate.difference, rate.verdict, rate.tone]).toEqual([
      "-10 % (-50 %)",
      "may be chance",
      "",
    ]);
    expect([steps.after, steps.interval, steps.low]).toEqual(["no runs", "too few runs", null]);
  });

  it("lists agents with several versions, in the order of the versions", () => {
    const found = versionsOf(
      answer([
        { agent: "support", agent_version: "v10", runs: 4 },
        { agent: "support", agent_version: "v9", runs: 40 },
        { agent: "single", agent_version: "1", runs: 4 },
      ]),
    );
    expect([...found.keys()]).toEqual(["support"]);
    expect(inOrder(found.get("support") ?? []).map((one) => one.version)).toEqual(["v9", "v10"]);
  });
});
