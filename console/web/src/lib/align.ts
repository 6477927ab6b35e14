import type { Step } from "./steps";

/** How two corresponding steps differ, in words; "" where they do not. */
export function difference(a: Step | undefined, b: Step | undefined): string {
  if (!b) return "only A";
  if (!a) return "only B";
  if (a.status !== b.status)
    return a.status === "error"
      ? "A failed"
      : b.status === "error"
        ? "B failed"
        : "ended differently";
  if (a.hidden !== b.hidden) return a.hidden ? "A hides an error" : "B hides an error";
  if (a.inputBytes !== b.inputBytes && a.inputBytes && b.inputBytes) return "input differs";
  if (a.outputBytes !== b.outputBytes && a.outputBytes && b.outputBytes) return "output differs";
  return "";
}
