import { describe, expect, it } from "vitest";
import { comparisonOf, figure, labelsOf, toneOf } from "../src/lib/releases";

describe("releases", () => {
  it("reads a comparison, whatever the server answers", () => {
    const found = comparisonOf({
      differences: [{ part: "prompt plan", what: "changed", lines: ["@@ -1 +1 @@", "-a", "+b"] }],
      figures: [{ measure: "seconds", low: null }],
      sentence: "With 1 and 2 runs",
    });
    expect(found.differences[0].lines.map(toneOf)).toEqual(["place", "removed", "added"]);
    expect(found.problem).toBe("");
    expect(comparisonOf({}).differences).toEqual([]);
    expect(comparisonOf({ differences: "x", figures: 5 }).figures).toEqual([]);
  });

  it("reads labels", () => {
    const labels = labelsOf({ production: { version: "v1", by: "ann", at: 5 } });
    expect(labels).toEqual([{ name: "production", version: "v1", by: "ann", at: 5 }]);
    expect(labelsOf(null)).toEqual([]);
  });

  it("shows figures with four digits", () => {
    expect([figure(0.123456), figure(1234567), figure(null), figure("1")]).toEqual([
      "0.1235",
      "1235000",
      "–",
      "–",
    ]);
  });
});
