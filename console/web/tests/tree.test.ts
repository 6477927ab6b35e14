import { describe, expect, it } from "vitest";
import { buildTree, flatten, keepOnly, type Tree, visibleAncestor } from "../src/lib/tree";
import { sequence, step } from "./support";

const ids = (tree: Tree, rows: ArrayLike<number> = flatten(tree, new Set())) =>
  Array.from(rows, (row) => tree.steps[row].id);

describe("buildTree", () => {
  it("puts parents before children and siblings in the order of their starts", () => {
    const tree = buildTree([
      step("late", { parent: "root", from: 50 }),
      step("leaf", { parent: "early", from: 20 }),
      step("root", { from: 0 }),
      step("early", { parent: "root", from: 10 }),
    ]);
    expect(ids(tree)).toEqual(["root", "early", "leaf", "late"]);
    expect([...tree.depth]).toEqual([0, 1, 2, 1]);
    expect([...tree.size]).toEqual([4, 2, 1, 1]);
    expect([...tree.position]).toEqual([1, 1, 1, 2]);
    expect([...tree.siblings]).toEqual([1, 2, 1, 2]);
  });

  it("keeps the order of arrival for equal starts", () => {
    expect(ids(buildTree(["c", "a", "b"].map((id) => step(id))))).toEqual(["c", "a", "b"]);
  });

  it("keeps orphans at the top level and marks them", () => {
    const tree = buildTree([step("root"), step("lost", { parent: "gone", from: 5 })]);
    expect(ids(tree)).toEqual(["root", "lost"]);
    expect(tree.place).toEqual(["root", "orphan"]);
  });

  it("keeps two roots", () => {
    expect(buildTree([step("a"), step("b", { from: 1 })]).place).toEqual(["root", "root"]);
  });

  it("cuts a cycle at its earliest step and loses none", () => {
    const tree = buildTree([
      step("a", { parent: "c", from: 10 }),
      step("b", { parent: "a", from: 5 }),
      step("c", { parent: "b", from: 7 }),
      step("tail", { parent: "c", from: 1 }),
    ]);
    expect(ids(tree)).toEqual(["b", "c", "tail", "a"]);
    expect(tree.place[0]).toBe("cycle");
  });

  it("shows a step that is its own parent", () => {
    const tree = buildTree([step("a", { parent: "a" })]);
    expect(tree.place).toEqual(["cycle"]);
  });

  it("shows both of two steps with the same id", () => {
    expect(buildTree([step("a"), step("a", { from: 1 })]).steps.length).toBe(2);
  });

  it("takes 1,400 levels and 50,000 steps", () => {
    const deep = Array.from({ length: 1400 }, (_, i) =>
      step(`d${i}`, { parent: i ? `d${i - 1}` : "", from: i }),
    );
    const wide = Array.from({ length: 48_600 }, (_, i) =>
      step(`w${i}`, { parent: "d1399", from: 2000 + i }),
    );
    const tree = buildTree([...deep, ...wide]);
    expect(tree.steps.length).toBe(50_000);
    expect(tree.depth[49_999]).toBe(1400);
    expect(tree.size[0]).toBe(50_000);
  });

  it("holds its rules for random parents", () => {
    const random = sequence(21);
    for (let round = 0; round < 200; round++) {
      const n = 1 + Math.floor(random() * 40);
      const steps = Array.from({ length: n }, (_, i) =>
        step(`s${i}`, {
          from: Math.floor(random() * 50),
          parent: random() < 0.2 ? "" : `s${Math.floor(random() * n * 1.1)}`,
        }),
      );
      const tree = buildTree(steps);
      expect(new Set(ids(tree))).toEqual(new Set(steps.map((s) => s.id)));
      expect(ids(tree).length).toBe(n);
      for (let i = 0; i < n; i++) {
        const above = tree.parent[i];
        expect(above).toBeLessThan(i);
        if (above >= 0) {
          expect(i).toBeLessThan(above + tree.size[above]);
          expect(tree.depth[i]).toBe(tree.depth[above] + 1);
        } else expect(tree.depth[i]).toBe(0);
      }
    }
  });
});

describe("flatten", () => {
  const tree = buildTree([
    step("root"),
    step("a", { parent: "root", from: 1 }),
    step("a1", { parent: "a", from: 2 }),
    step("b", { parent: "root", from: 3 }),
  ]);

  it("leaves out what is below folded steps", () => {
    expect(ids(tree, flatten(tree, new Set(["a"])))).toEqual(["root", "a", "b"]);
    expect(ids(tree, flatten(tree, new Set(["root", "a"])))).toEqual(["root"]);
  });

  it("keeps wanted rows with the steps above them", () => {
    expect(
      ids(
        tree,
        keepOnly(tree, (i) => tree.steps[i].id === "a1"),
      ),
    ).toEqual(["root", "a", "a1"]);
  });

  it("names the folded step that hides a row", () => {
    expect(visibleAncestor(tree, 2, new Set(["root", "a"]))).toBe(0);
    expect(visibleAncestor(tree, 2, new Set(["b"]))).toBe(2);
  });
});
