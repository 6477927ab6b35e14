/**
 * Commands to runs: stop, pause, resume (approve) and warn. A command arrives by the gateway's
 * stream and takes effect where the run begins its next step; each is recorded as a control step.
 */
import { controlStepId, derivedId } from "./ids.ts";
import { type Log, reasonOf } from "./log.ts";
import { ACTIONS, type Action, COMMAND_FIELDS, type Status } from "./tables.ts";
import { alarm } from "./timers.ts";

const MOST_COMMAND_IDS = 1_000;
const MOST_SCOPE_COMMANDS = 1_000;

/** A command as the control topic has it; times are microseconds since 1970. */
export interface Command {
  readonly command_id: string;
  readonly action: Action;
  readonly time: number;
  readonly project: string;
  readonly environment: string;
  readonly agent: string;
  /** The run that is meant; empty: every run of the project or agent until `expires`. */
  readonly trace_id: string;
  readonly reason: string;
  readonly alert_id: string;
  readonly finding_id: string;
  /** Who sent it, or `policy:NAME`. */
  readonly by: string;
  readonly expires: number;
  /** With resume: the amount that a person approved. */
  readonly budget_usd: string;
}

/** Thrown by every step of a run that was stopped. */
export class RunStopped extends Error {
  override readonly name = "RunStopped";
  readonly reason: string;
  readonly by: string;
  readonly commandId: string;
  readonly traceId: string;

  constructor(stop: Command, traceId: string) {
    const reason = stop.reason || "no reason given";
    super(`the run was stopped by ${stop.by || "a command"}: ${reason}`);
    this.reason = reason;
    this.by = stop.by;
    this.commandId = stop.command_id;
    this.traceId = traceId;
  }
}

/** The command in the data of an event; null if it is none. */
export function readCommand(data: string): Command | null {
  try {
    const given: unknown = JSON.parse(data);
    if (typeof given !== "object" || given === null) return null;
    const command: Record<string, unknown> = {
      time: 0,
      expires: 0,
      ...Object.fromEntries(Object.entries(given).filter(([name]) => isField(name))),
    };
    for (const name of COMMAND_FIELDS) command[name] ??= name === "project" ? "default" : "";
    const { action, time, expires, command_id: id } = command;
    const isUsable =
      (ACTIONS as readonly unknown[]).includes(action) &&
      typeof id === "string" &&
      id !== "" &&
      Number.isFinite(time) &&
      Number.isFinite(expires);
    return isUsable ? (command as unknown as Command) : null;
  } catch {
    return null;
  }
}

const isField = (name: string) => (COMMAND_FIELDS as readonly string[]).includes(name);

/** What a run is, to decide which commands apply to it. */
export interface Owner {
  readonly traceId: string;
  readonly project: string;
  readonly environment: string;
  readonly agent: string;
  readonly startedUs: number;
}

/** Publishes one event of a control step of the run. */
export type Recorder = (
  stepId: string,
  phase: "start" | "end",
  name: string,
  attributes: Record<string, string>,
  beganUs: number,
  status: Status,
) => void;

interface Options {
  readonly parent: RunControl | null;
  readonly onCommand: ((command: Command) => unknown) | undefined;
  readonly pauseLimitMs: number;
  readonly record: Recorder;
  readonly nowUs: () => number;
  readonly log: Log;
}

/** The control of one run, or of an agent inside it; `parent` is that of the run around it. */
export class RunControl {
  readonly owner: Owner;
  readonly #options: Options;
  readonly #commandIds = new Set<string>();
  readonly #beganUs = new Map<string, number>();
  readonly #abort = new AbortController();
  readonly #inner = new Set<RunControl>();
  #stop: Command | null = null;
  #pause: Command | null = null;
  #isAcknowledged = false;
  #approvedUs = 0;
  #hasEnded = false;
  #waiting: (() => void)[] = [];

  constructor(owner: Owner, options: Options) {
    this.owner = owner;
    this.#options = options;
    // A set and not listeners on the parent's signal: Node warns of more than ten of these.
    const { parent } = options;
    if (parent === null) return;
    parent.#inner.add(this);
    if (parent.signal.aborted) this.#abort.abort(parent.signal.reason);
  }

