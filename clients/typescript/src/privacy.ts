/** Which contents are sent, and hashed user ids: the same rules as the Python SDK's. */
import { Buffer } from "node:buffer";
import { createHash, createHmac } from "node:crypto";
import type { Log } from "./log.ts";
import { KINDS, type Kind } from "./tables.ts";

/** `true`: all; `false`: sizes only; a number: cut at this many bytes. */
export type Mode = boolean | number;

/** Modes by kind of step; `*` is every kind that is not named. */
export type CaptureRules = { readonly [kind in Kind | "*"]?: Mode };

const UNITS: Readonly<Record<string, number>> = { "": 1, b: 1, kb: 1_024, mb: 1_048_576 };
const ENTRY = /^([a-z_]+|\*)=(on|off|(\d{1,9}) ?(b|kb|mb|))$/i;
const HASHED = /^hmac:[0-9a-f]{32}$/;
// Shorter ids are part of other words, so they are replaced only where they are the whole value.
const SHORTEST_PART = 6;

/** The rules of a text such as `llm_call=off,tool_call=2KB,*=on`; all off if it is wrong. */
export function parseCapture(text: string, log: Log): CaptureRules {
  const rules: Record<string, Mode> = {};
  for (const part of text.split(",").map((one) => one.trim())) {
    if (part === "") continue;
    const [, kind = "", value = "", number, unit = ""] = ENTRY.exec(part) ?? [];
    if (!isRuleName(kind)) {
      return nothing(log, `${part} is not KIND=on, KIND=off or KIND=BYTES`);
    }
    const size = Number(number) * (UNITS[unit.toLowerCase()] ?? 1);
    rules[kind] = number === undefined ? value.toLowerCase() === "on" : size;
  }
  return rules;
}

/** A copy of the program's rules; all off if one of them is wrong. Never throws. */
export function checkedCapture(given: object, log: Log): CaptureRules {
  try {
    const rules: Record<string, Mode> = {};
    for (const [kind, mode] of Object.entries(given)) {
      if (mode === undefined) continue;
      const isMode = typeof mode === "boolean" || (typeof mode === "number" && mode >= 0);
      if (!isRuleName(kind) || !isMode) {
        return nothing(log, `${kind} is no kind of step, or not true, false or a size in bytes`);
      }
      rules[kind] = mode;
    }
    return rules;
  } catch {
    return nothing(log, "the rules cannot be read");
  }
}

const isRuleName = (kind: string) => kind === "*" || (KINDS as readonly string[]).includes(kind);

/** Less is sent and not more: what was meant is not known. */
function nothing(log: Log, reason: string): CaptureRules {
  log.warn("capture", `no contents are sent: ${reason}`);
  return { "*": false };
}

/** The limit of a mode in bytes; infinite where it sets none. */
export function limitOf(mode: Mode): number {
  if (typeof mode === "number") return Math.max(0, mode);
  return mode ? Number.POSITIVE_INFINITY : 0;
}

/**
 * Whether a run is in the share of runs whose contents are sent: by the SHA-256 of the trace id, so
 * that every process of a run decides alike.
 */
export function isSampled(traceId: string, share: number): boolean {
  if (share >= 1) return true;
  const digest = createHash("sha256").update(traceId).digest();
  return Number(digest.readBigUInt64BE()) < share * 2 ** 64;
}

/** The user id as `hmac:` and 32 hex digits; one that is hashed already stays. */
export function hashedUser(id: string, key: string): string {
  if (id === "" || HASHED.test(id)) return id;
  const digest = createHmac("sha256", Buffer.from(key)).update(id).digest("hex");
  return `hmac:${digest.slice(0, 32)}`;
}

/** The attribute's value with the hash in the place of the user id. */
export function withoutUser(value: string, id: string, hash: string): string {
  if (value === id) return hash;
  return id.length >= SHORTEST_PART ? value.replaceAll(id, hash) : value;
}
