import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import type { Client, RunFields } from "../src/index.ts";
import { LIMITS } from "../src/tables.ts";
import { Gateway } from "./gateway.ts";

let gateway: Gateway;
let client: Client;

before(async () => {
  gateway = await Gateway.start();
});
beforeEach(() => {
  gateway.events.length = 0;
  client = gateway.client({ environment: "test" });
});
after(() => gateway.close());

test("a run with nested steps, each started and ended", async () => {
  const answer = await client.run("support", { task: "refund", input: "Where?" }, async (run) => {
    await client.llm("plan", { model: "gpt-4o", provider: "openai" }, (step) => {
      step.setUsage({ inputTokens: 900, outputTokens: 40, cachedInputTokens: 100 });
      return "read the order";
    });
    return client.tool("lookup", { input: { order: 7 } }, async () => {
      await client.retrieval("search", (step) => {
        step.setDocuments([{ id: "p-1", score: 0.5, content: "30 days" }, { content: { a: 1 } }]);
      });
      assert.equal(client.currentStep()?.traceId, run.traceId);
      return { state: "shipped" };
    });
  });
  assert.deepEqual(answer, { state: "shipped" });
  assert.ok(await client.flush());
  const [run, plan, lookup, search] = ["support", "plan", "lookup", "search"].map((name) =>
    gateway.ended(name),
  );
  assert.ok(run && plan && lookup && search);
  assert.equal(gateway.events.length, 8);
  assert.deepEqual([run.kind, run.agent, run.task], ["agent", "support", "refund"]);
  assert.deepEqual([run.project, run.environment, run.parent_step_id], ["shop", "test", ""]);
  assert.deepEqual([plan.kind, plan.model, plan.output], ["llm_call", "gpt-4o", "read the order"]);
  assert.deepEqual(plan.usage, { input_tokens: 900, output_tokens: 40, cached_input_tokens: 100 });
  assert.equal(lookup.tool, "lookup");
  assert.equal(lookup.input, '{"order":7}');
  assert.equal(lookup.output, '{"state":"shipped"}');
  assert.equal(search.parent_step_id, lookup.step_id);
  assert.equal(plan.parent_step_id, run.step_id);
  assert.deepEqual(search.documents, [
    { id: "p-1", score: 0.5, content: "30 days" },
    { id: "", score: null, content: '{"a":1}' },
  ]);
  for (const event of gateway.events) {
    assert.equal(event.trace_id, run.trace_id);
    if (event.phase === "end") assert.ok((event.end_time ?? 0) >= event.start_time);
  }
  const starts = gateway.events.filter((event) => event.phase === "start");
  assert.deepEqual(
    starts.map((event) => event.name),
    ["support", "plan", "lookup", "search"],
  );
  assert.ok(starts.every((event) => event.output === undefined && event.end_time === undefined));
});

test("steps of runs at the same time keep their own parents", async () => {
  const one = (name: string) =>
    client.run(name, async () => {
      await Promise.all([1, 2, 3].map((i) => client.tool(`${name}-${i}`, () => pause(i))));
    });
  await Promise.all(["a", "b", "c"].map(one));
  await client.flush();
  for (const name of ["a", "b", "c"]) {
    const run = gateway.ended(name);
    for (const i of [1, 2, 3]) {
      const step = gateway.ended(`${name}-${i}`);
      assert.deepEqual([step.trace_id, step.parent_step_id], [run.trace_id, run.step_id]);
    }
  }
});

test("an error ends its steps as failed and reaches the program", async () => {
  class PaymentError extends Error {}
  const failing = client.run("support", () =>
    client.tool("pay", () => {
      throw new PaymentError("card sk-proj-abcdefghij0123456789abcdefghij refused");
    }),
  );
  await assert.rejects(failing, PaymentError);
  await client.run("quiet", (run) => void run.setError("no answer", "Timeout"));
  await client.flush();
  const pay = gateway.ended("pay");
  assert.deepEqual([pay.status, pay.error_type], ["error", "PaymentError"]);
  assert.equal(pay.error_message, "card [redacted] refused");
  assert.equal(gateway.ended("support").status, "error");
  assert.deepEqual(
    [gateway.ended("quiet").status, gateway.ended("quiet").error_type],
    ["error", "Timeout"],
  );
});

