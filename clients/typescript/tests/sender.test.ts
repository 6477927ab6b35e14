import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import type { Client } from "../src/index.ts";
import { readRetryAfter } from "../src/sender.ts";
import { Gateway, until } from "./gateway.ts";

let gateway: Gateway;

before(async () => {
  gateway = await Gateway.start();
});
beforeEach(() => {
  gateway.events.length = gateway.warnings.length = 0;
  gateway.isFrozen = false;
});
after(() => gateway.close());

const one = (client: Client, name = "find") => client.step("other", name, () => undefined);

test("refused requests are repeated, after the time in Retry-After", async () => {
  const client = gateway.client();
  gateway.refusals.push({ status: 429, headers: { "Retry-After": "1" } });
  gateway.refusals.push({ status: 503 }, { status: 502 });
  const began = Date.now();
  await one(client);
  assert.ok(await client.flush(60_000));
  assert.ok(Date.now() - began >= 1_000);
  assert.equal(client.counts.delivered, 2);
  assert.equal(gateway.events.length, 2);
});

test("a refused event costs itself, and those in the same request arrive", async () => {
  const client = gateway.client({ batchDelayMs: 20 });
  for (const name of ["good", "bad", "good", "good"]) await one(client, name);
  assert.ok(await client.flush(60_000));
  assert.deepEqual([client.counts.delivered, client.counts.failed], [6, 2]);
  assert.match(gateway.warnings.join(), /refused an event/);
});

for (const page of ["<html>Sign in</html>", "{}", ""]) {
  test(`a page is no acknowledgement: ${JSON.stringify(page)}`, async () => {
    const client = gateway.client();
    gateway.refusals.push({ status: 200, body: page });
    await one(client);
    assert.ok(await client.flush(60_000));
    assert.equal(client.counts.delivered, 2);
    assert.match(gateway.warnings.join(), /does not answer as a gateway/);
  });
}

test("with a wrong key or address events are kept", async () => {
  const client = gateway.client({ endpointKey: "wrong" });
  gateway.refusals.push({ status: 401, body: "the key is wrong" }, { status: 404 });
  await one(client);
  assert.ok(await client.flush(60_000));
  assert.equal(client.counts.delivered, 2);
  assert.match(gateway.warnings.join(), /refuses events: HTTP 401 the key is wrong/);
  assert.equal(gateway.requests.at(-1)?.headers["x-api-key"], "wrong");
});

test("characters that a terminal acts on are not logged", async () => {
  const client = gateway.client();
  gateway.refusals.push({ status: 503, body: "\u001b[2J\u009b2K\u202e later" });
  await one(client);
  assert.ok(await client.flush(60_000));
  assert.match(gateway.warnings.join(), /HTTP 503 \ufffd\[2J\ufffd2K\ufffd later/);
});

test("a full queue drops events, starts before ends, and the program goes on", async () => {
  gateway.isFrozen = true;
  const client = gateway.client({ queueEvents: 100 });
  const steps = Array.from({ length: 95 }, (_, i) => client.startStep("other", `step ${i}`));
  assert.deepEqual([client.counts.pending, client.counts.dropped], [90, 5]);
  for (const step of steps) step.end();
  assert.deepEqual([client.counts.pending, client.counts.dropped], [100, 90]);
  assert.match(gateway.warnings.join(), /the queue is full/);
  assert.equal(await client.flush(10), false);
  const large = gateway.client({ queueBytes: 100_000 });
  for (let i = 0; i < 100; i += 1) large.startStep("other", "s", { input: "é".repeat(10_000) });
  assert.ok(large.counts.pending < 10);
  assert.ok(large.counts.dropped > 90);
  await Promise.all([client.shutdown(1), large.shutdown(1)]);
});

test("shutdown sends what is pending; a later step opens the client again", async () => {
  const client = gateway.client({ batchDelayMs: 10_000 });
  await one(client, "before");
  assert.ok(await client.shutdown());
  assert.equal(gateway.ended("before").status, "ok");
  await one(client, "later");
  assert.ok(await client.shutdown());
  assert.equal(gateway.ended("later").status, "ok");
});

test("many events go in few requests, in their order", async () => {
  const client = gateway.client();
  gateway.requests.length = 0;
  for (let i = 0; i < 3_000; i += 1) await one(client, `step ${i}`);
  assert.ok(await client.flush(60_000));
  const ended = gateway.events.filter((event) => event.phase === "end");
  assert.deepEqual(
    ended.map((event) => event.name),
    ended.map((_, i) => `step ${i}`),
  );
  assert.equal(ended.length, 3_000);
  assert.ok(gateway.requests.length < 100, `${gateway.requests.length} requests`);
});

test("an endpoint that is not there is tried until it is", async () => {
  const other = await Gateway.start();
  const url = other.url;
  await other.close();
  const client = gateway.client({ endpoint: url });
  await one(client);
  await until(() => gateway.warnings.length > 0, "the outage is logged");
  assert.match(gateway.warnings.join(), /events are kept and sent later/);
  assert.equal(client.counts.pending, 2);
  await client.shutdown(1);
});

test("a redact hook sees every text after the built-in redaction", async () => {
  const redact = (text: string) => {
    if (text.includes("boom")) throw new Error("a faulty hook");
    return text.replaceAll("Alice", "[name]");
  };
  const client = gateway.client({ redact });
  await client.tool("t", { input: "Alice, password=hunter22", attributes: { who: "Alice" } }, () =>
    client.tool("u", { input: "boom" }, () => 1),
  );
  await client.flush();
  assert.equal(gateway.ended("t").input, "[name], password=[redacted]");
  assert.deepEqual(gateway.ended("t").attributes, { who: "[name]" });
  assert.match(gateway.ended("u").input ?? "", /withheld/);
  assert.doesNotMatch(JSON.stringify(gateway.events), /Alice|hunter22|boom/);
});

test("Retry-After in seconds, as a date, and unusable", () => {
  const now = Date.UTC(2026, 0, 1);
  assert.equal(readRetryAfter("3", now), 3_000);
  assert.equal(readRetryAfter("Thu, 01 Jan 2026 00:00:05 GMT", now), 5_000);
  assert.equal(readRetryAfter("9999999", now), 60_000);
  for (const odd of [null, "", "soon", "-3"]) assert.equal(readRetryAfter(odd, now), 0);
});
