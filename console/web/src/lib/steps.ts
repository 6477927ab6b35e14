/** One step as the pages use it. Times are microseconds since 1970 in server time. */
export interface Step {
  id: string;
  parent: string;
  kind: string;
  name: string;
  tool: string;
  model: string;
  agent: string;
  start: number;
  /** null while the step is open */
  end: number | null;
  /** ok, error or cancelled; "" while the step is open */
  status: string;
  errorType: string;
  errorMessage: string;
  attempt: number;
  retryOf: string;
  inputTokens: number;
  outputTokens: number;
  cachedTokens: number;
  /** US dollars; null where unknown or where nothing was charged */
  cost: number | null;
  /** the step was charged for and its cost is unknown */
  unpriced: boolean;
  inputBytes: number;
  outputBytes: number;
  /** what is wrong although the step ended with ok; "" where nothing is known */
  hidden: string;
  /** a few words about the step, such as a tool's argument; may be empty */
  detail: string;
}

export type Family = "model" | "tool" | "read" | "check" | "ctrl" | "cont" | "out" | "state";

const FAMILIES: Record<string, Family> = {
  llm_call: "model",
  plan: "model",
  tool_selection: "model",
  tool_call: "tool",
  retrieval: "read",
  guardrail: "check",
  evaluation: "check",
  control: "ctrl",
  agent: "cont",
  output: "out",
  state_update: "state",
};

/** The colour family of a kind. */
export function family(kind: string): Family {
  return FAMILIES[kind] ?? "state";
}

export const KINDS = [
  "agent",
  "plan",
  "tool_selection",
  "llm_call",
  "tool_call",
  "retrieval",
  "state_update",
  "guardrail",
  "evaluation",
  "output",
  "control",
  "other",
] as const;

/** The name of the kind's glyph; kinds that are unknown share the one of `other`. */
export function glyph(kind: string): string {
  return (KINDS as readonly string[]).includes(kind) ? kind : "other";
}

/** Whether the step failed, openly or behind a status ok. */
export function isFailure(step: Step): boolean {
  return step.status === "error" || step.hidden !== "";
}

/** Bold part of a row: what ran. */
export function title(step: Step): string {
  if (step.kind === "llm_call" && step.model) return step.model;
  if (step.kind === "tool_call" && step.tool) return step.tool;
  return step.name || step.tool || step.model || step.kind;
}

/** Second part of a row: what distinguishes this step from others of the same title. */
export function subtitle(step: Step): string {
  const parts: string[] = [];
  const first = title(step);
  if (step.name && step.name !== first) parts.push(step.name);
  if (step.detail) parts.push(step.detail);
  if (step.attempt > 1) parts.push(`attempt ${step.attempt}`);
  return parts.join(" ");
}

/** The step's duration in microseconds; at least 0, and until `now` while it is open. */
export function duration(step: Step, now: number): number {
  return Math.max(0, (step.end ?? Math.max(now, step.start)) - step.start);
}
