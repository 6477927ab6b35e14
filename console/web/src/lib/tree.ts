import type { Step } from "./steps";

export type Place = "root" | "child" | "orphan" | "cycle";

/**
 * All steps of a run in tree order. Index i of every array is the i-th step in this order, so a
 * subtree is the range [i, i + size[i]).
 */
export interface Tree {
  steps: Step[];
  depth: Int32Array;
  /** steps of the subtree, this one included */
  size: Int32Array;
  /** position of the parent, -1 for top-level steps */
  parent: Int32Array;
  /** position among its siblings, from 1, and their number */
  position: Int32Array;
  siblings: Int32Array;
  place: Place[];
  index: Map<string, number>;
}

/** Indexes of `steps` by start time; equal times keep the order of arrival. */
function byStart(steps: readonly Step[]): Int32Array {
  const order = new Int32Array(steps.length);
  let sorted = true;
  for (let i = 0; i < steps.length; i++) {
    order[i] = i;
    if (i > 0 && steps[i].start < steps[i - 1].start) sorted = false;
  }
  return sorted ? order : order.sort((a, b) => steps[a].start - steps[b].start || a - b);
}

/**
 * Cuts the parent link of one step of each cycle, the earliest, so that every step is reached from
 * the top. Marks that step as "cycle".
 */
function cutCycles(steps: readonly Step[], parent: Int32Array, place: Place[]): void {
  const seen = new Int32Array(steps.length); // 0: not seen, otherwise the number of the walk
  for (let i = 0; i < steps.length; i++) {
    let at = i;
    while (at !== -1 && seen[at] === 0) {
      seen[at] = i + 1;
      at = parent[at];
    }
    if (at === -1 || seen[at] !== i + 1) continue;
    let earliest = at;
    for (let next = parent[at]; next !== at; next = parent[next]) {
      if (steps[next].start < steps[earliest].start) earliest = next;
    }
    parent[earliest] = -1;
    place[earliest] = "cycle";
  }
}

/**
 * Puts steps in tree order: parents before children, siblings by start time. Steps whose parent is
 * missing stand at the top level as "orphan". No recursion, so any depth is possible.
 */
export function buildTree(steps: readonly Step[]): Tree {
  const n = steps.length;
  const given = new Map<string, number>();
  for (let i = 0; i < n; i++) if (!given.has(steps[i].id)) given.set(steps[i].id, i);
  const parent = new Int32Array(n);
  const place: Place[] = new Array(n);
  for (let i = 0; i < n; i++) {
    const above = steps[i].parent ? (given.get(steps[i].parent) ?? -1) : -1;
    parent[i] = above;
    place[i] = above >= 0 ? "child" : steps[i].parent ? "orphan" : "root";
  }
  cutCycles(steps, parent, place);

  // Children as linked lists; index n is the list of the top level.
  const first = new Int32Array(n + 1).fill(-1);
  const next = new Int32Array(n).fill(-1);
  const count = new Int32Array(n + 1);
  const order = byStart(steps);
  for (let k = n - 1; k >= 0; k--) {
    const i = order[k];
    const list = parent[i] < 0 ? n : parent[i];
    next[i] = first[list];
    first[list] = i;
    count[list]++;
  }

  const tree: Tree = {
    steps: new Array(n),
    depth: new Int32Array(n),
    size: new Int32Array(n),
    parent: new Int32Array(n),
    position: new Int32Array(n),
    siblings: new Int32Array(n),
    place: new Array(n),
    index: new Map(),
  };
  const row = new Int32Array(n); // position in tree order of a given index
  const rank = new Int32Array(n + 1);
  let at = 0;
  let i = first[n];
  while (i !== -1) {
    const list = parent[i] < 0 ? n : parent[i];
    row[i] = at;
    tree.steps[at] = steps[i];
    tree.place[at] = place[i];
    tree.parent[at] = parent[i] < 0 ? -1 : row[parent[i]];
    tree.depth[at] = parent[i] < 0 ? 0 : tree.depth[tree.parent[at]] + 1;
    tree.position[at] = ++rank[list];
    tree.siblings[at] = count[list];
    if (!tree.index.has(steps[i].id)) tree.index.set(steps[i].id, at);
    at++;
    if (first[i] !== -1) {
      i = first[i];
      continue;
    }
    while (i !== -1 && next[i] === -1) i = parent[i];
    if (i !== -1) i = next[i];
  }
  for (let k = n - 1; k >= 0; k--) {
    tree.size[k]++;
    if (tree.parent[k] >= 0) tree.size[tree.parent[k]] += tree.size[k];
  }
  return tree;
}

/** Positions of the rows that are shown: subtrees of `collapsed` steps are left out. */
export function flatten(tree: Tree, collapsed: ReadonlySet<string>): Int32Array {
  const n = tree.steps.length;
  const rows = new Int32Array(n);
  let shown = 0;
  for (let i = 0; i < n; ) {
    rows[shown++] = i;
    i += collapsed.size > 0 && collapsed.has(tree.steps[i].id) ? tree.size[i] : 1;
  }
  return rows.subarray(0, shown);
}

/** The rows that satisfy `wanted`, with all steps above them. */
export function keepOnly(tree: Tree, wanted: (position: number) => boolean): Int32Array {
  const n = tree.steps.length;
  const kept = new Uint8Array(n);
  for (let i = 0; i < n; i++) {
    if (!wanted(i)) continue;
    for (let at = i; at >= 0 && !kept[at]; at = tree.parent[at]) kept[at] = 1;
  }
  const rows: number[] = [];
  for (let i = 0; i < n; i++) if (kept[i]) rows.push(i);
  return Int32Array.from(rows);
}

/** Position of the nearest step above `position` that is collapsed, or `position` itself. */
export function visibleAncestor(
  tree: Tree,
  position: number,
  collapsed: ReadonlySet<string>,
): number {
  let result = position;
  for (let at = tree.parent[position]; at >= 0; at = tree.parent[at]) {
    if (collapsed.has(tree.steps[at].id)) result = at;
  }
  return result;
}
