import { describe, expect, it } from "vitest";
import { type StepEvent, StepSet } from "../src/lib/merge";
import { sequence, step } from "./support";

const start = (id: string): StepEvent => ({ phase: "start", step: step(id, { to: null }) });
const end = (id: string): StepEvent => ({ phase: "end", step: step(id) });

describe("StepSet", () => {
  it("takes a start and then its end", () => {
    const set = new StepSet();
    expect(set.merge([start("a")])).toEqual({ structure: true, touched: ["a"] });
    expect(set.merge([end("a")])).toEqual({ structure: false, touched: ["a"] });
    expect(set.get("a")?.status).toBe("ok");
  });

  it("ignores repeated events and a start after the end", () => {
    const set = new StepSet();
    set.merge([end("a")]);
    expect(set.merge([end("a"), start("a"), start("a")]).touched).toEqual([]);
    expect(set.get("a")?.end).not.toBeNull();
  });

  it("reports another parent as a change of the structure", () => {
    const set = new StepSet();
    set.merge([start("a")]);
    expect(set.merge([{ phase: "end", step: step("a", { parent: "b" }) }]).structure).toBe(true);
  });

  it("gives the same steps however snapshot and tail overlap", () => {
    const random = sequence(7);
    const log: StepEvent[] = [];
    for (let i = 0; i < 60; i++) log.push(start(`s${i}`), end(`s${i}`));
    for (let round = 0; round < 100; round++) {
      const shuffled = [...log].sort(() => random() - 0.5);
      const stored = Math.floor(random() * log.length);
      const tailFrom = Math.floor(random() * (stored + 1));
      const set = new StepSet();
      const first = () => set.merge(shuffled.slice(tailFrom));
      const second = () => {
        const snapshot = new StepSet();
        snapshot.merge(shuffled.slice(0, stored));
        set.snapshot(snapshot.steps);
      };
      if (random() < 0.5) {
        first();
        second();
      } else {
        second();
        first();
      }
      expect(set.size).toBe(60);
      expect(set.steps.every((s) => s.end !== null)).toBe(true);
    }
  });
});
