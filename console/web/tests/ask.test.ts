import { describe, expect, it } from "vitest";
import { cell, commandOf, givenOf, linkOf, missing, pythonOf, questionsOf } from "../src/lib/ask";

const [whyTool] = questionsOf({
  questions: [
    {
      name: "why-tool",
      asks: "Why did a run choose a tool?",
      parameters: [
        { name: "run", kind: "run", help: "Id of the run.", default: null, choices: [] },
        { name: "step", kind: "text", help: "The step.", default: "", choices: [] },
      ],
      columns: { tool: "the tool" },
    },
  ],
});

describe("a question", () => {
  it("is ready when what it needs is given", () => {
    expect(missing(whyTool, {})).toEqual(["run"]);
    const given = givenOf(whyTool, new URLSearchParams("question=why-tool&run=4bf9&other=1"));
    expect(given).toEqual({ run: "4bf9" });
    expect(missing(whyTool, given)).toEqual([]);
  });

  it("is the same command and line of Python", () => {
    const given = { since: "7d", agent: "the shop's", run: "4bf9", text: "a b" };
    expect(commandOf("search", given)).toBe(
      "stepstream ask search --since 7d --agent 'the shop'\\''s' run=4bf9 'text=a b'",
    );
    expect(pythonOf("cost", { by: "model", agent: 'a"b' })).toBe(
      'stepstream.query("cost", by="model", agent="a\\"b")',
    );
  });
});

describe("a cell", () => {
  const now = Date.UTC(2026, 10, 30, 12) * 1000;
  it.each([
    ["cost_usd", 0.25, "$0.250"],
    ["cost_usd", "0.25", "$0.250"],
    ["p95_duration_us", 2_500_000, "2.5 s"],
    ["start_time", now, "12:00:00"],
    ["start_us", now, "12:00:00"],
    ["error_rate", 0.256, "26 %"],
    ["output_tokens", 12_345, "12,345"],
    ["ratio", 1.23456, "1.235"],
    ["is_clear", true, "yes"],
    ["cost_usd", null, ""],
    [
      "path",
      [
        ["00f0", "plan"],
        ["00f1", "answer"],
      ],
      "00f0 plan, 00f1 answer",
    ],
    ["name", "a\u202eb\u001b[31m", "a⟦RLO⟧b⟦ESC⟧[31m"],
  ])("of %s: %j is %s", (name, value, expected) => {
    expect(cell(name, value, now)).toBe(expected);
  });

  it("links to its run and step", () => {
    const row = { trace_id: "4bf9", step_id: "00f0" };
    expect(linkOf("trace_id", row)).toBe("/runs/4bf9");
    expect(linkOf("step_id", row)).toBe("/runs/4bf9?step=00f0");
    expect(linkOf("step_id", { step_id: "00f0" })).toBe("");
  });
});
