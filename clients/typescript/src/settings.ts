/** What is recorded and where it goes. Nothing here throws: unusable values are logged and left out. */
import type { Log, Logger } from "./log.ts";
import { DEFAULTS, type Kind } from "./tables.ts";

/**
 * Which inputs, outputs and texts of documents are sent: all, none (their sizes only), or by kind of
 * step; a number is the maximum size in bytes.
 */
export type CaptureContent =
  | boolean
  | ({ readonly [kind in Kind]?: boolean | number } & { readonly default?: boolean | number });

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
  captureContent?: CaptureContent;
  /** The share of runs, 0 to 1, whose contents are sent; chosen by the trace id. */
  contentSampleRate?: number;
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
  captureContent: CaptureContent;
  contentSampleRate: number;
  maxContentBytes: number;
  queueEvents: number;
  queueBytes: number;
  batchDelayMs: number;
  control: boolean;
  pauseLimitMs: number;
  redact: ((text: string) => string) | undefined;
  fetch: typeof globalThis.fetch;
}

export const DEFAULT_ENDPOINT = "http://127.0.0.1:4318";
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
  const flag = (value: unknown, variable: string, otherwise: boolean): boolean => {
    if (typeof value === "boolean") return value;
    const known = read(variables, `STEPSTREAM_${variable}`)?.toLowerCase();
    return known === undefined ? otherwise : !["0", "false", "no", "off"].includes(known);
  };
  const endpoint = usableEndpoint(text(given.endpoint, "ENDPOINT", DEFAULT_ENDPOINT), log);
  return {
    endpoint: endpoint ?? "",
    endpointKey: text(given.endpointKey, "ENDPOINT_KEY"),
    project: text(given.project, "PROJECT", DEFAULTS.project) || DEFAULTS.project,
    environment: text(given.environment, "ENVIRONMENT"),
    agent: text(given.agent, "AGENT"),
    agentVersion: text(given.agentVersion, "AGENT_VERSION"),
    enabled: endpoint !== null && flag(given.enabled, "ENABLED", true),
    captureContent:
      typeof given.captureContent === "object" && given.captureContent !== null
        ? given.captureContent
        : flag(given.captureContent, "CAPTURE_CONTENT", DEFAULTS.captureContent),
    contentSampleRate: amount(given.contentSampleRate, "CONTENT_SAMPLE_RATE", 1, 1),
    maxContentBytes: amount(given.maxContentBytes, "MAX_CONTENT_BYTES", DEFAULTS.maxContentBytes),
    queueEvents: amount(given.queueEvents, "QUEUE_EVENTS", DEFAULTS.queueEvents),
    queueBytes: amount(given.queueBytes, "QUEUE_BYTES", DEFAULTS.queueBytes),
    batchDelayMs: given.batchDelayMs ?? BATCH_DELAY_MS,
    control: flag(given.control, "CONTROL", DEFAULTS.control),
    pauseLimitMs: given.pauseLimitMs ?? DEFAULTS.pauseLimitMs,
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
    `nothing is recorded: the endpoint is no address of a gateway; write ${DEFAULT_ENDPOINT}`,
  );
  return null;
}

/** Maximum size of a content of this kind of step; 0: only its size is sent. */
export function contentLimit(settings: Resolved, kind: Kind, traceId: string): number {
  if (!isSampled(traceId, settings.contentSampleRate)) return 0;
  const rule = settings.captureContent;
  const own = typeof rule === "boolean" ? rule : (rule[kind] ?? rule.default ?? true);
  if (typeof own === "number") return Math.min(Math.max(0, own), settings.maxContentBytes);
  return own ? settings.maxContentBytes : 0;
}

// By the trace id, so that every process of a run decides alike.
function isSampled(traceId: string, rate: number): boolean {
  return rate >= 1 || Number.parseInt(traceId.slice(-8), 16) < rate * 2 ** 32;
}
