import { describe, expect, it } from "vitest";
import { makeAxis, ticks } from "../src/lib/axis";
import { barOf, scrollTo, windowOf } from "../src/lib/layout";
import { buildTree } from "../src/lib/tree";
import { step } from "./support";

const run = buildTree([
  step("root", { kind: "agent", from: 0, to: 100_000 }),
  step("first", { parent: "root", from: 0, to: 1000 }),
  step("second", { parent: "root", from: 99_000, to: 100_000 }),
]);

describe("makeAxis", () => {
  it("is proportional to time on the real axis", () => {
    const axis = makeAxis(run, "real", 0);
    expect(axis.span(1)).toEqual([0, 0.01]);
    expect(axis.at(50_000_000)).toBeCloseTo(0.5);
    expect(axis.time(0.5)).toBeCloseTo(50_000_000);
  });

  it("folds the time in which nothing ran", () => {
    const axis = makeAxis(run, "folded", 0);
    expect(axis.gaps.map(({ from, to }) => [from, to])).toEqual([[1_000_000, 99_000_000]]);
    const [a, b] = axis.span(1);
    const [c, d] = axis.span(2);
    expect(b - a).toBeCloseTo(d - c);
    expect(b - a).toBeGreaterThan(0.4);
    expect(axis.span(0)).toEqual([0, 1]);
  });

  it("gives every step the same width by step", () => {
    const axis = makeAxis(run, "step", 0);
    expect(axis.span(0)).toEqual([0, 1]);
    expect(axis.span(2)[1] - axis.span(2)[0]).toBeCloseTo(1 / 3);
  });

  it("draws open steps up to now", () => {
    const open = buildTree([step("a", { from: 0, to: null }), step("b", { from: 0, to: 5000 })]);
    expect(makeAxis(open, "real", 10_000_000).span(0)).toEqual([0, 1]);
  });

  it("stands negative durations and empty runs", () => {
    const odd = buildTree([step("a", { from: 10, to: 0 }), step("b", { from: 20, to: 30 })]);
    for (const mode of ["real", "folded", "step"] as const) {
      const axis = makeAxis(odd, mode, 0);
      for (const i of [0, 1]) {
        const [from, to] = axis.span(i);
        expect(from).toBeGreaterThanOrEqual(0);
        expect(to).toBeLessThanOrEqual(1);
        expect(to).toBeGreaterThanOrEqual(from);
      }
      expect(makeAxis(buildTree([]), mode, 0).at(5)).toBeDefined();
    }
  });

  it("never folds more than the line has room for", () => {
    const many = buildTree(
      Array.from({ length: 500 }, (_, i) =>
        step(`s${i}`, { from: i * 100_000, to: i * 100_000 + 1 }),
      ),
    );
    const axis = makeAxis(many, "folded", 0);
    expect(axis.gaps.length).toBe(499);
    const gaps = axis.gaps.reduce((sum, gap) => sum + gap.x1 - gap.x0, 0);
    expect(gaps).toBeCloseTo(0.33);
  });
});

describe("ticks", () => {
  it("counts seconds from the start", () => {
    expect(ticks(makeAxis(run, "real", 0), 0, 1, 10, 3).map((tick) => tick.label)).toEqual([
      "0 s",
      "10 s",
      "20 s",
      "30 s",
      "40 s",
      "50 s",
      "60 s",
      "70 s",
      "80 s",
      "90 s",
      "100 s",
    ]);
  });

  it("leaves out the folded time", () => {
    const labels = ticks(makeAxis(run, "folded", 0), 0, 1, 6, 3).map((tick) => tick.label);
    expect(labels[0]).toBe("0 s");
    expect(labels).not.toContain("50 s");
  });

  it("numbers the steps by step", () => {
    expect(ticks(makeAxis(run, "step", 0), 0, 1, 3, 3).map((tick) => tick.label)).toEqual([
      "first",
      "1",
      "2",
      "3",
    ]);
  });

  it("ends for any zoom", () => {
    const axis = makeAxis(run, "real", 0);
    for (const [a, b] of [
      [0, 1e-9],
      [0.5, 0.5000001],
      [0.999999, 1],
    ]) {
      expect(ticks(axis, a, b, 8, 3).length).toBeLessThan(200);
    }
  });
});

describe("layout", () => {
  it("draws the visible rows and a few more", () => {
    expect(windowOf(0, 240, 24, 50_000)).toEqual({ first: 0, last: 23 });
    expect(windowOf(24_000, 240, 24, 50_000)).toEqual({ first: 994, last: 1017 });
    expect(windowOf(1e9, 240, 24, 10)).toEqual({ first: 4, last: 10 });
    expect(windowOf(0, 240, 24, 0)).toEqual({ first: 0, last: 0 });
  });

  it("scrolls only as far as needed", () => {
    expect(scrollTo(5, 0, 240, 24)).toBe(0);
    expect(scrollTo(20, 0, 240, 24)).toBe(288);
    expect(scrollTo(2, 240, 240, 24)).toBe(24);
  });

  it("cuts bars at the zoomed part", () => {
    const axis = makeAxis(run, "real", 0);
    expect(barOf(axis, 1, 0, 0.02)).toMatchObject({ x: 0, width: 50, outside: 0 });
    expect(barOf(axis, 1, 0.5, 1).outside).toBe(-1);
    expect(barOf(axis, 2, 0, 0.5).outside).toBe(1);
  });
});
