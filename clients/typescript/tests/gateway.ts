/** A stand-in for a gateway, for tests of single answers; tests/integration has the real one. */
import assert from "node:assert/strict";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { gunzipSync } from "node:zlib";
import { Client, type Command, type Settings } from "../src/index.ts";
import type { StepRecord } from "../src/record.ts";

export interface Refusal {
  status: number;
  headers?: Record<string, string>;
  body?: string;
}

export class Gateway {
  readonly events: StepRecord[] = [];
  readonly requests: IncomingMessage[] = [];
  readonly warnings: string[] = [];
  /** Answers that are given first, in order. */
  readonly refusals: Refusal[] = [];
  /** Requests are not answered while this is true. */
  isFrozen = false;
  readonly #server = createServer((request, response) => void this.#answer(request, response));
  readonly #streams = new Set<ServerResponse>();

  static async start(): Promise<Gateway> {
    const gateway = new Gateway();
    await new Promise<void>((resolve) => gateway.#server.listen(0, "127.0.0.1", resolve));
    return gateway;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  get openStreams(): number {
    return this.#streams.size;
  }

  client(settings: Settings = {}): Client {
    const logger = { warn: (message: string) => void this.warnings.push(message) };
    return new Client({
      endpoint: this.url,
      project: "shop",
      batchDelayMs: 1,
      control: false,
      logger,
      ...settings,
    });
  }

  /** The end event of the step with this name. */
  ended(name: string): StepRecord {
    const found = this.events.find((event) => event.phase === "end" && event.name === name);
    assert.ok(found, `no ended step ${name}`);
    return found;
  }

  send(command: Partial<Command>): void {
    const whole = { command_id: crypto.randomUUID(), project: "shop", time: Date.now() * 1_000 };
    const data = JSON.stringify({ ...whole, ...command });
    for (const stream of this.#streams) stream.write(`id: 1\nevent: command\ndata: ${data}\n\n`);
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.requests.push(request);
    if (request.url?.startsWith("/v1/control")) {
      response.writeHead(200, { "Content-Type": "text/event-stream" });
      response.write(": commands\n\n");
      this.#streams.add(response);
      response.on("close", () => this.#streams.delete(response));
      return;
    }
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part as Buffer);
    const sent = Buffer.concat(parts);
    const body = request.headers["content-encoding"] === "gzip" ? gunzipSync(sent) : sent;
    if (this.isFrozen) return;
    const refusal = this.refusals.shift();
    if (refusal !== undefined) {
      response.writeHead(refusal.status, refusal.headers).end(refusal.body ?? "");
      return;
    }
    const events = body
      .toString()
      .split("\n")
      .map((line) => JSON.parse(line) as StepRecord);
    const good = events.filter((event) => event.name !== "bad");
    this.events.push(...good);
    const answer = { accepted: good.length, rejected: events.length - good.length, error: "bad" };
    response.writeHead(good.length > 0 ? 200 : 400).end(JSON.stringify(answer));
  }
}

export async function until(condition: () => boolean, what: string): Promise<void> {
  for (const end = Date.now() + 60_000; !condition(); ) {
    assert.ok(Date.now() < end, `not in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
