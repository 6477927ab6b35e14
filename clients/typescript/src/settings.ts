/** What is recorded and where it goes. Nothing here throws: unusable values are logged and left out. */
import type { Log, Logger } from "./log.ts";
import {
  type CaptureRules,
  checkedCapture,
  isSampled,
  limitOf,
  type Mode,
  parseCapture,
} from "./privacy.ts";
import { DEFAULTS, type Kind, LIMITS } from "./tables.ts";
import { LONGEST_MS } from "./timers.ts";

export interface Settings {
  /** The gateway's address. Default: `STEPSTREAM_ENDPOINT`, else `http://127.0.0.1:4318`. */
  endpoint?: string;
  /** The gateway's key, from `stepstream keys create`. Default: `STEPSTREAM_ENDPOINT_KEY`. */
  endpointKey?: string;
  project?: string;
  environment?: string;
  /** The agent's name. Default: the name of the run. */
  agent?: string;
  agentVersion?: string;
  /** `false`: nothing is recorded and nothing is sent. */
  enabled?: boolean;
  /** `false`: of inputs, outputs and texts of documents only the sizes are sent. */
  captureContent?: boolean;
  /** Contents by kind of step: `{ llm_call: false, tool_call: 2048, "*": true }`, or as a text. */
  capture?: CaptureRules | string;
  /** The share of runs, 0 to 1, whose contents are sent; chosen by the trace id. */
  captureSample?: number;
  /** Key with which user ids are replaced by a hash before they are sent. */
  userIdKey?: string;
  /** Maximum size of one input or output in bytes; longer ones are cut in the middle. */
  maxContentBytes?: number;
  /** Maximum number of events in memory; further ones are dropped and counted. */
  queueEvents?: number;
  /** Maximum size of the events in memory. */
  queueBytes?: number;
  /** How long an event waits for others to be sent with it. */
  batchDelayMs?: number;
  /** `false`: commands (stop, pause, resume, warn) are not received. */
  control?: boolean;
  /** A run that stays paused for longer than this is stopped. */
  pauseLimitMs?: number;
  /** Applied to each text after the built-in redaction. A text on which it throws is withheld. */
  redact?: (text: string) => string;
  /** Where warnings go. Default: `console`. */
  logger?: Logger;
  /** Default: the global `fetch` as it was when this module was loaded. */
  fetch?: typeof globalThis.fetch;
}

/** The settings with every default filled in. */
export interface Resolved {
  endpoint: string;
  endpointKey: string;
  project: string;
  environment: string;
  agent: string;
  agentVersion: string;
  enabled: boolean;
  captureContent: boolean;
  capture: CaptureRules;
  captureSample: number;
  userIdKey: string;
  maxContentBytes: number;
  queueEvents: number;
  queueBytes: number;
  batchDelayMs: number;
  control: boolean;
  pauseLimitMs: number;
  redact: ((text: string) => string) | undefined;
  fetch: typeof globalThis.fetch;
}

const BATCH_DELAY_MS = 50;

// Taken here, so that a test's replacement of the global one does not receive the SDK's requests.
const platformFetch = globalThis.fetch;

type Environment = Readonly<Record<string, string | undefined>>;

function environment(): Environment {
  try {
    // Deno refuses this without the permission to read the environment.
    return (globalThis as { process?: { env?: Environment } }).process?.env ?? {};
  } catch {
    return {};
  }
}

