/**
 * The queue between the program and the gateway. `enqueue` never throws and never waits; what does
 * not fit is dropped and counted. One request at a time, so that a run keeps its order.
 */
import { type Log, reasonOf } from "./log.ts";
import { encode, memoryOf, type StepRecord } from "./record.ts";
import type { Resolved } from "./settings.ts";
import { IN_BACKGROUND, watchSockets } from "./sockets.ts";
import { HTTP, MISCONFIGURED, REFUSED } from "./tables.ts";
import { alarm, later } from "./timers.ts";

// Start events leave the last tenth of the queue to end events: an end event alone is the complete
// record of its step.
const START_SHARE = 0.9;
// How long the natural end of a process waits for what is not acknowledged.
const EXIT_WAIT_MS = 2_000;

/** Events so far: `enqueued` = `delivered` + `failed` + `pending`; `dropped` were not enqueued. */
export interface Counts {
  readonly enqueued: number;
  readonly delivered: number;
  readonly failed: number;
  readonly dropped: number;
  readonly pending: number;
}

interface Item {
  readonly line: string;
  readonly memory: number;
}

interface Queued {
  readonly record: StepRecord;
  readonly maxContentBytes: number;
  readonly memory: number;
}

/** An answer; `status` 0 if there was none, with the reason in `text`. */
interface Answer {
  readonly status: number;
  readonly text: string;
  readonly retryAfterMs: number;
  readonly accepted: number | null;
  readonly rejected: number;
}

export class Sender {
  readonly #settings: Resolved;
  readonly #log: Log;
  readonly #waiting = new Set<() => void>();
  #queue: Queued[] = [];
  #memory = 0;
  #enqueued = 0;
  #delivered = 0;
  #failed = 0;
  #dropped = 0;
  #isWorking = false;
  #isClosed = false;
  #enqueuedAtExit = 0;
  #wake: (() => void) | null = null;
  readonly #atExit = new WeakRef(this);