test("steps that the program ends itself, and wrapped functions", async () => {
  const run = client.startRun("server", { userId: "u-9" });
  const add = client.wrap("tool_call", "add", (a: number, b: number) => a + b);
  assert.equal(await client.within(run, () => add(1, 2)), 3);
  const first = client.within(run, () => client.startStep("tool_call", "try", { attempt: 1 }));
  first.end(new Error("down"));
  const again = { attempt: 2, retryOf: first };
  client.within(run, () => client.startStep("tool_call", "again", again)).end();
  client.within(run, () => client.startStep("cooking", "own kind")).end();
  run.setCost(0.25).setAttribute("tier", { a: 1 }).end();
  run.setOutput("too late");
  await client.flush();
  assert.deepEqual([gateway.ended("add").input, gateway.ended("add").output], ["[1,2]", "3"]);
  assert.equal(gateway.ended("again").retry_of, gateway.ended("try").step_id);
  assert.equal(gateway.ended("again").attempt, 2);
  const own = gateway.ended("own kind");
  assert.deepEqual([own.kind, own.attributes], ["other", { kind: "cooking" }]);
  const ended = gateway.ended("server");
  assert.deepEqual([ended.cost_usd, ended.user_id], ["0.250000000", "u-9"]);
  assert.deepEqual([ended.attributes, ended.output], [{ tier: '{"a":1}' }, undefined]);
});

test("a run inside a run is the part of another agent", async () => {
  await client.run("planner", { sessionId: "s-1", project: "other" }, () =>
    client.run("researcher", { project: "ignored" }, () => client.tool("find", () => 1)),
  );
  await client.flush();
  const [outer, inner, find] = ["planner", "researcher", "find"].map((n) => gateway.ended(n));
  assert.ok(outer && inner && find);
  assert.deepEqual([inner.trace_id, inner.parent_step_id], [outer.trace_id, outer.step_id]);
  assert.deepEqual([find.agent, find.session_id, find.project], ["researcher", "s-1", "other"]);
});

test("trace context goes out and comes in", async () => {
  let sent: Record<string, string> = {};
  await client.run("a", () => {
    sent = client.traceHeaders({ Accept: "text/plain", Tracestate: "vendor=1" });
  });
  assert.equal(sent["Accept"], "text/plain");
  assert.equal(sent["tracestate"], "stepstream=1,vendor=1");
  const service = gateway.client();
  await service.continueRun(new Headers(sent), () => service.run("b", () => 1));
  const foreign = { TraceParent: `00-${"a".repeat(32)}-${"b".repeat(16)}-01` };
  await service.continueRun(foreign, () => service.tool("c", () => 1));
  assert.equal(
    service.continueRun({ traceparent: "00-invalid" }, () => 5),
    5,
  );
  assert.equal(
    service.continueRun(null as never, () => 6),
    6,
  );
  await client.flush();
  await service.flush();
  const [a, b, c] = ["a", "b", "c"].map((name) => gateway.ended(name));
  assert.ok(a && b && c);
  assert.deepEqual([b.trace_id, b.parent_step_id], [a.trace_id, a.step_id]);
  assert.equal(b.parent_remote, undefined);
  assert.deepEqual([c.trace_id, c.parent_step_id], ["a".repeat(32), "b".repeat(16)]);
  assert.equal(c.parent_remote, true);
  assert.deepEqual(client.traceHeaders({ x: "1" }), { x: "1" });
});

test("contents: off, by kind, sampled, and of one run", async () => {
  const secret = "the customer's letter";
  const record = async (from: Client, name: string, fields: RunFields = {}) => {
    await from.run(name, fields, () =>
      from.tool(`${name} tool`, { input: secret }, (step) => {
        step.setDocuments([{ id: "d", content: secret }]);
        return secret;
      }),
    );
    await from.flush();
  };
  await record(gateway.client({ captureContent: false }), "off");
  await record(gateway.client({ capture: { tool_call: false } }), "kind");
  await record(gateway.client({ capture: "*=off,tool_call=1KB" }), "size");
  await record(gateway.client({ capture: "tool_call=lots" }), "wrong");
  await record(gateway.client({ capture: { tool_call: "off" as never } }), "wrong mode");
  await record(gateway.client({ capture: { toolcall: false } as never }), "wrong kind");
  await record(gateway.client({ captureSample: 0 }), "sampled");
  await record(client, "run", { captureContent: false });
  await record(gateway.client({ captureContent: "off" as never }), "text");
  await record(gateway.client({ captureContent: 2_048 as never }), "size for all");
  await record(client, "wrong on the run", { captureContent: "off" as never });
  await record(client, "on");
  for (const name of [
    "off",
    "kind",
    "wrong",
    "wrong mode",
    "wrong kind",
    "sampled",
    "run",
    "text",
    "size for all",
    "wrong on the run",
  ]) {
    const tool = gateway.ended(`${name} tool`);
    assert.deepEqual([tool.input, tool.output], ["", ""], name);
    assert.deepEqual([tool.input_bytes, tool.output_bytes], [secret.length, secret.length]);
    assert.deepEqual(tool.documents, [{ id: "d", score: null, content: "" }]);
  }
  assert.equal(gateway.ended("on tool").output, secret);
  assert.equal(gateway.ended("size tool").output, secret);
});