/** The settings, from what the program gave, else from `STEPSTREAM_*`, else the defaults. */
export function resolve(given: Settings, log: Log, variables = environment()): Resolved {
  const text = (value: unknown, variable: string, otherwise = ""): string => {
    if (typeof value === "string") return value;
    if (value !== undefined) log.warn(variable, `${variable.toLowerCase()} is not a text`);
    return read(variables, `STEPSTREAM_${variable}`) ?? otherwise;
  };
  const amount = (value: unknown, variable: string, otherwise: number, most = Infinity): number => {
    const number = value ?? read(variables, `STEPSTREAM_${variable}`) ?? otherwise;
    const known = typeof number === "string" ? Number(number) : number;
    if (typeof known === "number" && known >= 0 && known <= most) return known;
    log.warn(variable, `${variable.toLowerCase()} is ignored: it is no number in its range`);
    return otherwise;
  };
  const flag = (value: unknown, variable: string, otherwise: boolean, odd = otherwise): boolean => {
    if (typeof value === "boolean") return value;
    if (value !== undefined && typeof value !== "string") {
      log.warn(variable, `${variable.toLowerCase()} is not true or false: it is ${odd}`);
      return odd;
    }
    const known = typeof value === "string" ? value : read(variables, `STEPSTREAM_${variable}`);
    if (known === undefined) return otherwise;
    return !["0", "false", "no", "off"].includes(known.toLowerCase());
  };
  // Not of a variable: the Python SDK has its durations as texts such as 15m.
  const milliseconds = (value: unknown, name: string, otherwise: number): number => {
    if (value === undefined) return otherwise;
    if (typeof value === "number" && value >= 0) return Math.min(value, LONGEST_MS);
    log.warn(name, `${name} is ignored: it is no number of milliseconds`);
    return otherwise;
  };
  const endpoint = usableEndpoint(text(given.endpoint, "ENDPOINT", DEFAULTS.endpoint), log);
  return {
    endpoint: endpoint ?? "",
    endpointKey: usableKey(text(given.endpointKey, "ENDPOINT_KEY"), log),
    project: text(given.project, "PROJECT", DEFAULTS.project) || DEFAULTS.project,
    environment: text(given.environment, "ENVIRONMENT"),
    agent: text(given.agent, "AGENT"),
    agentVersion: text(given.agentVersion, "AGENT_VERSION"),
    enabled: endpoint !== null && flag(given.enabled, "ENABLED", true),
    // Less is sent and not more, where what was meant is not known.
    captureContent: flag(given.captureContent, "CAPTURE_CONTENT", DEFAULTS.captureContent, false),
    capture:
      typeof given.capture === "object" && given.capture !== null
        ? checkedCapture(given.capture, log)
        : parseCapture(text(given.capture, "CAPTURE"), log),
    captureSample: amount(given.captureSample, "CAPTURE_SAMPLE", DEFAULTS.captureSample, 1),
    userIdKey: text(given.userIdKey, "USER_ID_KEY"),
    maxContentBytes: Math.min(
      amount(given.maxContentBytes, "MAX_CONTENT_BYTES", DEFAULTS.maxContentBytes),
      LIMITS.contentBytes,
    ),
    queueEvents: amount(given.queueEvents, "QUEUE_EVENTS", DEFAULTS.queueEvents),
    queueBytes: amount(given.queueBytes, "QUEUE_BYTES", DEFAULTS.queueBytes),
    batchDelayMs: milliseconds(given.batchDelayMs, "batchDelayMs", BATCH_DELAY_MS),
    control: flag(given.control, "CONTROL", DEFAULTS.control),
    pauseLimitMs: milliseconds(given.pauseLimitMs, "pauseLimitMs", DEFAULTS.pauseLimitMs),
    redact: typeof given.redact === "function" ? given.redact : undefined,
    fetch: given.fetch ?? platformFetch,
  };
}

function read(variables: Environment, name: string): string | undefined {
  try {
    return variables[name] || undefined;
  } catch {
    return undefined;
  }
}

/** The key; empty, with a warning, if no header can have it: `fetch` would quote it in its error. */
function usableKey(text: string, log: Log): string {
  const key = text.trim();
  if (/^[\x20-\x7e]*$/.test(key)) return key;
  log.warn("endpoint_key", "endpoint_key is ignored: it has characters that no key has");
  return "";
}

/** The address without a slash at its end; null, with a warning, if it is no gateway's. */
function usableEndpoint(text: string, log: Log): string | null {
  try {
    const url = new URL(text);
    if (url.protocol === "http:" || url.protocol === "https:") {
      return (url.origin + url.pathname).replace(/\/+$/, "");
    }
  } catch {
    // The same message as for an address of another kind.
  }
  log.warn(
    "endpoint",
    `nothing is recorded: the endpoint is no address of a gateway; write ${DEFAULTS.endpoint}`,
  );
  return null;
}

/**
 * Bytes at which contents of a step are cut; 0: only their sizes are sent. `own` is what was given on
 * the step itself, `around` on the innermost step around it.
 */
export function contentLimit(
  settings: Resolved,
  kind: Kind,
  traceId: string,
  own: Mode | undefined,
  around: Mode | undefined,
): number {
  const most = settings.maxContentBytes;
  if (own !== undefined) return Math.min(limitOf(own), most);
  const rule = settings.capture[kind];
  // A rule for this kind holds inside a run that decides for itself too.
  if (around !== undefined) return Math.min(limitOf(around), limitOf(rule ?? true), most);
  const isOff = !settings.captureContent || !isSampled(traceId, settings.captureSample);
  return isOff ? 0 : Math.min(limitOf(rule ?? settings.capture["*"] ?? true), most);
}
