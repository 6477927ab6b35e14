import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { type Client, RunStopped } from "../src/index.ts";
import { Gateway, until } from "./gateway.ts";

let gateway: Gateway;
let client: Client;

before(async () => {
  gateway = await Gateway.start();
});
beforeEach(() => {
  gateway.events.length = 0;
  client = gateway.client({ control: true });
});
// A command of the next test would go to a stream that is still open.
afterEach(() => until(() => gateway.openStreams === 0, "the stream is closed"));
after(() => gateway.close());

const streaming = () => until(() => gateway.openStreams > 0, "the stream is open");

test("a stop ends the run at its next step, and aborts its signal", async () => {
  let after = 0;
  const work = client.run("support", async (run) => {
    await streaming();
    gateway.send({ action: "stop", trace_id: run.traceId, reason: "enough", by: "ann" });
    await until(() => run.signal.aborted, "the signal is aborted");
    assert.ok(run.signal.reason instanceof RunStopped);
    await client.tool("more", () => {
      after += 1;
    });
  });
  await assert.rejects(work, (error) => {
    assert.ok(error instanceof RunStopped);
    assert.deepEqual([error.reason, error.by], ["enough", "ann"]);
    return true;
  });
  assert.equal(after, 0);
  await client.shutdown();
  const stop = gateway.ended("stop");
  assert.deepEqual([stop.kind, stop.status], ["control", "ok"]);
  assert.equal(stop.attributes?.["reason"], "enough");
  assert.equal(gateway.ended("support").error_type, "RunStopped");
});

test("a paused run waits until it is approved", async () => {
  const seen: string[] = [];
  await client.run("support", { onCommand: (one) => seen.push(one.action) }, async (run) => {
    await streaming();
    gateway.send({ action: "pause", trace_id: run.traceId, reason: "too expensive" });
    await until(() => seen.length === 1, "the pause has arrived");
    const step = client.tool("pay", () => seen.push("paid"));
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.deepEqual(seen, ["pause"]);
    gateway.send({ action: "resume", trace_id: run.traceId, budget_usd: "5" });
    await step;
  });
  assert.deepEqual(seen, ["pause", "resume", "paid"]);
  await client.flush();
  assert.equal(gateway.ended("pause").status, "ok");
  assert.equal(gateway.ended("approve $5").attributes?.["budget_usd"], "5");
  await client.shutdown();
});

test("a run that stays paused is stopped", async () => {
  const hasty = gateway.client({ control: true, pauseLimitMs: 20 });
  const work = hasty.run("support", async (run) => {
    await streaming();
    gateway.send({ action: "pause", trace_id: run.traceId });
    for (;;) {
      await run.checkpoint();
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  });
  await assert.rejects(work, /not resumed/);
  await hasty.shutdown();
  assert.equal(gateway.ended("pause").status, "cancelled");
});

test("a command to an agent reaches its runs, also later ones, until it expires", async () => {
  const expires = (Date.now() + 60_000) * 1_000;
  await client.run("first", async () => {
    await streaming();
    gateway.send({ action: "stop", agent: "second", expires });
    gateway.send({ action: "stop", agent: "other", expires });
    gateway.send({ action: "warn", agent: "first", command_id: "w" });
    await until(() => gateway.events.some((event) => event.name === "warn"), "the warning");
    await client.tool("goes on", () => 1);
    const inner = client.run("second", () => client.tool("never", () => 1));
    await assert.rejects(inner, RunStopped);
    await client.tool("still", () => 1);
  });
  await client.shutdown();
  assert.equal(gateway.ended("still").status, "ok");
  assert.equal(gateway.ended("stop").attributes?.["scope"], "shop/second");
});

test("a failing onCommand and unreadable commands cost nothing", async () => {
  const onCommand = () => {
    throw new Error("in the hook");
  };
  await client.run("support", { onCommand }, async (run) => {
    await streaming();
    gateway.send({ action: "explode" as never, trace_id: run.traceId });
    gateway.send({ action: "warn", trace_id: run.traceId });
    await until(() => gateway.warnings.some((one) => one.includes("onCommand")), "the warning");
  });
  await client.shutdown();
  assert.match(gateway.warnings.join(), /a command is ignored/);
});

test("twenty agents inside a run are all stopped with it, without a warning of Node", async () => {
  const warned: Error[] = [];
  const note = (warning: Error) => void warned.push(warning);
  process.on("warning", note);
  const signals: AbortSignal[] = [];
  const work = client.run("outer", async (run) => {
    await streaming();
    await Promise.all(
      Array.from({ length: 20 }, (_, i) =>
        client.run(`inner ${i}`, async (inner) => {
          signals.push(inner.signal);
          if (i === 0) gateway.send({ action: "stop", trace_id: run.traceId });
          await until(() => inner.signal.aborted, "the signal is aborted");
          await inner.checkpoint();
        }),
      ),
    );
  });
  await assert.rejects(work, RunStopped);
  assert.equal(signals.filter((signal) => signal.aborted).length, 20);
  await client.shutdown();
  process.off("warning", note);
  assert.deepEqual(warned, []);
});
