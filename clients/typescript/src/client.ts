/** Recorders: the functions that open runs and steps, with settings of their own. */
import { contextFrom, type IncomingHeaders, withParent } from "./context.ts";
import { current, Engine, Remote } from "./engine.ts";
import { newTraceId } from "./ids.ts";
import { Log, reasonOf } from "./log.ts";
import type { Counts } from "./sender.ts";
import { type Resolved, resolve, type Settings } from "./settings.ts";
import { USER_AGENT } from "./sockets.ts";
import {
  type Labels,
  type Parent,
  type RunFields,
  type Scope,
  Step,
  type StepFields,
} from "./step.ts";
import type { Action, Kind } from "./tables.ts";
import { label } from "./values.ts";

const FLUSH_MS = 10_000;
const COMMAND_MS = 10_000;
const TRACE_ID = /^[0-9a-f]{32}$/;

/** The kinds of steps that a program may name; any other word is kept as an attribute. */
export type StepKind = Kind | (string & {});
type Fields = StepFields & RunFields;
type Body<T> = (step: Step) => T | Promise<T>;

/** A command to a run. */
export interface CommandRequest {
  action: Action;
  reason?: string;
  by?: string;
  /** With `resume`: the amount that is approved. */
  budgetUsd?: string;
}

/** Records runs and steps. The functions of the module are those of one client. */
export class Client {
  #engine: Engine | null = null;
  #settings: Resolved;
  #log: Log;

  constructor(settings: Settings = {}) {
    this.#log = new Log(settings.logger);
    this.#settings = resolve(settings, this.#log);
  }

  /** Replace the settings. What is pending is still sent to where it was going. */
  configure(settings: Settings = {}): void {
    this.#log = new Log(settings.logger);
    this.#settings = resolve(settings, this.#log);
    const before = this.#engine;
    this.#engine = null;
    void before?.close(FLUSH_MS);
  }

