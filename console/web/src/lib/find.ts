import type { Step } from "./steps";

/** The text that a search within a run looks at, in lower case. */
function haystack(step: Step): string {
  return [
    step.id,
    step.kind,
    step.name,
    step.tool,
    step.model,
    step.agent,
    step.status,
    step.errorType,
    step.errorMessage,
    step.hidden,
    step.detail,
  ]
    .join("\n")
    .toLowerCase();
}

/**
 * Positions of the steps that contain every word of `query`. The browser's own search sees the
 * drawn rows only, so the page has this one.
 */
export function find(steps: readonly Step[], query: string): Int32Array {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return new Int32Array(0);
  const hits: number[] = [];
  for (let i = 0; i < steps.length; i++) {
    const text = haystack(steps[i]);
    if (words.every((word) => text.includes(word))) hits.push(i);
  }
  return Int32Array.from(hits);
}
