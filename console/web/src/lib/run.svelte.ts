import { type Axis, type AxisMode, makeAxis } from "./axis";
import { criticalPath } from "./critical";
import { find } from "./find";
import { type Changes, type StepEvent, StepSet } from "./merge";
import { isFailure, type Step } from "./steps";
import { buildTree, flatten, keepOnly, type Tree, visibleAncestor } from "./tree";

/** A tag in the row of a step, such as "suspect 1". */
export interface Mark {
  text: string;
  tone: "" | "error" | "warning" | "info";
}

/**
 * The tree of a long run takes some milliseconds. It is built again at most this many times its own
 * duration apart, so that a run that grows takes a small part of the time only.
 */
const REBUILD_SHARE = 25;
const FASTEST_MS = 90;

/** State of one run on the page: steps, tree, selection, folding, axis and zoom. */
export class RunView {
  readonly set = new StepSet();
  tree = $state.raw<Tree>(buildTree([]));
  axis: Axis;
  rows: Int32Array;
  critical: Uint8Array;
  failures: number[];
  hits: Int32Array;
  mode = $state<AxisMode>("folded");
  zoom = $state.raw<[number, number]>([0, 1]);
  collapsed = $state.raw<ReadonlySet<string>>(new Set());
  selected = $state("");
  onlyCritical = $state(false);
  query = $state("");
  follow = $state(false);
  marks = $state.raw<ReadonlyMap<string, Mark>>(new Map());
  /** server time in microseconds at which open steps are drawn to end */
  now = $state(0);
  /** grows when a step changed in place */
  revision = $state(0);
  #timer: ReturnType<typeof setTimeout> | undefined;
  #builtAt = 0;
  #cost = 0;

  constructor(now: number) {
    this.now = now;
    this.axis = $derived(makeAxis(this.tree, this.mode, this.now));
    this.critical = $derived(criticalPath(this.tree, this.now));
    this.rows = $derived(
      this.onlyCritical
        ? keepOnly(this.tree, (i) => this.critical[i] === 1)
        : flatten(this.tree, this.collapsed),
    );
    this.failures = $derived.by(() => {
      const found: number[] = [];
      const { steps } = this.tree;
      for (let i = 0; i < steps.length; i++) if (isFailure(steps[i])) found.push(i);
      return found;
    });
    this.hits = $derived(find(this.tree.steps, this.query));
  }

  snapshot(steps: readonly Step[]): void {
    this.#apply(this.set.snapshot(steps), true);
  }

  /** Takes events of the live stream; the tree follows soon after. */
  merge(events: readonly StepEvent[]): void {
    this.#apply(this.set.merge(events), false);
  }

  #apply(changes: Changes, atOnce: boolean): void {
    if (!changes.touched.length && this.tree.steps.length) return;
    if (atOnce) {
      this.#rebuild();
      return;
    }
    if (this.#timer !== undefined) return;
    const wait = Math.max(FASTEST_MS, this.#cost * REBUILD_SHARE);
    const since = performance.now() - this.#builtAt;
    this.#timer = setTimeout(() => this.#rebuild(), Math.max(0, wait - since));
  }

  #rebuild(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const began = performance.now();
    this.tree = buildTree(this.set.steps);
    void this.axis.start;
    void this.rows.length;
    void this.critical.length;
    this.#builtAt = performance.now();
    this.#cost = this.#builtAt - began;
    this.revision++;
    if (this.follow && this.tree.steps.length) this.selectNewest();
  }

  close(): void {
    clearTimeout(this.#timer);
  }

  step(id: string): Step | undefined {
    return this.set.get(id);
  }

  /** Number of a step on the page: its place in tree order, from 1; 0 for an unknown id. */
  number(id: string): number {
    return (this.tree.index.get(id) ?? -1) + 1;
  }

  /** Row of a position, or of the folded step that contains it. */
  rowOf(position: number): number {
    const { rows } = this;
    let low = 0;
    let high = rows.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (rows[middle] <= position) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  get selectedPosition(): number {
    return this.tree.index.get(this.selected) ?? -1;
  }

  /** Selects a step and unfolds what hides it. */
  select(id: string): void {
    const position = this.tree.index.get(id);
    this.selected = id;
    if (position === undefined) return;
    if (visibleAncestor(this.tree, position, this.collapsed) !== position) {
      const open = new Set(this.collapsed);
      for (let at = this.tree.parent[position]; at >= 0; at = this.tree.parent[at]) {
        open.delete(this.tree.steps[at].id);
      }
      this.collapsed = open;
    }
    if (this.onlyCritical && !this.critical[position]) this.onlyCritical = false;
  }

  selectNewest(): void {
    const { steps } = this.tree;
    let newest = 0;
    for (let i = 1; i < steps.length; i++) if (steps[i].start >= steps[newest].start) newest = i;
    if (steps.length) this.select(steps[newest].id);
  }

  move(by: number): void {
    const { rows } = this;
    if (!rows.length) return;
    const at =
      this.selectedPosition < 0 ? (by > 0 ? -1 : rows.length) : this.rowOf(this.selectedPosition);
    const row = Math.max(0, Math.min(rows.length - 1, at + by));
    this.selected = this.tree.steps[rows[row]].id;
  }

  /** Selects the next of these positions after the selection, from the first one after the last. */
  next(positions: ArrayLike<number>, backwards = false): void {
    const n = positions.length;
    if (!n) return;
    const at = this.selectedPosition;
    let pick = backwards ? positions[n - 1] : positions[0];
    for (let k = 0; k < n; k++) {
      const candidate = positions[backwards ? n - 1 - k : k];
      if (backwards ? candidate < at : candidate > at) {
        pick = candidate;
        break;
      }
    }
    this.select(this.tree.steps[pick].id);
  }

  fold(id: string, folded: boolean): void {
    if (this.collapsed.has(id) === folded) return;
    const changed = new Set(this.collapsed);
    if (folded) changed.add(id);
    else changed.delete(id);
    this.collapsed = changed;
  }

  zoomTo(a: number, b: number): void {
    const from = Math.max(0, Math.min(a, b));
    const to = Math.min(1, Math.max(a, b));
    this.zoom = to - from < 1e-6 || (from <= 0 && to >= 1) ? [0, 1] : [from, to];
  }

  /** Makes the visible part larger or smaller around `centre` (place on the whole axis). */
  zoomBy(factor: number, centre?: number): void {
    const [a, b] = this.zoom;
    const at = centre ?? (a + b) / 2;
    this.zoomTo(at - (at - a) * factor, at + (b - at) * factor);
  }

  pan(by: number): void {
    const [a, b] = this.zoom;
    const shift = Math.max(-a, Math.min(1 - b, by * (b - a)));
    this.zoomTo(a + shift, b + shift);
  }
}