  constructor(settings: Resolved, log: Log) {
    this.#settings = settings;
    this.#log = log;
    flushAtExit(this.#atExit);
  }

  get counts(): Counts {
    const [enqueued, delivered, failed] = [this.#enqueued, this.#delivered, this.#failed];
    const pending = enqueued - delivered - failed;
    return { enqueued, delivered, failed, dropped: this.#dropped, pending };
  }

  /** Take an event. `maxContentBytes` bounds each of its contents. */
  enqueue(record: StepRecord, maxContentBytes: number): void {
    const memory = memoryOf(record);
    const share = record.phase === "start" ? START_SHARE : 1;
    const { queueEvents, queueBytes } = this.#settings;
    const isFull =
      this.counts.pending >= queueEvents * share || this.#memory + memory > queueBytes * share;
    if (isFull || this.#isClosed) {
      this.#dropped += 1;
      if (isFull) this.#log.warn("full", "events are dropped: the queue is full");
      return;
    }
    this.#queue.push({ record, maxContentBytes, memory });
    this.#memory += memory;
    this.#enqueued += 1;
    if (!this.#isWorking) void this.#work();
  }

  /** Wait until the gateway has everything; false after the timeout. Never throws. */
  flush(timeoutMs: number): Promise<boolean> {
    this.#hurry();
    if (this.counts.pending === 0) return Promise.resolve(true);
    return new Promise((resolve) => {
      const end = () => {
        timer.cancel();
        this.#waiting.delete(end);
        resolve(this.counts.pending === 0);
      };
      // It keeps the process alive: the program waits for it.
      const timer = alarm(timeoutMs, end);
      this.#waiting.add(end);
    });
  }

  /** As `flush`; then nothing is sent any more. */
  async close(timeoutMs: number): Promise<boolean> {
    const isSent = await this.flush(timeoutMs);
    this.#isClosed = true;
    senders.delete(this.#atExit);
    this.#hurry();
    if (!isSent) {
      this.#log.warn("close", `${this.counts.pending} events were not sent: the SDK was closed`);
    }
    return isSent;
  }

  /** The process has nothing else to do: send what is pending, once. */
  processEnds(): void {
    if (this.counts.pending === 0 || this.#enqueued === this.#enqueuedAtExit) return;
    this.#enqueuedAtExit = this.#enqueued;
    void this.flush(EXIT_WAIT_MS).then((isSent) => {
      const { pending } = this.counts;
      if (!isSent) this.#log.warn("exit", `${pending} events were not sent: the process ends`);
    });
  }

  // Never rejects: a failure within is logged and costs the events that it concerns.
  async #work(): Promise<void> {
    this.#isWorking = true;
    try {
      while (this.#queue.length > 0 && !this.#isClosed) {
        // A full batch need not wait for more.
        if (this.#queue.length < HTTP.batchEvents) await this.#pause(this.#settings.batchDelayMs);
        const batch = this.#nextBatch();
        if (batch.length > 0) await this.#deliver(batch);
        if (this.counts.pending === 0) for (const end of [...this.#waiting]) end();
      }
    } catch (error) {
      this.#log.warn("sender", `internal error: ${reasonOf(error)}`);
    } finally {
      this.#isWorking = false;
    }
  }

  #nextBatch(): Item[] {
    const batch: Item[] = [];
    let [taken, bytes] = [0, 0];
    for (const { record, maxContentBytes, memory } of this.#queue) {
      if (taken >= HTTP.batchEvents || bytes > HTTP.batchBytes) break;
      taken += 1;
      try {
        const line = encode(record, maxContentBytes, this.#settings);
        bytes += line.length;
        batch.push({ line, memory });
      } catch (error) {
        this.#log.warn("encode", `an event could not be encoded: ${reasonOf(error)}`);
        this.#failed += 1;
        this.#memory -= memory;
      }
    }
    this.#queue = this.#queue.slice(taken);
    return batch;
  }

  /** Send a batch until it is answered, or until the sender is closed. */
  async #deliver(batch: Item[]): Promise<void> {
    const answer = await this.#answered(batch);
    if (answer === null) return;
    if (answer.status === 200 && answer.rejected === 0) {
      this.#settle(batch, true);
    } else if (batch.length === 1 || (answer.rejected > 0 && answer.accepted === 0)) {
      this.#settle(batch, false);
      this.#log.warn("refused", `the gateway refused an event: ${answer.text}`);
    } else {
      // Which of them were refused follows from sending the halves: what was accepted before is a
      // duplicate then, and a request as a whole may have been too large.
      const middle = batch.length >> 1;
      await this.#deliver(batch.slice(0, middle));
      await this.#deliver(batch.slice(middle));
    }
  }

  #settle(batch: Item[], isDelivered: boolean): void {
    if (isDelivered) this.#delivered += batch.length;
    else this.#failed += batch.length;
    for (const item of batch) this.#memory -= item.memory;
  }

  /** Send until there is an answer that a repetition would not change; null at the end. */
  async #answered(batch: Item[]): Promise<Answer | null> {
    const body = batch.map((item) => item.line).join("\n");
    let pauseMs: number = HTTP.firstRetryMs;
    while (!this.#isClosed) {
      const answer = await this.#post(body);
      if (answer.status === 200 && answer.accepted !== null) return answer;
      if (REFUSED.includes(answer.status)) return answer;
      this.#report(answer);
      await this.#pause(answer.retryAfterMs || pauseMs);
      pauseMs = Math.min(HTTP.longestRetryMs, 2 * pauseMs);
    }
    return null;
  }

  #report(answer: Answer): void {
    const { endpoint } = this.#settings;
    if (MISCONFIGURED.includes(answer.status)) {
      this.#log.warn("key", `${endpoint} refuses events: ${answer.text}; they are kept`);
    } else if (answer.status === 200) {
      // A page of a proxy or of another server: nothing shows that Kafka has the events.
      this.#log.warn("page", `${endpoint} does not answer as a gateway; events are kept`);
    } else {
      this.#log.warn("away", `${endpoint}: ${answer.text}; events are kept and sent later`);
    }
  }

  async #post(body: string): Promise<Answer> {
    const { endpoint, endpointKey, fetch } = this.#settings;
    watchSockets();
    const headers: Record<string, string> = {
      "Content-Type": "application/x-ndjson",
      "User-Agent": IN_BACKGROUND,
    };
    if (endpointKey) headers["x-api-key"] = endpointKey;
    const limit = new AbortController();
    const timer = later(HTTP.answerMs, () => limit.abort(new Error("no answer in time")));
    try {
      const sent = await compressed(endpoint, body, headers);
      const response = await fetch(endpoint + HTTP.stepsPath, {
        method: "POST",
        headers,
        body: sent,
        // A redirected POST would become a GET, and a key would go to another host.
        redirect: "error",
        signal: limit.signal,
      });
      const text = await response.text();
      const retryAfterMs = readRetryAfter(response.headers.get("retry-after"), Date.now());
      return answerOf(response.status, text, retryAfterMs);
    } catch (error) {
      const text = reasonOf(error);
      return { status: 0, text, retryAfterMs: 0, accepted: null, rejected: 0 };
    } finally {
      timer.cancel();
    }
  }

  /** Wait, or until a flush or the end. */
  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const end = () => {
        timer.cancel();
        this.#wake = null;
        resolve();
      };
      const timer = later(ms, end);
      this.#wake = end;
    });
  }