  /** Aborted, with a `RunStopped` as its reason, as soon as a stop arrives. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** Take a command. Returns false if it is ignored: known, outdated, or after the run's end. */
  deliver(command: Command): boolean {
    const isOutdated =
      (command.action === "stop" || command.action === "pause") && command.time <= this.#approvedUs;
    if (this.#commandIds.has(command.command_id) || isOutdated || this.#hasEnded) return false;
    if (this.#commandIds.size >= MOST_COMMAND_IDS) {
      const [oldest] = this.#commandIds;
      if (oldest !== undefined) this.#commandIds.delete(oldest);
    }
    this.#commandIds.add(command.command_id);
    this.#take(command);
    this.#wake();
    try {
      const result = this.#options.onCommand?.(command);
      if (result instanceof Promise) result.catch(this.#reportHook);
    } catch (error) {
      this.#reportHook(error);
    }
    return true;
  }

  readonly #reportHook = (error: unknown) => {
    this.#options.log.warn("onCommand", `onCommand failed: ${reasonOf(error)}`);
  };

  #take(command: Command): void {
    if (command.action === "resume") {
      this.#approve(command);
    } else if (command.action === "stop" && this.#stop === null) {
      this.#stop = command;
      this.#start(command);
      this.#abortAll(new RunStopped(command, this.owner.traceId));
    } else if (command.action === "pause" && this.#pause === null) {
      this.#pause = command;
      this.#start(command);
    } else {
      this.#finish(command);
    }
  }

  #abortAll(stopped: RunStopped): void {
    this.#abort.abort(stopped);
    for (const control of this.#inner) control.#abortAll(stopped);
  }

  #approve(command: Command): void {
    this.#approvedUs = Math.max(this.#approvedUs, command.time);
    if (this.#pause !== null && this.#pause.time <= command.time) {
      this.#finish(this.#pause);
      this.#pause = null;
    }
    if (this.#stop !== null && this.#stop.time <= command.time) {
      if (!this.#isAcknowledged) this.#finish(this.#stop, "cancelled");
      this.#stop = null;
      this.#isAcknowledged = false;
    }
    this.#finish(command);
  }

  /** Throws `RunStopped` if the run, or one around it, is stopped. */
  check(): void {
    for (let control: RunControl | null = this; control; control = control.#options.parent) {
      control.#throwIfStopped();
    }
  }

