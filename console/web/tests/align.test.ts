import { describe, expect, it } from "vitest";
import { align, difference } from "../src/lib/align";
import { step } from "./support";

const run = (names: string) => [...names].map((name, i) => step(`${name}${i}`, { name, from: i }));

describe("align", () => {
  it.each([
    ["abc", "abc", "aa bb cc"],
    ["abc", "axbc", "aa -x bb cc"],
    ["abbc", "abc", "aa bb b- cc"],
    ["", "ab", "-a -b"],
    ["ab", "", "a- b-"],
    ["abc", "xyz", "a- b- c- -x -y -z"],
  ])("%s and %s", (a, b, expected) => {
    const [left, right] = [run(a), run(b)];
    const text = align(left, right).map(
      ([i, j]) => (left[i]?.name ?? "-") + (right[j]?.name ?? "-"),
    );
    expect(text.join(" ")).toBe(expected);
  });

  it("uses every step once, also in very long runs", () => {
    const a = Array.from({ length: 5000 }, (_, i) =>
      step(`a${i}`, { name: `n${i % 97}`, from: i }),
    );
    const b = [...a.slice(0, 100), ...a.slice(150)].map((s, i) =>
      i % 500 === 7 ? { ...s, name: "other" } : s,
    );
    const pairs = align(a, b);
    expect(pairs.map(([i]) => i).filter((i) => i >= 0)).toEqual(a.map((_, i) => i));
    expect(pairs.map(([, j]) => j).filter((j) => j >= 0)).toEqual(b.map((_, j) => j));
    expect(pairs.filter(([i, j]) => i >= 0 && j >= 0).length).toBeGreaterThan(4800);
  });
});

describe("difference", () => {
  it("names the side that failed", () => {
    expect(difference(step("a", { status: "error" }), step("b"))).toBe("A failed");
    expect(difference(step("a"), undefined)).toBe("only A");
    expect(difference(step("a", { inputBytes: 3 }), step("b", { inputBytes: 4 }))).toBe(
      "input differs",
    );
    expect(difference(step("a"), step("b"))).toBe("");
  });
});
