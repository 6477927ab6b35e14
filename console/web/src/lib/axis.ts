import type { Tree } from "./tree";

export type AxisMode = "real" | "folded" | "step";

export interface Gap {
  from: number;
  to: number;
  x0: number;
  x1: number;
}

export interface Tick {
  x: number;
  label: string;
}

/** Places times and steps on a line from 0 to 1. */
export interface Axis {
  mode: AxisMode;
  start: number;
  end: number;
  gaps: Gap[];
  /** place of a time (µs) */
  at(time: number): number;
  /** time (µs) of a place */
  time(x: number): number;
  /** where the bar of the step at this position of the tree begins and ends */
  span(position: number): [number, number];
}

/** A gap is folded if it takes more than this share of the busy time, and at least a second. */
const FOLD_SHARE = 0.08;
const FOLD_MINIMUM_US = 1_000_000;
/** Width that a folded gap keeps. */
const FOLDED_WIDTH = 0.018;

function endOf(tree: Tree, position: number, now: number): number {
  const step = tree.steps[position];
  return Math.max(step.start, step.end ?? Math.max(now, step.start));
}

function bounds(tree: Tree, now: number): [number, number] {
  let start = Number.POSITIVE_INFINITY;
  let end = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < tree.steps.length; i++) {
    start = Math.min(start, tree.steps[i].start);
    end = Math.max(end, endOf(tree, i, now));
  }
  if (!Number.isFinite(start)) return [0, 1];
  return [start, end > start ? end : start + 1];
}

/** Piecewise linear map through the points (ts[i], xs[i]), both ascending. */
function interpolate(from: ArrayLike<number>, to: ArrayLike<number>, value: number): number {
  let low = 0;
  let high = from.length - 1;
  if (value <= from[0]) return to[0];
  if (value >= from[high]) return to[high];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (from[middle] <= value) low = middle;
    else high = middle;
  }
  const width = from[high] - from[low];
  return width <= 0 ? to[low] : to[low] + ((value - from[low]) / width) * (to[high] - to[low]);
}

/** Times in which no step without children ran, longer than the limits above. */
export function idleGaps(tree: Tree, now: number): [number, number][] {
  const n = tree.steps.length;
  const leaves: number[] = [];
  for (let i = 0; i < n; i++) if (tree.size[i] === 1) leaves.push(i);
  leaves.sort((a, b) => tree.steps[a].start - tree.steps[b].start);
  const [start, end] = bounds(tree, now);
  const idle: [number, number][] = [];
  let until = start;
  let busy = 0;
  for (const leaf of leaves) {
    const from = tree.steps[leaf].start;
    const to = endOf(tree, leaf, now);
    if (from > until) idle.push([until, from]);
    busy += Math.max(0, to - Math.max(from, until));
    until = Math.max(until, to);
  }
  if (end > until) idle.push([until, end]);
  const limit = Math.max(FOLD_MINIMUM_US, busy * FOLD_SHARE);
  return idle.filter(([from, to]) => to - from > limit);
}

function timeAxis(tree: Tree, mode: AxisMode, now: number): Axis {
  const [start, end] = bounds(tree, now);
  const folded = mode === "folded" ? idleGaps(tree, now) : [];
  // Many gaps share at most a third of the line.
  const width = folded.length ? Math.min(FOLDED_WIDTH, 0.33 / folded.length) : 0;
  const idle = folded.reduce((sum, [from, to]) => sum + to - from, 0);
  const scale = (1 - width * folded.length) / Math.max(1, end - start - idle);
  const ts: number[] = [start];
  const xs: number[] = [0];
  const gaps: Gap[] = [];
  let x = 0;
  let time = start;
  for (const [from, to] of folded) {
    x += (from - time) * scale;
    ts.push(from, to);
    xs.push(x, x + width);
    gaps.push({ from, to, x0: x, x1: x + width });
    x += width;
    time = to;
  }
  ts.push(end);
  xs.push(1);
  const at = (value: number) => interpolate(ts, xs, value);
  return {
    mode,
    start,
    end,
    gaps,
    at,
    time: (value: number) => interpolate(xs, ts, value),
    span: (position) => [at(tree.steps[position].start), at(endOf(tree, position, now))],
  };
}

