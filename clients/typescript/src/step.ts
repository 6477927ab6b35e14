/** Steps and runs: opened, filled in and ended by the program. Recording never throws. */
import type { Command, RunControl } from "./control.ts";
import type { Engine } from "./engine.ts";
import { newStepId } from "./ids.ts";
import { reasonOf } from "./log.ts";
import type { Mode } from "./privacy.ts";
import type { DocumentRecord, StepRecord } from "./record.ts";
import { contentLimit } from "./settings.ts";
import { KINDS, type Kind, LIMITS, type Status, USAGE_FIELDS, type Usage } from "./tables.ts";
import { type Content, label, toText, typeName } from "./values.ts";

const STEP_ID = /^[0-9a-f]{16}$/;
const MOST_ATTEMPTS = 1_000_000;

/** What may be given when a step is opened. */
export interface StepFields {
  input?: unknown;
  /** The tool that is called; by default the name of a step of kind `tool_call`. */
  tool?: string;
  model?: string;
  provider?: string;
  /** 1 for the first try. */
  attempt?: number;
  /** The step that this one repeats, or its id. */
  retryOf?: Step | string;
  /** The step that this one replaces, or its id. */
  fallbackOf?: Step | string;
  attributes?: Readonly<Record<string, unknown>>;
  /** Contents of this step and those inside it: `false` for sizes only, or a size in bytes. */
  captureContent?: Mode;
}

/** What may be given when a run is opened. Inside another run the default is that run's value. */
export interface RunFields {
  input?: unknown;
  /** A type of task, such as `refund`; never a prompt. */
  task?: string;
  agent?: string;
  agentVersion?: string;
  sessionId?: string;
  userId?: string;
  /** Of the outermost run only: a run has one project. */
  project?: string;
  environment?: string;
  attributes?: Readonly<Record<string, unknown>>;
  captureContent?: Mode;
  /** Called with each command that reaches the run. */
  onCommand?: (command: Command) => unknown;
}

/** A document that a retrieval returned. */
export interface Document {
  id?: string;
  score?: number;
  content?: unknown;
}

/** The names that the steps of a run share. */
export interface Labels {
  readonly project: string;
  readonly environment: string;
  readonly agent: string;
  readonly agent_version: string;
  readonly task: string;
  readonly session_id: string;
  readonly user_id: string;
}

/** What the steps of a run, or of an agent inside it, share. */
export interface Scope {
  /** The client: steps of another one are no parents. */
  readonly owner: object;
  readonly traceId: string;
  readonly labels: Labels;
  /** What the innermost step around has set for contents. */
  readonly capture: Mode | undefined;
  readonly control: RunControl | null;
}

/** A step, or (as the root) the run itself. */
export class Step {
  readonly #engine: Engine | null;
  readonly #record: StepRecord;
  readonly #began: number;
  readonly #limit: number;
  /** @internal Its parent is in this process. */
  readonly isForeign = false;
  #isOpen = true;
  #hasOutput = false;
  #scope: Scope;

