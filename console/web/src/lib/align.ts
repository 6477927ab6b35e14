import { type Step, title } from "./steps";

/** Positions of two steps that correspond; -1 where a run has none. */
export type Pair = [number, number];

/** Above this product of the lengths the exact alignment would take too long. */
const MOST_CELLS = 4_000_000;
const LOOK_AHEAD = 200;

/** What makes two steps of different runs the same kind of work. */
function key(step: Step): string {
  return `${step.kind} ${title(step)} ${step.kind === "llm_call" ? step.name : ""}`;
}

/**
 * Aligns two lists of steps by content, so that an inserted step does not shift the rest: the
 * longest common subsequence of kind and name. Very long lists are aligned with a limited look
 * ahead, which finds insertions of up to 200 steps.
 */
export function align(a: readonly Step[], b: readonly Step[]): Pair[] {
  const left = a.map(key);
  const right = b.map(key);
  const pairs: Pair[] = [];
  let start = 0;
  while (start < left.length && start < right.length && left[start] === right[start]) {
    pairs.push([start, start]);
    start++;
  }
  let endA = left.length;
  let endB = right.length;
  const tail: Pair[] = [];
  while (endA > start && endB > start && left[endA - 1] === right[endB - 1]) {
    tail.push([--endA, --endB]);
  }
  const exact = (endA - start) * (endB - start) <= MOST_CELLS;
  const middle = exact
    ? longest(left, right, start, endA, endB)
    : ahead(left, right, start, endA, endB);
  return [...pairs, ...middle, ...tail.reverse()];
}

function longest(
  left: string[],
  right: string[],
  start: number,
  endA: number,
  endB: number,
): Pair[] {
  const n = endA - start;
  const m = endB - start;
  const width = m + 1;
  const best = new Uint16Array((n + 1) * width);
  for (let i = n - 1; i >= 0; i--) {
    for (let j = m - 1; j >= 0; j--) {
      best[i * width + j] =
        left[start + i] === right[start + j]
          ? best[(i + 1) * width + j + 1] + 1
          : Math.max(best[(i + 1) * width + j], best[i * width + j + 1]);
    }
  }
  const pairs: Pair[] = [];
  let i = 0;
  let j = 0;
  while (i < n && j < m) {
    if (left[start + i] === right[start + j]) pairs.push([start + i++, start + j++]);
    else if (best[(i + 1) * width + j] >= best[i * width + j + 1]) pairs.push([start + i++, -1]);
    else pairs.push([-1, start + j++]);
  }
  while (i < n) pairs.push([start + i++, -1]);
  while (j < m) pairs.push([-1, start + j++]);
  return pairs;
}

function ahead(left: string[], right: string[], start: number, endA: number, endB: number): Pair[] {
  const pairs: Pair[] = [];
  let i = start;
  let j = start;
  while (i < endA && j < endB) {
    if (left[i] === right[j]) {
      pairs.push([i++, j++]);
      continue;
    }
    // One step replaced by another: without this a repeated name far ahead would be taken.
    if (left[i + 1] === right[j + 1]) {
      pairs.push([i++, -1]);
      pairs.push([-1, j++]);
      continue;
    }
    const inB = right.slice(j, Math.min(endB, j + LOOK_AHEAD)).indexOf(left[i]);
    const inA = left.slice(i, Math.min(endA, i + LOOK_AHEAD)).indexOf(right[j]);
    if (inA >= 0 && (inB < 0 || inA <= inB)) for (let k = 0; k < inA; k++) pairs.push([i++, -1]);
    else if (inB >= 0) for (let k = 0; k < inB; k++) pairs.push([-1, j++]);
    else {
      pairs.push([i++, -1]);
      pairs.push([-1, j++]);
    }
  }
  while (i < endA) pairs.push([i++, -1]);
  while (j < endB) pairs.push([-1, j++]);
  return pairs;
}

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