  #hurry(): void {
    this.#wake?.();
  }
}

function answerOf(status: number, body: string, retryAfterMs: number): Answer {
  const short = body.slice(0, 300).replace(/\s+/g, " ").trim();
  const text = `HTTP ${status} ${short}`.trim();
  let [accepted, rejected]: [number | null, number] = [null, 0];
  try {
    const found: unknown = JSON.parse(body);
    if (typeof found === "object" && found !== null) {
      const counts = found as { accepted?: unknown; rejected?: unknown };
      if (typeof counts.accepted === "number") accepted = counts.accepted;
      if (typeof counts.rejected === "number") rejected = counts.rejected;
    }
  } catch {
    // A page, and no answer of a gateway.
  }
  return { status, text, retryAfterMs, accepted, rejected };
}

/** The header Retry-After, in seconds or as a date, in milliseconds; 0 if there is none. */
export function readRetryAfter(header: string | null, nowMs: number): number {
  if (header === null) return 0;
  const text = header.trim();
  const ms = /^\d+$/.test(text) ? Number(text) * 1_000 : Date.parse(text) - nowMs;
  return Number.isNaN(ms) ? 0 : Math.min(HTTP.longestRetryAfterMs, Math.max(0, ms));
}

const LOOPBACK = /^https?:\/\/(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:|\/|$)/;

/** The body, compressed for other machines; the header is added where it is. */
async function compressed(
  endpoint: string,
  body: string,
  headers: Record<string, string>,
): Promise<string | ArrayBuffer> {
  if (LOOPBACK.test(endpoint) || typeof CompressionStream === "undefined") return body;
  const stream = new Blob([body]).stream().pipeThrough(new CompressionStream("gzip"));
  const packed = await new Response(stream).arrayBuffer();
  headers["Content-Encoding"] = "gzip";
  return packed;
}

interface Ending {
  on?: (event: "beforeExit", action: () => void) => unknown;
}

const senders = new Set<WeakRef<Sender>>();
let isRegistered = false;

// Node empties its event loop before it emits this, so what is sent here keeps the process alive
// until it has arrived, for a bounded time. `process.exit` skips it: call `shutdown` before.
function flushAtExit(sender: WeakRef<Sender>): void {
  senders.add(sender);
  if (isRegistered) return;
  isRegistered = true;
  const onExit = () => {
    for (const known of senders) {
      const found = known.deref();
      if (found === undefined) senders.delete(known);
      else found.processEnds();
    }
  };
  (globalThis as { process?: Ending }).process?.on?.("beforeExit", onExit);
}