  /** Events so far: delivered, failed, dropped and pending. */
  get counts(): Counts {
    return (
      this.#engine?.sender.counts ?? {
        enqueued: 0,
        delivered: 0,
        failed: 0,
        dropped: 0,
        pending: 0,
      }
    );
  }

  /**
   * A run: what an agent does for one task. Inside another run: the part that another agent does.
   * The name is the agent's name, unless `agent` is given.
   * @returns what `body` returns.
   * @throws {RunStopped} at the next step, once the run is stopped; and what `body` throws.
   */
  run<T>(name: string, body: Body<T>): Promise<T>;
  run<T>(name: string, fields: RunFields, body: Body<T>): Promise<T>;
  run<T>(name: string, ...rest: [Body<T>] | [RunFields, Body<T>]): Promise<T> {
    const [fields, body] = split<RunFields, T>(rest);
    return this.#execute(() => this.startRun(name, fields), body);
  }

  /** A step of any kind: `step("plan", "choose a tool", ...)`. */
  step<T>(kind: StepKind, name: string, body: Body<T>): Promise<T>;
  step<T>(kind: StepKind, name: string, fields: StepFields, body: Body<T>): Promise<T>;
  step<T>(kind: StepKind, name: string, ...rest: [Body<T>] | [StepFields, Body<T>]): Promise<T> {
    const [fields, body] = split<StepFields, T>(rest);
    return this.#execute(() => this.startStep(kind, name, fields), body);
  }

  /** A call of a tool. What `body` returns is recorded as the output. */
  tool<T>(name: string, body: Body<T>): Promise<T>;
  tool<T>(name: string, fields: StepFields, body: Body<T>): Promise<T>;
  tool<T>(name: string, ...rest: [Body<T>] | [StepFields, Body<T>]): Promise<T> {
    const [fields, body] = split<StepFields, T>(rest);
    return this.step("tool_call", name, fields, body);
  }

  /** A call of a language model. Its usage is recorded with `step.setUsage`. */
  llm<T>(name: string, body: Body<T>): Promise<T>;
  llm<T>(name: string, fields: StepFields, body: Body<T>): Promise<T>;
  llm<T>(name: string, ...rest: [Body<T>] | [StepFields, Body<T>]): Promise<T> {
    const [fields, body] = split<StepFields, T>(rest);
    return this.step("llm_call", name, fields, body);
  }

  /** A search for documents, which are recorded with `step.setDocuments`. */
  retrieval<T>(name: string, body: Body<T>): Promise<T>;
  retrieval<T>(name: string, fields: StepFields, body: Body<T>): Promise<T>;
  retrieval<T>(name: string, ...rest: [Body<T>] | [StepFields, Body<T>]): Promise<T> {
    const [fields, body] = split<StepFields, T>(rest);
    return this.step("retrieval", name, fields, body);
  }

  /** The function, with a step around each call: arguments are its input, the result its output. */
  wrap<A extends unknown[], T>(
    kind: StepKind,
    name: string,
    call: (...args: A) => T | Promise<T>,
    fields: StepFields = {},
  ): (...args: A) => Promise<T> {
    return (...args) => {
      const input = args.length === 1 ? args[0] : args;
      return this.step(kind, name, { input, ...readable(fields, this.#log) }, () => call(...args));
    };
  }

  /**
   * A run that the program ends itself, with `end`. It is not the current step: use `within`.
   * @throws {RunStopped} if a run around it is stopped.
   */
  startRun(name: string, given: RunFields = {}): Step {
    const fields = readable(given, this.#log);
    const parent = this.#parent();
    parent?.scope?.control?.check();
    const outer = parent?.scope ?? null;
    const labels = this.#labels(label(name), fields, outer?.labels ?? null);
    const scope: Scope = {
      owner: this,
      traceId: parent?.traceId ?? newTraceId(),
      labels,
      capture: outer?.capture,
      control: outer?.control ?? null,
    };
    const run = this.#opened(scope, "agent", label(name) || labels.agent || "run", parent, fields);
    const isOther = outer === null || outer.labels.agent !== labels.agent;
    if (isOther || fields.onCommand !== undefined) this.#took(run, outer, fields.onCommand);
    return run;
  }

  /**
   * A step that the program ends itself, with `end`. It is not the current step: use `within`.
   * @throws {RunStopped} if its run is stopped.
   */
  startStep(kind: StepKind, name: string, given: StepFields = {}): Step {
    const fields = readable(given, this.#log);
    const parent = this.#parent();
    const control = parent?.scope?.control;
    control?.check();
    if (control?.isPaused) {
      this.#log.warn("pause", "startStep cannot wait while the run is paused: await checkpoint()");
    }
    const scope = parent?.scope ?? {
      owner: this,
      traceId: parent?.traceId ?? newTraceId(),
      labels: this.#labels("", {}, null),
      capture: undefined,
      control: null,
    };
    const step = this.#opened(scope, label(kind), label(name), parent, fields);
    if (scope.control === null) this.#took(step, null, undefined);
    return step;
  }

  /** Call `body` with the step as the current one; the step is not ended. */
  within<T>(step: Step, body: () => T): T {
    return current.run(step, body);
  }

  /** The innermost open step of this asynchronous context. */
  currentStep(): Step | null {
    const step = current.getStore();
    return step instanceof Step ? step : null;
  }

  /** The headers of a request, with those that name the current step as the parent. */
  traceHeaders(headers: Readonly<Record<string, string>> = {}): Record<string, string> {
    const step = this.currentStep();
    if (step === null || step.stepId === "") return { ...headers };
    return withParent(headers, step.traceId, step.stepId);
  }

  /** Call `body`, whose runs and steps belong to the run that the headers name, if they do. */
  continueRun<T>(headers: IncomingHeaders, body: () => T): T {
    const context = contextFrom(headers);
    if (context === null) return body();
    return current.run(new Remote(context.traceId, context.stepId, context.reports), body);
  }

  /** Wait until Kafka has everything; false after the timeout. Never throws. */
  flush(timeoutMs = FLUSH_MS): Promise<boolean> {
    return this.#engine?.sender.flush(timeoutMs) ?? Promise.resolve(true);
  }

  /** Send what is pending and close the connections; a later step opens them again. */
  async shutdown(timeoutMs = FLUSH_MS): Promise<boolean> {
    const engine = this.#engine;
    this.#engine = null;
    return (await engine?.close(timeoutMs)) ?? true;
  }

  /**
   * Send a command to a run, through the gateway; the key needs the scope `act`.
   * @throws if the gateway does not take it.
   */
  async sendCommand(traceId: string, request: CommandRequest): Promise<void> {
    if (!TRACE_ID.test(traceId))
      throw new TypeError("a run is named by its trace id: 32 hex digits");
    const { endpoint, endpointKey, fetch } = this.#settings;
    const { action, reason, by, budgetUsd } = request;
    const response = await fetch(`${endpoint}/v1/runs/${traceId}/control`, {
      method: "POST",
      headers: {
        "Content-Type": "application/json",
        "User-Agent": USER_AGENT,
        ...(endpointKey && { "x-api-key": endpointKey }),
      },
      body: JSON.stringify({ action, reason, by, budget_usd: budgetUsd }),
      redirect: "error",
      signal: AbortSignal.timeout(COMMAND_MS),
    });
    const text = await response.text();
    if (response.status !== 202) {
      throw new Error(`HTTP ${response.status} ${text.slice(0, 300).trim()}`);
    }
  }

  async #execute<T>(open: () => Step, body: Body<T>): Promise<T> {
    await this.#parent()?.scope?.control?.ready();
    const step = open();
    return current.run(step, async () => {
      try {
        const result = await body(step);
        step.returned(result);
        step.end();
        return result;
      } catch (error) {
        step.end(error);
        throw error;
      }
    });
  }

  #opened(scope: Scope, kind: string, name: string, parent: Parent | null, fields: Fields): Step {
    const engine = this.#recorder();
    try {
      return new Step(engine, scope, kind, name, parent, fields);
    } catch (error) {
      this.#log.warn("open", `a step is not recorded: ${reasonOf(error)}`);
      return new Step(null, scope, kind, name, parent, {});
    }
  }

  /** The step takes commands of its own: it is a run, or an agent inside one. */
  #took(step: Step, outer: Scope | null, onCommand: RunFields["onCommand"]): void {
    if (step.stepId !== "") this.#engine?.began(step, outer, onCommand);
  }

  #parent(): (Parent & { traceId: string; scope?: Scope }) | null {
    const found = current.getStore() ?? null;
    if (!(found instanceof Step)) return found;
    // Steps that are not recorded, and those of another client, are no parents.
    return found.stepId === "" || found.scope.owner !== this ? null : found;
  }

  #recorder(): Engine | null {
    if (!this.#settings.enabled) return null;
    try {
      this.#engine ??= new Engine(this.#settings, this.#log);
    } catch (error) {
      this.#log.warn("engine", `nothing is recorded: ${reasonOf(error)}`);
    }
    return this.#engine;
  }

  #labels(name: string, fields: RunFields, outer: Labels | null): Labels {
    const settings = this.#settings;
    const own = outer === null ? settings.agent : "";
    const labels = outer ?? {
      project: label(settings.project),
      environment: label(settings.environment),
      agent: label(settings.agent),
      agent_version: label(settings.agentVersion),
      task: "",
      session_id: "",
      user_id: "",
    };
    // A run inside a run stays in its project and environment: a trace has one of each.
    const given = outer === null ? fields : { ...fields, project: "", environment: "" };
    return {
      project: label(given.project) || labels.project,
      environment: label(given.environment) || labels.environment,
      agent: label(fields.agent) || (own === "" ? name : "") || labels.agent,
      agent_version: label(fields.agentVersion) || labels.agent_version,
      task: label(fields.task) || labels.task,
      session_id: label(fields.sessionId) || labels.session_id,
      user_id: label(fields.userId) || labels.user_id,
    };
  }
}

function split<F, T>(rest: [Body<T>] | [F, Body<T>]): [F, Body<T>] {
  return rest.length === 1 ? [{} as F, rest[0]] : rest;
}

/** A copy of the fields, without those that cannot be read: recording never throws. */
function readable<F extends object>(given: F, log: Log): F {
  try {
    return { ...given };
  } catch {
    log.warn("fields", "fields of a step are left out: they cannot be read");
  }
  const found: Partial<F> = {};
  for (const name of namesOf(given)) {
    try {
      found[name] = given[name];
    } catch {
      // The getter that threw.
    }
  }
  return found as F;
}

function namesOf<F extends object>(given: F): (keyof F)[] {
  try {
    return Object.keys(given) as (keyof F)[];
  } catch {
    return [];
  }
}