test("user ids are sent as hashes, also in attributes", async () => {
  const hashing = gateway.client({ userIdKey: "the key" });
  const userId = "jane@example.com";
  await hashing.run("hashed", { userId, attributes: { mail: `to ${userId}` } }, () => 1);
  await hashing.flush();
  const { user_id: hash, attributes } = gateway.ended("hashed");
  assert.match(hash ?? "", /^hmac:[0-9a-f]{32}$/);
  assert.deepEqual(attributes, { mail: `to ${hash}` });
});

test("nothing is recorded where it is off, or without a usable endpoint", async () => {
  const off = [gateway.client({ enabled: false }), gateway.client({ endpoint: "kafka://a:9092" })];
  for (const quiet of off) {
    const value = await quiet.run("r", (run) => quiet.tool("t", () => run.setOutput(1).traceId));
    assert.equal(value, "");
    assert.deepEqual(quiet.traceHeaders(), {});
    assert.equal(quiet.counts.enqueued, 0);
  }
  assert.match(gateway.warnings.join(), /the endpoint is no address of a gateway/);
});

test("values that the program should not have given cost themselves alone", async () => {
  const hostile = {
    get attributes() {
      throw new Error("a getter");
    },
  };
  const value = await client.run("odd", hostile as never, (run) => {
    run.setUsage({ inputTokens: -5, outputTokens: Number.NaN }).setCost("a lot");
    run.setDocuments(null as never).setAttributes(null as never);
    return 1;
  });
  assert.equal(value, 1);
  await client.run(undefined as never, { task: 7 } as never, (run) => {
    run.setUsage({ inputTokens: -5, outputTokens: 3 }).setModel({} as never);
  });
  await client.flush();
  assert.deepEqual(gateway.ended("odd").usage, { incomplete: true });
  const run = gateway.events.find((event) => event.usage?.["output_tokens"] !== undefined);
  assert.deepEqual(run?.usage, { incomplete: true, output_tokens: 3 });
  assert.equal(run?.task, "7");
});

test("fields that cannot be read are left out, and the others are recorded", async () => {
  const throwing = { get: () => assert.fail("a getter") };
  const odd = Object.defineProperties(
    { task: "refund" },
    {
      agent: { ...throwing, enumerable: true },
      onCommand: { ...throwing, enumerable: true },
    },
  );
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  await client.run("getters", odd as RunFields, () =>
    client.tool("proxied", proxy, () => client.tool("none", null as never, () => 1)),
  );
  const call = client.wrap("tool_call", "wrapped", () => 2, proxy);
  assert.equal(await call(), 2);
  await client.flush();
  assert.equal(gateway.ended("getters").task, "refund");
  for (const name of ["proxied", "none", "wrapped"]) assert.equal(gateway.ended(name).status, "ok");
});

test("unusable settings are logged, and the default is used", async () => {
  const odd = {
    batchDelayMs: Number.POSITIVE_INFINITY,
    pauseLimitMs: "soon",
    maxContentBytes: 4_000_000_000,
    endpointKey: "one\ntwo",
  };
  gateway.warnings.length = 0;
  gateway.requests.length = 0;
  const careless = gateway.client(odd as never);
  await careless.run("odd settings", { input: "x".repeat(100_000) }, () => 1);
  assert.ok(await careless.flush());
  const size = gateway.ended("odd settings").input?.length ?? 0;
  assert.ok(size > LIMITS.contentBytes - 100 && size <= LIMITS.contentBytes, `${size}`);
  assert.equal(gateway.requests.at(-1)?.headers["x-api-key"], undefined);
  assert.match(gateway.warnings.join(), /pauseLimitMs is ignored/);
  assert.match(gateway.warnings.join(), /endpoint_key is ignored/);
  assert.doesNotMatch(gateway.warnings.join(), /two/);
});

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
