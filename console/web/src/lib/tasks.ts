/** Tasks, executors and queues as the pages show them. */
import { get, post } from "./api";
import { period } from "./format";
import { type Json, list, maybe, micros, num, object, text } from "./wire";

const API = "/api/v1";

export interface Task {
  id: string;
  project: string;
  state: string;
  waitingFor: string;
  waitingUntil: number | null;
  reason: string;
  detail: string;
  agent: string;
  version: string;
  runAgent: string;
  runVersion: string;
  attempt: number;
  maxAttempts: number;
  priority: number;
  key: string;
  executor: string;
  run: string;
  user: string;
  session: string;
  submitted: number;
  started: number | null;
  ended: number | null;
  cancelling: boolean;
  errorType: string;
  errorMessage: string;
}

export interface Queue {
  agent: string;
  project: string;
  waiting: number;
  waitingFor: string[];
  oldest: number | null;
  running: number;
  started: number;
  ended: number;
  failed: number;
  retried: number;
  executors: number;
  slots: number;
  versions: string[];
}

export interface Executor {
  id: string;
  project: string;
  state: string;
  reason: string;
  host: string;
  slots: number;
  used: number;
  agents: string[];
  since: number | null;
  changed: number;
  ended: number;
}

export interface Figures {
  waiting: number;
  running: number;
  ended: number;
  ok: number;
  failed: number;
  dead: number;
  attempts: number;
  attempted: number;
  startMedian: number | null;
  startHigh: number | null;
}

export interface Overview {
  figures: Figures;
  queues: Queue[];
  executors: Executor[];
  waiting: Task[];
  recent: Task[];
}

export interface Change {
  at: number;
  event: string;
  state: string;
  text: string;
  run: string;
}

export interface TaskRun {
  id: string;
  attempt: number;
  status: string;
  steps: number;
  cost: number | null;
  unpriced: number;
  duration: number;
}

export interface TaskFinding {
  run: string;
  alert: string;
  severity: string;
  message: string;
}

export interface Refusal {
  at: number;
  what: string;
  why: string;
}

export interface Attempt {
  attempt: number;
  run: string;
  executor: string;
  agent: string;
  status: string;
  error: string;
  started: number | null;
  ended: number | null;
}

export interface Story {
  task: Task;
  attempts: Attempt[];
  changes: Change[];
  runs: TaskRun[];
  findings: TaskFinding[];
  /** submits and commands that were refused, newest first */
  refusals: Refusal[];
  input: string;
  result: string;
  facts: [string, string][];
}

/** States in which a task has not ended. */
const OPEN = new Set(["waiting", "bound", "running"]);

export function isOpen(state: string): boolean {
  return OPEN.has(state);
}

/** Whether a task in this state can be run again. */
export function mayRetry(state: string): boolean {
  return !OPEN.has(state) && state !== "ok";
}

const WAITS: Record<string, string> = {
  delay: "the delay that was asked for",
  retry: "the pause before the next attempt",
  slot: "a free slot",
  executor: "an executor that offers its agent",
  limit: "a limit",
  budget: "budget",
  after: "the tasks that it comes after",
  key: "an earlier task with its key",
};

/** Why a task waits, in words. */
export function waitsFor(task: Pick<Task, "waitingFor" | "detail">): string {
  const what = WAITS[task.waitingFor] ?? (task.waitingFor || "its turn");
  return task.detail ? `${what}: ${task.detail}` : what;
}

/** How a task ended, or who runs it. */
export function outcome(task: Task): string {
  if (task.state === "waiting") return `waits for ${waitsFor(task)}`;
  if (isOpen(task.state)) {
    const stop = task.cancelling ? ", asked to stop" : "";
    return `${task.state === "bound" ? "given to" : "running on"} ${task.executor}${stop}`;
  }
  const error = [task.errorType, task.errorMessage].filter(Boolean).join(": ");
  const why = [task.reason, task.detail, task.state === "ok" ? "" : error];
  return [...new Set([task.state, ...why].filter(Boolean))].join(": ");
}

/** Mark and word of a queue: the state of `State.svelte`, and what it says. */
export function queueState(queue: Queue): { state: string; text: string } {
  if (queue.waiting && queue.waitingFor.includes("executor"))
    return {
      state: "warning",
      text: queue.executors ? "no executor for a version" : "no executor",
    };
  const held = queue.waitingFor.filter((one) => one !== "slot" && one !== "delay");
  if (queue.waiting && held.length) return { state: "waiting", text: held.join(", ") };
  if (!queue.executors) return { state: "unknown", text: "no executor" };
  if (queue.waiting && queue.waitingFor.includes("slot"))
    return { state: "waiting", text: "slots in use" };
  return { state: "running", text: "open" };
}

