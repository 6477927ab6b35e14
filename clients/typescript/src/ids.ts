import { Buffer } from "node:buffer";
import { createHash, randomBytes } from "node:crypto";
import { ID_NAMESPACE } from "./tables.ts";

const AT_ONCE = 64;
let random = Buffer.alloc(0);
let used = 0;

/** `digits` random hex digits. */
function randomHex(digits: number): string {
  const bytes = digits / 2;
  // Many at once: asking the operating system for each id would take most of a step's time.
  if (used + bytes > random.length) {
    random = randomBytes(16 * AT_ONCE);
    used = 0;
  }
  used += bytes;
  return random.toString("hex", used - bytes, used);
}

export const newTraceId = (): string => randomHex(32);
export const newStepId = (): string => randomHex(16);

/** The uuid5 of the parts, in order: the same as Python's `derived_id`. */
export function derivedId(...parts: string[]): string {
  const hash = createHash("sha1");
  hash.update(Buffer.from(ID_NAMESPACE, "hex")).update(parts.join("\x1f"), "utf8");
  const bytes = hash.digest().subarray(0, 16);
  bytes[6] = ((bytes[6] as number) & 0x0f) | 0x50;
  bytes[8] = ((bytes[8] as number) & 0x3f) | 0x80;
  const hex = bytes.toString("hex");
  return [8, 12, 16, 20, 32].map((end, i, ends) => hex.slice(ends[i - 1] ?? 0, end)).join("-");
}

/** The id of the control step for a command: one step, whichever process writes it. */
export function controlStepId(traceId: string, commandId: string): string {
  return derivedId("control", traceId, commandId).replaceAll("-", "").slice(-16);
}
