export interface State {
  mark: string;
  word: string;
  tone: "" | "error" | "warning" | "running";
}

const STATES: Record<string, State> = {
  ok: { mark: "ok", word: "ok", tone: "" },
  running: { mark: "running", word: "running", tone: "running" },
  error: { mark: "error", word: "error", tone: "error" },
  hidden: { mark: "hidden", word: "hidden error", tone: "error" },
  cancelled: { mark: "stopped", word: "cancelled", tone: "" },
  stopped: { mark: "stopped", word: "stopped", tone: "" },
  stopping: { mark: "warning", word: "stop sent", tone: "warning" },
  paused: { mark: "waits", word: "paused", tone: "" },
  waiting: { mark: "waits", word: "waits for approval", tone: "" },
  incomplete: { mark: "unknown", word: "incomplete", tone: "" },
  firing: { mark: "error", word: "firing", tone: "error" },
  resolved: { mark: "ok", word: "resolved", tone: "" },
  warning: { mark: "warning", word: "warning", tone: "warning" },
  unknown: { mark: "unknown", word: "unknown", tone: "" },
};

/** Mark, word and colour of a state; one that is not known keeps its own word. */
export function stateOf(state: string): State {
  return STATES[state] ?? { mark: "unknown", word: state || "unknown", tone: "" };
}
