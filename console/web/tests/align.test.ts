import { describe, expect, it } from "vitest";
import { difference } from "../src/lib/align";
import { step } from "./support";

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