const EXECUTOR_MARKS: Record<string, string> = {
  ready: "running",
  not_ready: "waiting",
  draining: "waiting",
  lost: "error",
  left: "stopped",
};

export function executorState(one: Executor): { state: string; text: string } {
  const word = one.state.replace("_", " ");
  const left = one.state === "draining" && one.used ? `, ${one.used} left` : "";
  const why = one.reason ? `: ${one.reason}` : "";
  const text = one.state === "ready" ? (one.used ? "working" : "ready") : `${word}${left}${why}`;
  return { state: EXECUTOR_MARKS[one.state] ?? "unknown", text };
}

const TASK_MARKS: Record<string, string> = {
  failed: "error",
  dead: "error",
  expired: "error",
  refused: "stopped",
  bound: "running",
};

/** The state of `State.svelte` that has the mark of a task's state. */
export function taskMark(state: string): string {
  return TASK_MARKS[state] ?? state;
}

function taskOf(row: Json): Task {
  return {
    id: text(row.task_id),
    project: text(row.project),
    state: text(row.state),
    waitingFor: text(row.waiting_for),
    waitingUntil: micros(row.waiting_until),
    reason: text(row.reason),
    detail: text(row.detail),
    agent: text(row.agent),
    version: text(row.version),
    runAgent: text(row.run_agent),
    runVersion: text(row.run_version),
    attempt: num(row.attempt),
    maxAttempts: num(row.max_attempts),
    priority: num(row.priority),
    key: text(row.key),
    executor: text(row.executor_id),
    run: text(row.trace_id),
    user: text(row.user_id),
    session: text(row.session_id),
    submitted: micros(row.submitted_at) ?? 0,
    started: micros(row.started_at),
    ended: micros(row.ended_at),
    cancelling: row.cancelling === true,
    errorType: text(row.error_type),
    errorMessage: text(row.error_message),
  };
}

function queueOf(row: Json): Queue {
  return {
    agent: text(row.agent),
    project: text(row.project),
    waiting: num(row.waiting),
    waitingFor: list(row.waiting_for).map(text),
    oldest: micros(row.oldest),
    running: num(row.running),
    started: num(row.started_1h),
    ended: num(row.ended_1h),
    failed: num(row.failed_1h),
    retried: num(row.retried_1h),
    executors: num(row.executors),
    slots: num(row.slots),
    versions: list(row.versions).map(text).filter(Boolean),
  };
}

function executorOf(row: Json): Executor {
  return {
    id: text(row.executor_id),
    project: text(row.project),
    state: text(row.state),
    reason: text(row.reason),
    host: text(row.host),
    slots: num(row.slots),
    used: num(row.used),
    agents: list(row.agents).map((one) => {
      const offer = object(one);
      return [text(offer.name), text(offer.version)].filter(Boolean).join(" ");
    }),
    since: micros(row.started_at),
    changed: micros(row.changed_at) ?? 0,
    ended: num(row.ended_1h),
  };
}

export async function overview(project: string): Promise<Overview> {
  const query = project ? `?${new URLSearchParams({ project })}` : "";
  const found = object(await get<Json>(`${API}/tasks${query}`));
  const figures = object(found.figures);
  const [median, high] = list(figures.start_us).map(maybe);
  return {
    figures: {
      waiting: num(figures.waiting),
      running: num(figures.running),
      ended: num(figures.ended),
      ok: num(figures.ok),
      failed: num(figures.failed),
      dead: num(figures.dead),
      attempts: num(figures.attempts),
      attempted: num(figures.attempted),
      startMedian: median ?? null,
      startHigh: high ?? null,
    },
    queues: list(found.queues).map((one) => queueOf(object(one))),
    executors: list(found.executors).map((one) => executorOf(object(one))),
    waiting: list(found.waiting).map((one) => taskOf(object(one))),
    recent: list(found.recent).map((one) => taskOf(object(one))),
  };
}

