import type { Step } from "../src/lib/steps";

/** A step with defaults; times in milliseconds. */
export function step(
  id: string,
  over: Partial<Step> & { from?: number; to?: number | null } = {},
): Step {
  const { from = 0, to = from + 1000, ...given } = over;
  return {
    id,
    parent: "",
    kind: "tool_call",
    name: id,
    tool: "",
    model: "",
    agent: "",
    start: from * 1000,
    end: to === null ? null : to * 1000,
    status: to === null ? "" : "ok",
    errorType: "",
    errorMessage: "",
    attempt: 1,
    retryOf: "",
    inputTokens: 0,
    outputTokens: 0,
    cachedTokens: 0,
    cost: null,
    unpriced: false,
    inputBytes: 0,
    outputBytes: 0,
    hidden: "",
    detail: "",
    ...given,
  };
}

/** A repeatable sequence of numbers in [0, 1). */
export function sequence(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}
