import { describe, expect, it } from "vitest";
import {
  changeText,
  type Executor,
  executorState,
  isOpen,
  mayRetry,
  outcome,
  type Queue,
  queueState,
  type Task,
} from "../src/lib/tasks";

const queue: Queue = {
  agent: "refund",
  project: "shop",
  waiting: 0,
  waitingFor: [],
  oldest: null,
  running: 0,
  started: 0,
  ended: 0,
  failed: 0,
  retried: 0,
  executors: 1,
  slots: 4,
  versions: ["v13"],
};
const executor: Executor = {
  id: "ex-1",
  project: "shop",
  state: "ready",
  reason: "",
  host: "",
  slots: 4,
  used: 0,
  agents: [],
  since: null,
  changed: 0,
  ended: 0,
};
const task = {
  state: "waiting",
  waitingFor: "slot",
  detail: "",
  reason: "",
  executor: "ex-1",
  cancelling: false,
  errorType: "Timeout",
  errorMessage: "no answer",
} as Task;

describe("tasks", () => {
  it("names the state of a queue by what would have to change", () => {
    const state = (changes: Partial<Queue>) => queueState({ ...queue, ...changes }).text;
    expect(state({})).toBe("open");
    expect(state({ executors: 0 })).toBe("no executor");
    expect(state({ waiting: 3, waitingFor: ["slot"] })).toBe("slots in use");
    expect(state({ waiting: 3, waitingFor: ["delay"] })).toBe("open");
    expect(state({ waiting: 3, waitingFor: ["budget", "slot"] })).toBe("budget");
    expect(state({ waiting: 3, waitingFor: ["executor"], executors: 0 })).toBe("no executor");
    expect(state({ waiting: 3, waitingFor: ["executor", "slot"] })).toBe(
      "no executor for a version",
    );
  });

  it("states what an executor does", () => {
    const state = (changes: Partial<Executor>) => executorState({ ...executor, ...changes });
    expect(state({}).text).toBe("ready");
    expect(state({ used: 2 }).text).toBe("working");
    expect(state({ state: "draining", used: 1 })).toEqual({
      state: "waiting",
      text: "draining, 1 left",
    });
    expect(state({ state: "lost", reason: "no heartbeat" })).toEqual({
      state: "error",
      text: "lost: no heartbeat",
    });
    expect(state({ state: "<b>" }).state).toBe("unknown");
  });

  it("says why a task waits and how it ended", () => {
    expect(outcome(task)).toBe("waits for a free slot");
    expect(outcome({ ...task, state: "running" })).toBe("running on ex-1");
    expect(outcome({ ...task, state: "running", cancelling: true })).toContain("asked to stop");
    expect(outcome({ ...task, state: "failed", reason: "retries_used" })).toBe(
      "failed: retries_used: Timeout: no answer",
    );
    expect(outcome({ ...task, state: "ok" })).toBe("ok");
  });

  it("offers what can be done", () => {
    expect(["waiting", "bound", "running", "ok", "dead"].map(isOpen)).toEqual([
      true,
      true,
      true,
      false,
      false,
    ]);
    expect(["running", "ok", "failed", "cancelled"].map(mayRetry)).toEqual([
      false,
      false,
      true,
      true,
    ]);
  });

  it("describes each change, whatever the server sends", () => {
    const bound = { event: "bound", state: "bound", attempt: 2, run_agent: "refund" };
    expect(changeText({ ...bound, run_version: "v13", executor_id: "ex-1" })).toBe(
      "attempt 2 of refund v13 to ex-1",
    );
    const lost = { event: "retrying", state: "waiting", waiting_for: "retry", attempt: 1 };
    expect(changeText({ ...lost, detail: "lost_lease" })).toBe(
      "waits for the pause before the next attempt: lost_lease",
    );
    expect(changeText({ event: "fallback", state: "waiting", target: "lite@v2" })).toBe(
      "to lite@v2; waits for its turn",
    );
    const ended = { event: "ended", state: "dead", reason: "lease_lost", detail: "it had started" };
    expect(changeText(ended)).toBe("dead; lease_lost: it had started");
    expect(changeText({ event: "ended", state: "cancelled", by: "ann" })).toBe("cancelled; by ann");
    expect(changeText({})).toBe("");
  });
});
