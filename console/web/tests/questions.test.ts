import { expect, test } from "vitest";
import { costCards } from "../src/lib/questions";
import { step } from "./support";

const ROW = {
  agent: "support",
  kind: "llm_call",
  name: "plan again",
  tool: "",
  model: "gpt-4o",
  calls: 3,
  normal_calls: 0,
  cost_usd: 0.3,
  normal_usd: 0,
  step_ids: ["c"],
};

test("a card of costs names every step that it adds up, not the most expensive ones alone", () => {
  const same = { agent: "support", kind: "llm_call", name: "plan again", model: "gpt-4o" };
  const steps = [
    step("a", same),
    step("b", { agent: "support" }),
    step("c", same),
    step("d", same),
  ];
  const number = (id: string) => steps.findIndex((one) => one.id === id) + 1;
  const [card] = costCards({ rows: [ROW], sentence: "", sql: "" }, number, steps);
  expect(card.steps).toEqual(["a", "c", "d"]);
  expect(card.title).toBe("Steps 1, 3, 4");
  const [alone] = costCards({ rows: [ROW], sentence: "", sql: "" }, number, []);
  expect(alone.steps).toEqual(["c"]);
});
