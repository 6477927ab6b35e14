import type { Axis } from "./axis";
import { type Family, family, isFailure } from "./steps";
import type { Tree } from "./tree";

export interface CurvePoint {
  x: number;
  value: number;
}

export interface Curve {
  /** what is summed: dollars where any step has a cost, otherwise tokens, otherwise steps */
  unit: "usd" | "tokens" | "steps";
  points: CurvePoint[];
  total: number;
}

/** The sum so far at each place of the axis where it grows, at most `columns` points. */
export function costCurve(tree: Tree, axis: Axis, columns: number): Curve {
  let unit: Curve["unit"] = "steps";
  for (const step of tree.steps) {
    if (step.cost) {
      unit = "usd";
      break;
    }
    if (step.inputTokens + step.outputTokens) unit = "tokens";
  }
  const sums = new Float64Array(columns + 1);
  let total = 0;
  for (let i = 0; i < tree.steps.length; i++) {
    const step = tree.steps[i];
    const value =
      unit === "usd"
        ? (step.cost ?? 0)
        : unit === "tokens"
          ? step.inputTokens + step.outputTokens
          : 1;
    if (!value) continue;
    total += value;
    const to = axis.span(i)[unit === "steps" ? 0 : 1];
    sums[Math.max(0, Math.min(columns, Math.ceil(to * columns)))] += value;
  }
  const points: CurvePoint[] = [{ x: 0, value: 0 }];
  let sum = 0;
  for (let k = 0; k <= columns; k++) {
    if (!sums[k]) continue;
    sum += sums[k];
    points.push({ x: k / columns, value: sum });
  }
  return { unit, points, total };
}

/** For each of `columns` places the family of the kind that takes most of it; null where idle. */
export function density(tree: Tree, axis: Axis, columns: number): (Family | null)[] {
  const best = new Float64Array(columns);
  const kinds: (Family | null)[] = new Array(columns).fill(null);
  for (let i = 0; i < tree.steps.length; i++) {
    if (tree.size[i] > 1) continue;
    const [from, to] = axis.span(i);
    const first = Math.max(0, Math.floor(from * columns));
    const last = Math.min(columns - 1, Math.max(first, Math.ceil(to * columns) - 1));
    const kind = family(tree.steps[i].kind);
    for (let c = first; c <= last; c++) {
      const part = Math.min(to, (c + 1) / columns) - Math.max(from, c / columns) + 1e-9;
      if (part > best[c]) {
        best[c] = part;
        kinds[c] = kind;
      }
    }
  }
  return kinds;
}

export interface Event {
  x: number;
  mark: "error" | "hidden" | "control";
}

/** Failures and control steps, at most one for each `1 / columns` of the axis; failures first. */
export function events(tree: Tree, axis: Axis, columns: number): Event[] {
  const rank = { error: 2, hidden: 1, control: 0 };
  const all: Event[] = [];
  for (let i = 0; i < tree.steps.length; i++) {
    const step = tree.steps[i];
    const mark =
      step.status === "error"
        ? "error"
        : isFailure(step)
          ? "hidden"
          : step.kind === "control"
            ? "control"
            : null;
    if (mark) all.push({ x: axis.span(i)[1], mark });
  }
  all.sort((a, b) => a.x - b.x);
  const kept: Event[] = [];
  for (const event of all) {
    const before = kept.at(-1);
    if (!before || event.x - before.x >= 1 / columns) kept.push(event);
    else if (rank[event.mark] > rank[before.mark]) before.mark = event.mark;
  }
  return kept;
}
