/** A step event, version 1, as `POST /v1/steps` takes it; and its encoding for the wire. */
import { hashedUser, withoutUser } from "./privacy.ts";
import { isSecretName, withoutSecrets } from "./redaction.ts";
import { cutMiddle, cutToBytes, sizeOf, wellFormed } from "./shortening.ts";
import { type Kind, LIMITS, REDACTED, SHORT_TEXTS, type Status } from "./tables.ts";

export interface DocumentRecord {
  id: string;
  score: number | null;
  content: string;
}

/** The fields are those of the wire format (schemas/README.md). */
export interface StepRecord {
  trace_id: string;
  step_id: string;
  parent_step_id: string;
  parent_remote?: boolean;
  phase: "start" | "end";
  kind: Kind;
  name: string;
  tool?: string;
  model?: string;
  provider?: string;
  project: string;
  environment?: string;
  agent?: string;
  agent_version?: string;
  task?: string;
  session_id?: string;
  user_id?: string;
  start_time: number;
  end_time?: number;
  first_token_time?: number;
  status?: Status;
  error_type?: string;
  error_message?: string;
  attempt?: number;
  retry_of?: string;
  fallback_of?: string;
  usage?: Record<string, number | boolean>;
  cost_usd?: string;
  input?: string;
  output?: string;
  input_bytes?: number;
  output_bytes?: number;
  documents?: DocumentRecord[];
  attributes?: Record<string, string>;
}

/** What a record takes in memory without its contents, roughly. */
const RECORD_BYTES = 700;
const WITHHELD = "[withheld: the redact hook failed]";

/** The size of a record in memory, roughly: strings take at most two bytes a character. */
export function memoryOf(record: StepRecord): number {
  let characters = (record.input?.length ?? 0) + (record.output?.length ?? 0);
  characters += record.error_message?.length ?? 0;
  for (const document of record.documents ?? []) characters += document.content.length + 100;
  for (const [key, value] of Object.entries(record.attributes ?? {})) {
    characters += key.length + value.length;
  }
  return RECORD_BYTES + 2 * characters;
}

/** The redacted text. Never throws: a text on which the program's hook fails is withheld. */
function redacted(text: string, hook: ((text: string) => string) | undefined): string {
  const clean = withoutSecrets(wellFormed(text));
  if (hook === undefined) return clean;
  try {
    // After the built-in redaction, so that a faulty hook cannot undo it.
    const changed: unknown = hook(clean);
    return typeof changed === "string" ? changed : WITHHELD;
  } catch {
    return WITHHELD;
  }
}

/** What is left out of records, besides secrets of known forms. */
export interface Privacy {
  /** Applied to each text after the built-in redaction. */
  readonly redact?: ((text: string) => string) | undefined;
  /** Key of the hashes of user ids. */
  readonly userIdKey?: string;
}

/** The record as one line of JSON: redacted, within the limits of the contract. */
export function encode(record: StepRecord, maxContentBytes: number, privacy: Privacy = {}): string {
  const hook = privacy.redact;
  const most = Math.min(maxContentBytes, LIMITS.contentBytes);
  const sent: StepRecord = { ...record };
  if (privacy.userIdKey && sent.user_id) hashUser(sent, sent.user_id, privacy.userIdKey);
  for (const name of SHORT_TEXTS) {
    const field = name as keyof StepRecord;
    const text = sent[field];
    if (typeof text !== "string" || text === "") continue;
    // Keys and policies belong to these two, so the hook does not get them.
    const isHooked = field !== "project" && field !== "environment";
    // Redacted first, so that no half of a secret is left.
    const clean = redacted(text, isHooked ? hook : undefined);
    if (clean !== text || text.length > LIMITS.textChars) {
      Object.assign(sent, { [field]: cutMiddle(clean, LIMITS.textChars) });
    }
  }
  for (const field of ["input", "output"] as const) {
    const text = sent[field];
    if (!text) continue;
    const [clean, bytes] = cutToBytes(redacted(text, hook), most);
    sent[field] = clean;
    if (bytes > most) sent[`${field}_bytes`] ??= bytes;
  }
  if (sent.error_message) {
    sent.error_message = cutMiddle(redacted(sent.error_message, hook), LIMITS.messageChars);
  }
  if (sent.attributes) sent.attributes = attributesOf(sent.attributes, hook);
  if (sent.documents) sent.documents = documentsOf(sent.documents, most, hook);
  return bounded(sent, most);
}

function hashUser(sent: StepRecord, id: string, key: string): void {
  const hash = hashedUser(id, key);
  sent.user_id = hash;
  const pairs = Object.entries(sent.attributes ?? {});
  sent.attributes = Object.fromEntries(
    pairs.map(([name, value]) => [name, withoutUser(value, id, hash)]),
  );
}

function attributesOf(
  attributes: Record<string, string>,
  hook: ((text: string) => string) | undefined,
): Record<string, string> {
  const pairs = Object.entries(attributes).slice(0, LIMITS.attributes);
  return Object.fromEntries(
    pairs.map(([key, value]) => [
      cutMiddle(redacted(key, hook), LIMITS.attributeChars),
      cutMiddle(
        value && isSecretName(key) ? REDACTED : redacted(value, hook),
        LIMITS.attributeChars,
      ),
    ]),
  );
}

function documentsOf(
  documents: DocumentRecord[],
  maxBytes: number,
  hook: ((text: string) => string) | undefined,
): DocumentRecord[] {
  let left = maxBytes;
  return documents.slice(0, LIMITS.documents).map((document) => {
    const id = cutMiddle(redacted(document.id, hook), LIMITS.textChars);
    if (document.content === "" || left <= 0) return { ...document, id, content: "" };
    const [content, bytes] = cutToBytes(redacted(document.content, hook), left);
    left -= Math.min(bytes, left);
    return { ...document, id, content };
  });
}

// JSON's escapes and wide characters can make a record larger than the limit: a half, an eighth, a
// 32nd of the contents until it fits.
function bounded(record: StepRecord, maxBytes: number): string {
  let line = JSON.stringify(record);
  for (let share = 2; line.length * 3 > LIMITS.recordBytes && share < maxBytes; share *= 4) {
    if (sizeOf(line) <= LIMITS.recordBytes) break;
    const most = Math.floor(maxBytes / share);
    for (const field of ["input", "output"] as const) {
      const [text, bytes] = cutToBytes(record[field] ?? "", most);
      if (bytes <= most) continue;
      record[field] = text;
      record[`${field}_bytes`] ??= bytes;
    }
    const documents = record.documents ?? [];
    for (const document of documents) {
      document.content = cutToBytes(document.content, Math.floor(most / documents.length))[0];
    }
    const texts = Object.entries(record.attributes ?? {});
    const each = Math.floor(most / Math.max(1, texts.length));
    if (texts.length > 0) {
      record.attributes = Object.fromEntries(
        texts.map(([key, value]) => [cutMiddle(key, each), cutMiddle(value, each)]),
      );
    }
    line = JSON.stringify(record);
  }
  return line;
}
