import { plural } from "./format";
import { isFailure, type Step, title } from "./steps";
import type { Tree } from "./tree";
import { oneLine } from "./visible";

/** At most this many later steps are looked at: a run may have tens of thousands. */
const LOOK_AHEAD = 2000;

/** What happened after a failed step, in one sentence; "" for a step that did not fail. */
export function followed(tree: Tree, position: number): string {
  const step = tree.steps[position];
  if (!step || !isFailure(step)) return "";
  const again: number[] = [];
  let next = -1;
  const last = Math.min(tree.steps.length, position + tree.size[position] + LOOK_AHEAD);
  for (let at = position + tree.size[position]; at < last; at++) {
    const other = tree.steps[at];
    if (other.kind === "control" || other.start < step.start) continue;
    if (other.retryOf === step.id || same(other, step)) again.push(at);
    else if (next < 0 && tree.size[at] === 1) next = at;
  }
  const good = again.find((at) => tree.steps[at].status === "ok" && !tree.steps[at].hidden);
  if (good !== undefined) {
    const tries = again.indexOf(good) + 1;
    return `Tried again${tries > 1 ? ` ${tries} times` : ""}; step ${good + 1} went well.`;
  }
  if (again.length) return `Tried again ${plural(again.length, "time")}, and failed each time.`;
  if (next < 0) return "Nothing followed: it is the last step.";
  return `Not tried again: step ${next + 1} ${oneLine(title(tree.steps[next]), 40)} went on with this result.`;
}

/** A later call of the same tool or model step. */
function same(a: Step, b: Step): boolean {
  return a.kind === b.kind && a.name === b.name && a.tool === b.tool;
}
