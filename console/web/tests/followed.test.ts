import { describe, expect, it } from "vitest";
import { followed } from "../src/lib/followed";
import { buildTree } from "../src/lib/tree";
import { step } from "./support";

const call = (id: string, from: number, status: string, name = "search") =>
  step(id, { name, from, kind: "tool_call", status, parent: "root" });
const sentence = (...rest: ReturnType<typeof step>[]) => {
  const tree = buildTree([step("root", { name: "run", from: 0 }), ...rest]);
  return followed(tree, tree.index.get("a") ?? -1);
};

describe("what followed a failure", () => {
  it("is that it was tried again", () => {
    expect(sentence(call("a", 1, "error"), call("b", 2, "ok"))).toBe(
      "Tried again; step 3 went well.",
    );
    expect(sentence(call("a", 1, "error"), call("b", 2, "error"), call("c", 3, "ok"))).toBe(
      "Tried again 2 times; step 4 went well.",
    );
    expect(sentence(call("a", 1, "error"), call("b", 2, "error"))).toBe(
      "Tried again 1 time, and failed each time.",
    );
  });

  it("is that the run went on", () => {
    expect(sentence(call("a", 1, "error"), call("b", 2, "ok", "mail"))).toBe(
      "Not tried again: step 3 mail went on with this result.",
    );
    expect(sentence(call("a", 1, "error"))).toBe("Nothing followed: it is the last step.");
  });

  it("is nothing for a step that went well", () => {
    expect(sentence(call("a", 1, "ok"), call("b", 2, "ok"))).toBe("");
  });
});