/** The words of a change, without its time. */
export function changeText(row: Json): string {
  const [event, state, detail] = [text(row.event), text(row.state), text(row.detail)];
  const attempt = `attempt ${num(row.attempt)}`;
  const parts: string[] = [];
  if (event === "bound") {
    const who = [text(row.run_agent), text(row.run_version)].filter(Boolean).join(" ");
    parts.push(`${attempt} of ${who} to ${text(row.executor_id)}`);
  } else if (event === "started") parts.push(attempt);
  else if (event === "fallback") parts.push(`to ${text(row.target)}`);
  else if (state && !isOpen(state)) parts.push(state);
  // While a task waits, the detail is about what it waits for.
  if (state === "waiting")
    parts.push(`waits for ${waitsFor({ waitingFor: text(row.waiting_for), detail })}`);
  else if (event !== "bound" && event !== "started")
    parts.push(
      [...new Set([text(row.reason), detail])].filter((one) => one && one !== state).join(": "),
    );
  if (text(row.by)) parts.push(`by ${text(row.by)}`);
  return parts.filter(Boolean).join("; ");
}

function attemptOf(one: unknown): Attempt {
  const row = object(one);
  const failure = [row.reason, row.error_type, row.error_message].map(text).filter(Boolean);
  return {
    attempt: num(row.attempt),
    run: text(row.trace_id),
    executor: text(row.executor_id),
    agent: [text(row.agent), text(row.version)].filter(Boolean).join(" "),
    started: micros(row.started_at),
    ended: micros(row.ended_at),
    status: text(row.status),
    error: failure.join(": "),
  };
}

export async function story(id: string, project: string): Promise<Story> {
  const query = project ? `?${new URLSearchParams({ project })}` : "";
  const found = object(await get<Json>(`${API}/tasks/${encodeURIComponent(id)}${query}`));
  const row = object(found.task);
  const task = taskOf(row);
  const attempts = list(row.attempts).map(attemptOf);
  // The column has the attempts that have ended.
  if (task.attempt && isOpen(task.state) && attempts.at(-1)?.attempt !== task.attempt)
    if (task.state !== "waiting")
      attempts.push({
        attempt: task.attempt,
        run: task.run,
        executor: task.executor,
        agent: [task.runAgent, task.runVersion].filter(Boolean).join(" "),
        status: task.state,
        error: "",
        started: task.started,
        ended: null,
      });
  const facts: [string, string][] = [
    ["Agent", [task.agent, task.version].filter(Boolean).join(" ")],
    ["Project", [task.project, text(row.environment)].filter(Boolean).join(" / ")],
    ["Submitted by", text(row.submitted_by)],
    ["User", task.user],
    ["Session", task.session],
    ["Key", task.key],
    ["Priority", String(task.priority)],
    ["After", list(row.after).map(text).join(", ")],
    ["Part of task", text(row.parent_task_id)],
    ["Attempts at most", task.maxAttempts ? String(task.maxAttempts) : ""],
    ["Time-out", num(row.timeout_us) ? period(num(row.timeout_us)) : ""],
    ["Budget", text(row.budget_usd) ? `$${text(row.budget_usd)}` : ""],
    ["Given up", list(row.fallbacks).map(text).join(", ")],
    ["Kept by task.once", Object.keys(object(row.once)).join(", ")],
  ];
  return {
    task,
    attempts,
    changes: list(found.events).map((one) => {
      const event = object(one);
      return {
        at: micros(event.changed_at) ?? 0,
        event: text(event.event),
        state: text(event.state),
        text: changeText(event),
        run: text(event.trace_id),
      };
    }),
    runs: list(found.runs).map((one) => {
      const run = object(one);
      return {
        id: text(run.trace_id),
        attempt: num(run.attempt),
        status: text(run.status),
        steps: num(run.steps),
        cost: maybe(run.cost_usd),
        unpriced: num(run.unpriced_steps),
        duration: num(run.duration_us),
      };
    }),
    findings: list(found.findings).map((one) => {
      const finding = object(one);
      return {
        run: text(finding.trace_id),
        alert: text(finding.alert),
        severity: text(finding.severity),
        message: text(finding.message),
      };
    }),
    refusals: list(found.refusals).map((one) => {
      const refusal = object(one);
      return {
        at: micros(refusal.refused_at) ?? 0,
        what: text(refusal.refused),
        why: [text(refusal.reason), text(refusal.detail)].filter(Boolean).join(": "),
      };
    }),
    input: text(row.input) || text(row.input_ref),
    result: text(row.result),
    facts: facts.filter(([, value]) => value !== ""),
  };
}

/** Cancels or retries a task. */
export async function actOnTask(
  task: Pick<Task, "id" | "project">,
  action: "cancel" | "retry",
  reason: string,
): Promise<void> {
  const path = `${API}/tasks/${encodeURIComponent(task.id)}/${action}`;
  await post<Json>(path, { project: task.project, reason });
}

export async function drain(executor: string): Promise<void> {
  await post<Json>(`${API}/executors/${encodeURIComponent(executor)}/drain`, {});
}
