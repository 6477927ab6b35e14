/** W3C trace context: a run over several processes (https://www.w3.org/TR/trace-context/). */
import { TRACE_STATE } from "./tables.ts";

const MOST_STATE_CHARS = 512;
const OURS = `${TRACE_STATE.key}=`;
// Version ff is forbidden; later versions may append fields, which are ignored.
const TRACEPARENT =
  /^(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?$/;

/** The parent in another process. `reports`: it sends its steps to Stepstream too. */
export interface TraceContext {
  readonly traceId: string;
  readonly stepId: string;
  readonly reports: boolean;
}

/** Headers as objects, `Headers`, `Map`s or pairs; or the text of a `traceparent`. */
export type IncomingHeaders =
  | string
  | Iterable<readonly [string, string]>
  | Readonly<Record<string, string | readonly string[] | undefined>>;

/** The headers with those that name a step as the parent; entries of others are kept. */
export function withParent(
  headers: Readonly<Record<string, string>>,
  traceId: string,
  stepId: string,
): Record<string, string> {
  const sent: Record<string, string> = {};
  let state = "";
  for (const [name, value] of Object.entries(headers)) {
    const known = name.toLowerCase();
    if (known === "tracestate") state = value;
    else if (known !== "traceparent") sent[name] = value;
  }
  sent["traceparent"] = `00-${traceId}-${stepId}-01`;
  sent["tracestate"] = stateWithOurs(state);
  return sent;
}

function stateWithOurs(state: string): string {
  let text = `${OURS}${TRACE_STATE.value}`;
  for (const entry of state.split(",").map((one) => one.trim())) {
    if (entry === "" || entry.startsWith(OURS)) continue;
    if (text.length + 1 + entry.length > MOST_STATE_CHARS) break;
    text = `${text},${entry}`;
  }
  return text;
}

/** The context in headers or in a `traceparent`; null if there is none. Never throws. */
export function contextFrom(given: unknown): TraceContext | null {
  try {
    if (typeof given === "string") return parsed(given, "");
    if (typeof given !== "object" || given === null) return null;
    const pairs =
      Symbol.iterator in given
        ? (given as Iterable<readonly [unknown, unknown]>)
        : Object.entries(given);
    const found = new Map<string, string>();
    for (const [name, value] of pairs) {
      const text = Array.isArray(value) ? value.join(",") : value;
      if (typeof name === "string" && typeof text === "string") {
        found.set(name.toLowerCase(), text);
      }
    }
    return parsed(found.get("traceparent") ?? "", found.get("tracestate") ?? "");
  } catch {
    return null;
  }
}

function parsed(parent: string, state: string): TraceContext | null {
  const [, traceId, stepId] = TRACEPARENT.exec(parent.trim().toLowerCase()) ?? [];
  if (traceId === undefined || stepId === undefined) return null;
  return { traceId, stepId, reports: state.includes(OURS) };
}
