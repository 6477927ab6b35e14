/** What records with the same settings share: the queue, the commands and their stream. */
import { AsyncLocalStorage } from "node:async_hooks";
import { type Command, Commands, RunControl } from "./control.ts";
import type { Log } from "./log.ts";
import { Sender } from "./sender.ts";
import type { Resolved } from "./settings.ts";
import { nowUs, type Scope, type Step } from "./step.ts";
import { CommandStream } from "./stream.ts";
import { CONTROL_KIND } from "./tables.ts";

export class Engine {
  readonly settings: Resolved;
  readonly log: Log;
  readonly sender: Sender;
  readonly commands = new Commands();
  readonly #stream: CommandStream;
  readonly #controls = new WeakMap<Step, RunControl>();

  constructor(settings: Resolved, log: Log) {
    this.settings = settings;
    this.log = log;
    this.sender = new Sender(settings, log);
    this.#stream = new CommandStream(settings, this.commands, log);
  }

  /** A run, or an agent inside one, has begun. */
  began(step: Step, parent: Scope | null, onCommand: ((command: Command) => unknown) | undefined) {
    const { traceId, labels } = step.scope;
    const control = new RunControl(
      {
        traceId,
        project: labels.project,
        environment: labels.environment,
        agent: labels.agent,
        startedUs: step.startUs,
      },
      {
        parent: parent?.control ?? null,
        onCommand,
        pauseLimitMs: this.settings.pauseLimitMs,
        nowUs,
        log: this.log,
        record: (stepId, phase, name, attributes, beganUs, status) =>
          this.sender.enqueue(
            {
              trace_id: traceId,
              step_id: stepId,
              parent_step_id: step.stepId,
              phase,
              kind: CONTROL_KIND,
              name,
              ...labels,
              start_time: beganUs,
              ...(phase === "end" && { end_time: Math.max(nowUs(), beganUs), status }),
              attributes,
            },
            this.settings.maxContentBytes,
          ),
      },
    );
    step.takeControl(control);
    this.#controls.set(step, control);
    this.commands.open(control);
    this.#stream.update();
  }

  /** A step has ended; if it was a run, it takes no commands any more. */
  ended(step: Step): void {
    const control = this.#controls.get(step);
    if (control === undefined) return;
    this.#controls.delete(step);
    this.commands.close(control);
    this.#stream.update();
  }

  async close(timeoutMs: number): Promise<boolean> {
    const isSent = await this.sender.close(timeoutMs);
    this.#stream.close();
    return isSent;
  }
}

/** The innermost open step of this asynchronous context. */
export const current = new AsyncLocalStorage<Step | Remote | null>();

/** A step of another process, as the parent of steps in this one. It is never recorded. */
export class Remote {
  readonly traceId: string;
  readonly stepId: string;
  readonly isForeign: boolean;

  constructor(traceId: string, stepId: string, reports: boolean) {
    this.traceId = traceId;
    this.stepId = stepId;
    this.isForeign = !reports;
  }
}