  /** Used by the SDK; programs open steps with `run`, `tool` and so on. */
  constructor(
    engine: Engine | null,
    scope: Scope,
    kind: string,
    name: string,
    parent: Parent | null,
    fields: StepFields & RunFields,
  ) {
    const isKnown = (KINDS as readonly string[]).includes(kind);
    this.#engine = engine;
    const own = this.#modeOf(fields.captureContent);
    this.#scope = own === undefined ? scope : { ...scope, capture: own };
    this.#began = performance.now();
    this.#record = {
      trace_id: scope.traceId,
      step_id: newStepId(),
      parent_step_id: parent?.stepId ?? "",
      phase: "start",
      kind: isKnown ? (kind as Kind) : "other",
      name: label(name) || label(kind) || "other",
      ...scope.labels,
      start_time: nowUs(),
    };
    this.#limit =
      engine === null
        ? 0
        : contentLimit(engine.settings, this.#record.kind, scope.traceId, own, scope.capture);
    // A parent that reports to Stepstream too is awaited; another one may never arrive.
    if (parent?.isForeign) this.#record.parent_remote = true;
    this.#guard("open", () => {
      // The kind on the wire is one of a fixed list; the program's own word is kept.
      if (!isKnown) this.#record.attributes = { kind: label(kind) };
      this.#fill(fields);
    });
    this.#publish({ ...this.#record, attributes: { ...this.#record.attributes } });
  }

  #modeOf(given: unknown): Mode | undefined {
    if (given === undefined || typeof given === "boolean" || typeof given === "number")
      return given;
    // Less is sent and not more: what was meant is not known.
    this.#warn("captureContent", "no contents: captureContent is not true, false or a number");
    return false;
  }

  #fill(fields: StepFields & RunFields): void {
    const record = this.#record;
    if (record.kind === "tool_call") record.tool = record.name;
    for (const field of ["tool", "model", "provider"] as const) {
      if (fields[field] !== undefined) record[field] = label(fields[field]);
    }
    if (fields.attempt !== undefined && Number.isFinite(fields.attempt)) {
      record.attempt = Math.trunc(Math.min(Math.max(fields.attempt, 1), MOST_ATTEMPTS));
    }
    for (const [field, link] of [
      ["retry_of", fields.retryOf],
      ["fallback_of", fields.fallbackOf],
    ] as const) {
      const id = link instanceof Step ? link.stepId : link;
      if (id !== undefined && STEP_ID.test(id)) record[field] = id;
    }
    if (fields.attributes !== undefined) this.#addAttributes(fields.attributes);
    if (fields.input !== undefined) this.#setContent("input", fields.input);
  }

  /** The run's id: 32 hex digits; empty while recording is off. */
  get traceId(): string {
    return this.#engine === null ? "" : this.#record.trace_id;
  }

  /** The step's id: 16 hex digits; empty while recording is off. */
  get stepId(): string {
    return this.#engine === null ? "" : this.#record.step_id;
  }

  /** Aborted, with `RunStopped` as the reason, when the run is stopped: for `fetch` and timers. */
  get signal(): AbortSignal {
    return this.#scope.control?.signal ?? NEVER;
  }

  /** The input; the start event has only the one that was given on opening. */
  setInput(value: unknown): this {
    return this.#set("setInput", () => this.#setContent("input", value));
  }

  /** The output; otherwise what the step's function returns. */
  setOutput(value: unknown): this {
    return this.#set("setOutput", () => this.#setContent("output", value));
  }

  /** The step's own counts. Input includes cached tokens, output includes reasoning. */
  setUsage(usage: Usage): this {
    return this.#set("setUsage", () => {
      const found: Record<string, number | boolean> = {};
      for (const [name, field] of Object.entries(USAGE_FIELDS)) {
        const count: unknown = usage[name as keyof Usage];
        if (count === undefined || count === null || count === 0) continue;
        if (typeof count === "boolean") found[field] = count;
        else if (Number.isInteger(count) && isWithin(count as number))
          found[field] = count as number;
        // An impossible count makes the cost unknown, and not wrong.
        else found["incomplete"] = true;
      }
      this.#record.usage = found;
    });
  }

  /** The step's own cost in US dollars; replaces the cost computed from the price list. */
  setCost(usd: number | string): this {
    return this.#set("setCost", () => {
      const text = typeof usd === "number" ? usd.toFixed(9) : usd.trim();
      if (/^\d{1,7}(\.\d{1,12})?$/.test(text)) this.#record.cost_usd = text;
      else this.#warn("setCost", "the cost is ignored: it is no amount of dollars");
    });
  }

  /** The model that answered, where it was not known on opening. */
  setModel(model: string, provider?: string): this {
    return this.#set("setModel", () => {
      this.#record.model = label(model);
      if (provider !== undefined) this.#record.provider = label(provider);
    });
  }

  /** What a retrieval returned, best first. */
  setDocuments(documents: readonly Document[]): this {
    return this.#set("setDocuments", () => {
      this.#record.documents = documents
        .slice(0, LIMITS.documents)
        .map((document) => this.#document(document));
    });
  }

  setAttribute(key: string, value: unknown): this {
    return this.#set("setAttribute", () => this.#addAttributes({ [key]: value }));
  }

  setAttributes(attributes: Readonly<Record<string, unknown>>): this {
    return this.#set("setAttributes", () => this.#addAttributes(attributes));
  }

  /** A failure that throws nothing: an error, or its text. */
  setError(error: unknown, errorType = ""): this {
    return this.#set("setError", () => {
      this.#fail(error);
      if (errorType !== "") this.#record.error_type = label(errorType);
    });
  }

  /** The time at which a streamed answer began. */
  recordFirstToken(): this {
    return this.#set("recordFirstToken", () => {
      this.#record.first_token_time ??= this.#nowUs();
    });
  }

  /**
   * For long work without steps: waits while the run is paused.
   * @throws {RunStopped} if the run is stopped.
   */
  async checkpoint(): Promise<void> {
    if (this.#isOpen) await this.#scope.control?.ready();
  }

  /** End the step. `error` is what ended it, if anything did. Does nothing the second time. */
  end(error?: unknown): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#guard("end", () => {
      if (error !== undefined) this.#fail(error);
      this.#record.phase = "end";
      this.#record.end_time = this.#nowUs();
      this.#record.status ??= "ok";
      this.#engine?.ended(this);
      this.#publish(this.#record);
    });
  }

  /** @internal What was returned is the output, unless the program has set one. */
  returned(value: unknown): void {
    if (value !== undefined && !this.#hasOutput) this.setOutput(value);
  }

  /** @internal */
  get scope(): Scope {
    return this.#scope;
  }

  /** @internal */
  get startUs(): number {
    return this.#record.start_time;
  }

  /** @internal A run, or an agent inside one, gets a control of its own. */
  takeControl(control: RunControl): void {
    this.#scope = { ...this.#scope, control };
  }

  #document(document: Document): DocumentRecord {
    const { id, score, content } = document;
    return {
      id: label(id),
      score: typeof score === "number" && Number.isFinite(score) ? score : null,
      content: this.#limit > 0 ? toText(content, this.#limit).text : "",
    };
  }

  #setContent(field: "input" | "output", value: unknown): void {
    if (field === "output") this.#hasOutput = true;
    const content: Content =
      this.#limit > 0 ? toText(value, this.#limit) : sizeOnly(value, this.#engine);
    this.#record[field] = content.text;
    if (content.bytes !== undefined) this.#record[`${field}_bytes`] = content.bytes;
    else delete this.#record[`${field}_bytes`];
  }

  #addAttributes(attributes: Readonly<Record<string, unknown>>): void {
    this.#record.attributes ??= {};
    const known = this.#record.attributes;
    let count = Object.keys(known).length;
    for (const [key, value] of Object.entries(attributes)) {
      if (!(key in known) && ++count > LIMITS.attributes) return;
      known[key] = toText(value, LIMITS.attributeChars).text;
    }
  }

  #fail(error: unknown): void {
    const isAbort = error instanceof Error && error.name === "AbortError";
    this.#record.status = (isAbort ? "cancelled" : "error") satisfies Status;
    if (error instanceof Error) {
      const own = Object.getOwnPropertyDescriptor(error, "name")?.value;
      this.#record.error_type = label(own) || typeName(error);
      this.#record.error_message = toText(ownMessage(error), LIMITS.messageChars).text;
    } else {
      this.#record.error_type = "";
      this.#record.error_message = toText(error, LIMITS.messageChars).text;
    }
  }

  #nowUs(): number {
    // By the steady clock since the start, so that a step never ends before it began.
    return this.#record.start_time + Math.round((performance.now() - this.#began) * 1_000);
  }

  #publish(record: StepRecord): void {
    this.#engine?.sender.enqueue(record, this.#limit || LIMITS.messageChars);
  }

  #set(method: string, action: () => void): this {
    if (!this.#isOpen) this.#warn(method, `${method} is ignored: the step has ended`);
    else this.#guard(method, action);
    return this;
  }

  #guard(what: string, action: () => void): void {
    if (this.#engine === null) return;
    try {
      action();
    } catch (error) {
      this.#warn(what, `${what} failed: ${reasonOf(error)}`);
    }
  }

  #warn(kind: string, message: string): void {
    this.#engine?.log.warn(kind, message);
  }
}

/** The parent of a step, in this process or in another one. */
export interface Parent {
  readonly stepId: string;
  /** In another process, and it does not report to Stepstream. */
  readonly isForeign: boolean;
}

const NEVER = new AbortController().signal;
// The sizes of contents that are not sent are those of what would have been sent at most.
function sizeOnly(value: unknown, engine: Engine | null): Content {
  const content = toText(value, engine?.settings.maxContentBytes ?? 0);
  const bytes = content.bytes ?? new TextEncoder().encode(content.text).length;
  return { text: "", bytes };
}

function ownMessage(error: Error): unknown {
  return Object.getOwnPropertyDescriptor(error, "message")?.value ?? "";
}

const isWithin = (count: number) => count >= 0 && count <= LIMITS.usageCount;

const MOST_DRIFT_MS = 20;
let originMs = performance.timeOrigin;

/** Microseconds since 1970, finer than the system's clock and never far from it. */
export function nowUs(): number {
  const [steadyMs, wallMs] = [performance.now(), Date.now()];
  // The steady clock stands still while a machine sleeps.
  if (Math.abs(originMs + steadyMs - wallMs) > MOST_DRIFT_MS) originMs = wallMs - steadyMs;
  return Math.round((originMs + steadyMs) * 1_000);
}
