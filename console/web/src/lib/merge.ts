import type { Step } from "./steps";

/** One event of the live stream: a step as its start or its end describes it. */
export interface StepEvent {
  phase: "start" | "end";
  step: Step;
}

/** What a batch of events changed. */
export interface Changes {
  /** a step was added, or a start time or a parent changed: the tree must be built again */
  structure: boolean;
  /** ids of steps that were added or replaced */
  touched: string[];
}

/**
 * The steps of one run, from a snapshot and the events after it, each (step, phase) once. An end
 * always replaces a start, a start never replaces an end, and a repeated event changes nothing, so
 * that snapshot and tail may overlap and arrive in any order.
 */
export class StepSet {
  readonly steps: Step[] = [];
  readonly #at = new Map<string, number>();

  get size(): number {
    return this.steps.length;
  }

  get(id: string): Step | undefined {
    const at = this.#at.get(id);
    return at === undefined ? undefined : this.steps[at];
  }

  /** Takes a snapshot. Steps that are already known from the tail stay. */
  snapshot(steps: readonly Step[]): Changes {
    return this.merge(steps.map((step) => ({ phase: step.end === null ? "start" : "end", step })));
  }

  merge(events: readonly StepEvent[]): Changes {
    const changes: Changes = { structure: false, touched: [] };
    for (const { phase, step } of events) {
      const at = this.#at.get(step.id);
      if (at === undefined) {
        this.#at.set(step.id, this.steps.length);
        this.steps.push(step);
        changes.structure = true;
        changes.touched.push(step.id);
        continue;
      }
      const known = this.steps[at];
      if (known.end !== null || phase === "start") continue;
      if (known.start !== step.start || known.parent !== step.parent) changes.structure = true;
      this.steps[at] = step;
      changes.touched.push(step.id);
    }
    return changes;
  }
}
