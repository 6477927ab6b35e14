/**
 * The gateway's stream of commands, `GET /v1/control` (server-sent events).
 *
 * It is open while a run is open. A connection that ends is opened again with the id of the last
 * command, so that none is missed.
 */
import { type Commands, readCommand } from "./control.ts";
import { type Log, reasonOf } from "./log.ts";
import type { Resolved } from "./settings.ts";
import { IN_BACKGROUND, lettingGo, watchSockets } from "./sockets.ts";
import { HTTP } from "./tables.ts";
import { later } from "./timers.ts";

// Most runs that are shorter than this need no connection.
const OPEN_AFTER_MS = 100;
const CLOSE_AFTER_MS = 2_000;
// Three of the gateway's comments, which come every 15 seconds.
const SILENCE_MS = 45_000;
const MOST_LINE_CHARS = 1 << 20;

export class CommandStream {
  readonly #settings: Resolved;
  readonly #commands: Commands;
  readonly #log: Log;
  #lastId = "";
  #connection: AbortController | null = null;
  #pending: { cancel: () => void } | null = null;

  constructor(settings: Resolved, commands: Commands, log: Log) {
    this.#settings = settings;
    this.#commands = commands;
    this.#log = log;
  }

  /** A run has begun or ended. */
  update(): void {
    if (!this.#settings.control) return;
    this.#pending?.cancel();
    this.#pending = null;
    if (this.#commands.hasOpenRuns) {
      if (this.#connection === null) this.#pending = later(OPEN_AFTER_MS, () => this.#open());
    } else if (this.#connection !== null) {
      // Where the connection keeps the process alive, it is closed at once.
      if (lettingGo()) this.#pending = later(CLOSE_AFTER_MS, () => this.close());
      else this.close();
    }
  }

  close(): void {
    this.#pending?.cancel();
    this.#connection?.abort();
    this.#pending = this.#connection = null;
  }

  #open(): void {
    if (this.#connection !== null || !this.#commands.hasOpenRuns) return;
    const connection = new AbortController();
    this.#connection = connection;
    void this.#follow(connection.signal);
  }

  async #follow(closed: AbortSignal): Promise<void> {
    let pauseMs: number = HTTP.firstReconnectMs;
    while (!closed.aborted) {
      try {
        pauseMs = (await this.#read(closed)) ? HTTP.firstReconnectMs : pauseMs;
      } catch (error) {
        if (closed.aborted) return;
        this.#log.warn("control", `commands are not received: ${reasonOf(error)}`);
      }
      if (closed.aborted) return;
      await pause(pauseMs, closed);
      pauseMs = Math.min(HTTP.longestReconnectMs, 2 * pauseMs);
    }
  }

  /** Read one connection to its end. Returns whether anything arrived. */
  async #read(closed: AbortSignal): Promise<boolean> {
    const { endpoint, endpointKey, project, fetch } = this.#settings;
    watchSockets();
    const silence = new AbortController();
    let timer = later(SILENCE_MS, () => silence.abort(new Error("the gateway is silent")));
    const stop = () => silence.abort(closed.reason);
    closed.addEventListener("abort", stop, { once: true });
    try {
      const response = await fetch(`${endpoint}/v1/control?${new URLSearchParams({ project })}`, {
        headers: {
          Accept: "text/event-stream",
          "User-Agent": IN_BACKGROUND,
          ...(endpointKey && { "x-api-key": endpointKey }),
          ...(this.#lastId && { "Last-Event-ID": this.#lastId }),
        },
        redirect: "error",
        signal: silence.signal,
      });
      if (response.status !== 200 || response.body === null) {
        await response.body?.cancel();
        throw new Error(`HTTP ${response.status}`);
      }
      const reader = response.body.getReader();
      const decoder = new TextDecoder();
      let left = "";
      for (let isFirst = true; ; isFirst = false) {
        const { done, value } = await reader.read();
        if (done) return !isFirst;
        timer.cancel();
        timer = later(SILENCE_MS, () => silence.abort(new Error("the gateway is silent")));
        const lines = (left + decoder.decode(value, { stream: true })).split("\n");
        left = lines.pop() ?? "";
        if (left.length > MOST_LINE_CHARS) throw new Error("a line of the stream is too long");
        for (const line of lines) this.#take(line.replace(/\r$/, ""));
      }
    } finally {
      timer.cancel();
      closed.removeEventListener("abort", stop);
    }
  }

  #take(line: string): void {
    const colon = line.indexOf(":");
    const [name, value] = [line.slice(0, colon), line.slice(colon + 1).replace(/^ /, "")];
    if (name === "id") this.#lastId = value;
    if (name !== "data") return;
    const command = readCommand(value);
    if (command === null) this.#log.warn("command", "a command is ignored: it cannot be read");
    else this.#commands.deliver(command);
  }
}

function pause(ms: number, closed: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      timer.cancel();
      closed.removeEventListener("abort", end);
      resolve();
    };
    const timer = later(ms, end);
    closed.addEventListener("abort", end, { once: true });
  });
}