/** Every step has the same width, in the order of the starts; a step spans its subtree. */
function stepAxis(tree: Tree, now: number): Axis {
  const n = tree.steps.length;
  const [start, end] = bounds(tree, now);
  const order = new Int32Array(n);
  for (let i = 0; i < n; i++) order[i] = i;
  order.sort((a, b) => tree.steps[a].start - tree.steps[b].start || a - b);
  const first = new Float64Array(n);
  const last = new Float64Array(n);
  const ts = new Float64Array(n + 1);
  const xs = new Float64Array(n + 1);
  for (let k = 0; k < n; k++) {
    first[order[k]] = k / n;
    last[order[k]] = (k + 1) / n;
    ts[k] = tree.steps[order[k]].start;
    xs[k] = k / n;
  }
  ts[n] = end;
  xs[n] = 1;
  for (let i = n - 1; i >= 0; i--) {
    const above = tree.parent[i];
    if (above < 0) continue;
    first[above] = Math.min(first[above], first[i]);
    last[above] = Math.max(last[above], last[i]);
  }
  return {
    mode: "step",
    start,
    end,
    gaps: [],
    at: (value) => interpolate(ts, xs, value),
    time: (value) => interpolate(xs, ts, value),
    span: (position) => [first[position], last[position]],
  };
}

/** The axis of a run; `now` (µs) is the end of open steps. */
export function makeAxis(tree: Tree, mode: AxisMode, now: number): Axis {
  return mode === "step" && tree.steps.length > 0 ? stepAxis(tree, now) : timeAxis(tree, mode, now);
}

const STEPS_S = [
  0.000001, 0.000002, 0.000005, 0.00001, 0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002,
  0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600,
  7200, 10800, 21600, 43200, 86400, 604800, 2592000, 31536000, 315360000,
];

function label(seconds: number, step: number): string {
  if (seconds === 0) return "0 s";
  if (step < 0.001) return `${Number((seconds * 1e6).toPrecision(12))} µs`;
  if (step < 1)
    return seconds < 1 ? `${Math.round(seconds * 1e6) / 1e3} ms` : `${+seconds.toFixed(3)} s`;
  if (step < 60) return `${Math.round(seconds)} s`;
  if (step < 3600) return `${Math.round(seconds / 60)} m`;
  if (step < 86400) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

/** Ticks within [a, b] of the axis, at most about `count`, never closer than the labels need. */
export function ticks(axis: Axis, a: number, b: number, count: number, steps: number): Tick[] {
  const found: Tick[] = [];
  if (axis.mode === "step") {
    const wanted = Math.max(1, ((b - a) * steps) / count);
    const unit = 10 ** Math.floor(Math.log10(wanted));
    const every = Math.max(1, [1, 2, 5, 10].map((m) => m * unit).find((m) => m >= wanted) ?? 1);
    for (
      let k = Math.ceil((a * steps) / every) * every;
      k / steps <= b && found.length < 60;
      k += every
    ) {
      found.push({ x: k / steps, label: k === 0 ? "first" : String(k) });
    }
    return found;
  }
  const hidden = axis.gaps.reduce(
    (sum, gap) => sum + Math.max(0, Math.min(gap.x1, b) - Math.max(gap.x0, a)),
    0,
  );
  const idle = axis.gaps.reduce(
    (sum, gap) => (gap.x1 > a && gap.x0 < b ? sum + gap.to - gap.from : sum),
    0,
  );
  const seconds = Math.max(0, axis.time(b) - axis.time(a) - idle) / 1e6;
  const wanted = seconds / (1 - Math.min(0.9, hidden)) / count;
  const step = STEPS_S.find((s) => s >= wanted) ?? wanted;
  const nearest = (b - a) / (count * 1.7);
  let time = Math.ceil((axis.time(a) - axis.start) / 1e6 / step - 1e-9) * step;
  for (let guard = 0; guard < 400; guard++) {
    const stamp = axis.start + time * 1e6;
    const x = axis.at(stamp);
    if (x > b || stamp > axis.end) break;
    const gap = axis.gaps.find((g) => stamp > g.from && stamp < g.to);
    if (gap) {
      time = Math.ceil((gap.to - axis.start) / 1e6 / step) * step;
      continue;
    }
    const before = found.at(-1);
    if (!before || x - before.x >= nearest) found.push({ x, label: label(time, step) });
    time += step;
  }
  return found;
}
