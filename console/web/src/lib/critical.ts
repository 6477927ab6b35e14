import type { Tree } from "./tree";

/**
 * Marks the steps that determine how long the run takes: from the root backwards, the child that
 * ended last, then the one that ended last before that child began, and so on, in each of them the
 * same. Returns a 1 for each position of the tree that is on the path. Linear in the number of
 * steps apart from sorting the children of the marked ones.
 */
export function criticalPath(tree: Tree, now: number): Uint8Array {
  const n = tree.steps.length;
  const marked = new Uint8Array(n);
  if (n === 0) return marked;
  const end = (i: number) => Math.max(tree.steps[i].start, tree.steps[i].end ?? now);
  let root = 0;
  for (let i = 0; i < n; i += tree.size[i]) if (tree.size[i] > tree.size[root]) root = i;
  const work: [number, number][] = [[root, end(root)]];
  marked[root] = 1;
  while (work.length) {
    const [at, until] = work.pop() as [number, number];
    const children: number[] = [];
    for (let c = at + 1; c < at + tree.size[at]; c += tree.size[c]) children.push(c);
    children.sort((a, b) => end(b) - end(a) || tree.steps[b].start - tree.steps[a].start);
    let limit = until;
    for (const child of children) {
      if (Math.min(end(child), until) > limit) continue;
      if (tree.steps[child].kind === "control" && end(child) === tree.steps[child].start) continue;
      marked[child] = 1;
      work.push([child, Math.min(end(child), limit)]);
      limit = tree.steps[child].start;
    }
  }
  return marked;
}
