import { describe, expect, it } from "vitest";
import { criticalPath } from "../src/lib/critical";
import { find } from "../src/lib/find";
import * as format from "../src/lib/format";
import { buildTree } from "../src/lib/tree";
import { oneLine, visible } from "../src/lib/visible";
import { step } from "./support";

describe("visible", () => {
  it("names control and direction characters", () => {
    expect(visible("a\u202eb\u0000c\u001b[31m")).toBe("a⟦RLO⟧b⟦NUL⟧c⟦ESC⟧[31m");
    expect(visible("\u{e0041}")).toBe("⟦U+E0041⟧");
    expect(visible("a\ud800b")).toBe("a⟦U+D800⟧b");
  });

  it("keeps line breaks, tabs, other scripts and emoji", () => {
    const text = "one\n\ttwo שלום 日本 👩‍💻 ❤️";
    expect(visible(text)).toBe(text);
    expect(visible("a\r\nb")).toBe("a\nb");
  });

  it("cuts to one line", () => {
    expect(oneLine("a\n b", 10)).toBe("a b");
    expect(oneLine("x".repeat(1_000_000), 10)).toBe(`${"x".repeat(9)}…`);
  });
});

describe("format", () => {
  it.each([
    [0, "0 s"],
    [40_000, "40 ms"],
    [2_540_000, "2.5 s"],
    [65_000_000, "1 m 05 s"],
    [59_980_000, "1 m 00 s"],
    [7_800_000_000, "2 h 10 m"],
    [273_600_000_000, "3 d 4 h"],
    [-1_500_000, "-1.5 s"],
    [12, "12 µs"],
  ])("period %d", (us, text) => expect(format.period(us)).toBe(text));

  it("writes money, sums and counts", () => {
    expect(format.dollars(0.545)).toBe("$0.545");
    expect(format.dollars(0.00003)).toBe("<$0.0001");
    expect(format.dollars(0.0003)).toBe("$0.0003");
    expect(format.dollars(null)).toBe("unknown");
    expect(format.sum(1234.5)).toBe("$1,234.50");
    expect(format.count(208_589)).toBe("208,589");
    expect(format.count(4_100_000)).toBe("4.1 M");
    expect(format.bytes(65_536)).toBe("65.5 KB");
  });

  it("names another day", () => {
    const now = Date.UTC(2026, 10, 30, 12, 3, 7) * 1000;
    expect(format.clock(now, now)).toBe("12:03:07");
    expect(format.clock(now - 7 * 86_400e6, now)).toBe("23 Nov 12:03");
    expect(format.clock(9e18, now)).toBe("unknown");
  });
});

describe("find", () => {
  it("needs every word, in any case", () => {
    const steps = [step("a", { name: "Lookup order" }), step("b", { errorMessage: "order gone" })];
    expect([...find(steps, "ORDER")]).toEqual([0, 1]);
    expect([...find(steps, "order lookup")]).toEqual([0]);
    expect([...find(steps, "  ")]).toEqual([]);
  });
});

describe("criticalPath", () => {
  it("follows the children that end last", () => {
    const tree = buildTree([
      step("root", { kind: "agent", from: 0, to: 100 }),
      step("quick", { parent: "root", from: 0, to: 20 }),
      step("slow", { parent: "root", from: 0, to: 50 }),
      step("last", { parent: "root", from: 50, to: 100 }),
      step("inner", { parent: "last", from: 60, to: 90 }),
    ]);
    const marked = tree.steps.filter((_, i) => criticalPath(tree, 0)[i]).map((s) => s.id);
    expect(marked).toEqual(["root", "slow", "last", "inner"]);
  });

  it("takes 1,400 levels and nothing", () => {
    const deep = Array.from({ length: 1400 }, (_, i) =>
      step(`d${i}`, { parent: i ? `d${i - 1}` : "" }),
    );
    expect(criticalPath(buildTree(deep), 0).every((mark) => mark === 1)).toBe(true);
    expect(criticalPath(buildTree([]), 0).length).toBe(0);
  });
});