  /** Whether the run, or one around it, is paused. */
  get isPaused(): boolean {
    for (let control: RunControl | null = this; control; control = control.#options.parent) {
      if (control.#pause !== null) return true;
    }
    return false;
  }

  /** Wait while the run, or one around it, is paused. Throws `RunStopped` if it is stopped. */
  async ready(): Promise<void> {
    for (let control: RunControl | null = this; control; control = control.#options.parent) {
      await control.#waitWhilePaused();
      control.#throwIfStopped();
    }
  }

  async #waitWhilePaused(): Promise<void> {
    if (this.#pause === null) return;
    // It keeps the process alive: the program waits for it, and nothing else might be open.
    const limit = alarm(this.#options.pauseLimitMs, () => this.#stopAfterPause());
    try {
      while (this.#pause !== null && this.#stop === null) {
        await new Promise<void>((resolve) => this.#waiting.push(resolve));
      }
    } finally {
      limit.cancel();
    }
  }

  // A pause asks for an approval: without one, what was paused is not done.
  #stopAfterPause(): void {
    const pause = this.#pause;
    if (pause === null || this.#stop !== null) return;
    const seconds = Math.round(this.#options.pauseLimitMs / 1_000);
    this.#finish(pause, "cancelled");
    this.#pause = null;
    this.#take({
      ...pause,
      command_id: derivedId("given up", pause.command_id, this.owner.traceId),
      action: "stop",
      time: Math.max(this.#options.nowUs(), pause.time),
      reason: `it was paused (${pause.reason}) and not resumed within ${seconds} s`,
    });
    this.#wake();
  }

  #throwIfStopped(): void {
    const stop = this.#stop;
    if (stop === null) return;
    if (!this.#isAcknowledged) {
      this.#isAcknowledged = true;
      this.#finish(stop);
    }
    throw new RunStopped(stop, this.owner.traceId);
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }

  /** The run has ended: commands that did not take effect are recorded as cancelled. */
  end(): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    if (this.#options.parent !== null) this.#options.parent.#inner.delete(this);
    if (this.#pause !== null) this.#finish(this.#pause, "cancelled");
    if (this.#stop !== null && !this.#isAcknowledged) this.#finish(this.#stop, "cancelled");
    this.#wake();
  }

  #start(command: Command): void {
    const beganUs = this.#options.nowUs();
    this.#beganUs.set(command.command_id, beganUs);
    this.#write(command, "start", beganUs, "ok");
  }

  #finish(command: Command, status: Status = "ok"): void {
    const beganUs = this.#beganUs.get(command.command_id) ?? this.#options.nowUs();
    this.#beganUs.delete(command.command_id);
    this.#write(command, "end", beganUs, status);
  }

  #write(command: Command, phase: "start" | "end", beganUs: number, status: Status): void {
    const stepId = controlStepId(this.owner.traceId, command.command_id);
    this.#options.record(stepId, phase, nameOf(command), attributesOf(command), beganUs, status);
  }
}

function nameOf(command: Command): string {
  const isApproval = command.action === "resume" && command.budget_usd !== "";
  return isApproval ? `approve $${command.budget_usd}` : command.action;
}

function attributesOf(command: Command): Record<string, string> {
  const found = {
    command_id: command.command_id,
    action: command.action,
    by: command.by,
    reason: command.reason,
    alert_id: command.alert_id,
    finding_id: command.finding_id,
    budget_usd: command.budget_usd,
    scope: command.trace_id ? "" : `${command.project}/${command.agent || "*"}`,
  };
  return Object.fromEntries(Object.entries(found).filter(([, value]) => value !== ""));
}

/** Whether a command to a project or agent applies to the run. */
function binds(command: Command, owner: Owner): boolean {
  return (
    command.project === owner.project &&
    (command.environment === "" || command.environment === owner.environment) &&
    (command.agent === "" || command.agent === owner.agent) &&
    owner.startedUs < Math.max(command.expires, command.time)
  );
}

/** The open runs of this process, and the commands that apply to later runs too. */
export class Commands {
  readonly #open = new Set<RunControl>();
  #scope: Command[] = [];

  get hasOpenRuns(): boolean {
    return this.#open.size > 0;
  }

  /** A run begins: pending commands to its project or agent are delivered to it. */
  open(control: RunControl): void {
    this.#open.add(control);
    const pending = this.#scope.filter((command) => binds(command, control.owner));
    const resumed = pending.filter((command) => command.action === "resume");
    const resumedUs = Math.max(0, ...resumed.map((command) => command.time));
    for (const command of pending) if (command.time > resumedUs) control.deliver(command);
  }

  close(control: RunControl): void {
    this.#open.delete(control);
    control.end();
  }

  deliver(command: Command): void {
    // The sender's clock may be ahead: a resume in the future would override every later stop.
    const latestUs = Date.now() * 1_000;
    const dated = command.time > latestUs ? { ...command, time: latestUs } : command;
    if (dated.trace_id !== "") {
      for (const control of this.#open) {
        // The root alone: controls of agents inside the run check those around them.
        if (control.owner.traceId === dated.trace_id) return void control.deliver(dated);
      }
      return;
    }
    if (!this.#scope.some((known) => known.command_id === dated.command_id)) {
      this.#scope = [...this.#scope, dated]
        .sort((a, b) => a.time - b.time)
        .slice(-MOST_SCOPE_COMMANDS);
    }
    for (const control of [...this.#open]) {
      if (binds(dated, control.owner)) control.deliver(dated);
    }
  }
}
