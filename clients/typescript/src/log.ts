/** Where the SDK writes what the program's author should know; `console` by default. */
export interface Logger {
  warn(message: string): void;
}

const MINUTE_MS = 60_000;
const MOST_KINDS = 1_000;
// Characters that a terminal acts on: answers of servers and errors of the program may have them.
const CONTROLS = /(?![\t\n])[\p{Cc}\p{Bidi_Control}]/gu;

/** Logs at most once a minute for each kind of message, and never throws. */
export class Log {
  readonly #logger: Logger;
  readonly #lastMs = new Map<string, number>();

  constructor(logger: Logger = console) {
    this.#logger = logger;
  }

  warn(kind: string, message: string): void {
    const nowMs = Date.now();
    const lastMs = this.#lastMs.get(kind);
    if (lastMs !== undefined && nowMs - lastMs < MINUTE_MS) return;
    if (this.#lastMs.size >= MOST_KINDS) this.#lastMs.clear();
    this.#lastMs.set(kind, nowMs);
    try {
      this.#logger.warn(`stepstream: ${message.replace(CONTROLS, "\ufffd")}`);
    } catch {
      // A logger that throws must not end the agent.
    }
  }
}

/** An error as one short text; also for values that are no errors. Never throws. */
export function reasonOf(error: unknown): string {
  try {
    if (error instanceof Error) {
      const cause = error.cause instanceof Error ? `: ${error.cause.message}` : "";
      return `${error.name}: ${error.message}${cause}`;
    }
    return String(error);
  } catch {
    return "an error that cannot be read";
  }
}
