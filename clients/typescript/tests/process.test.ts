/** What the SDK does to the life of a process: nothing, except that the last events arrive. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { after, before, beforeEach, test } from "node:test";
import { Gateway, until } from "./gateway.ts";

let gateway: Gateway;

before(async () => {
  gateway = await Gateway.start();
});
beforeEach(() => {
  gateway.events.length = 0;
  gateway.isFrozen = false;
});
after(() => gateway.close());

const INDEX = new URL("../src/index.ts", import.meta.url).href;

/** Run a program that has `sdk` as a name. Returns its exit code and what it printed. */
async function program(code: string, endpoint = gateway.url): Promise<[number | null, string]> {
  const text = `import * as sdk from ${JSON.stringify(INDEX)};\n${code}`;
  const child = spawn(process.execPath, ["--input-type=module-typescript", "--eval", text], {
    env: { ...process.env, STEPSTREAM_ENDPOINT: endpoint, STEPSTREAM_PROJECT: "shop" },
    stdio: ["ignore", "pipe", "pipe"],
    timeout: 60_000,
  });
  let printed = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (data) => {
      printed += data;
    });
  }
  const code_ = await new Promise<number | null>((resolve) => child.on("close", resolve));
  return [code_, printed];
}

test("the last events arrive without a flush", async () => {
  const [code, printed] = await program(`
    await sdk.run("short", () => sdk.tool("t", () => 1));
  `);
  assert.deepEqual([code, printed], [0, ""]);
  assert.equal(gateway.ended("short").status, "ok");
  assert.equal(gateway.events.length, 4);
});

test("an open run and its stream of commands do not keep the process alive", async () => {
  const ended = program(`
    const { promise, resolve } = Promise.withResolvers();
    const waiting = setTimeout(() => {}, 50_000);
    const run = sdk.startRun("open", { onCommand: resolve });
    await promise;
    clearTimeout(waiting);
  `);
  await until(() => gateway.openStreams > 0, "the stream is open");
  gateway.send({ action: "warn", agent: "open" });
  assert.deepEqual(await ended, [0, ""]);
  const events = gateway.events.map((event) => [event.name, event.phase]);
  assert.deepEqual(events, [
    ["open", "start"],
    ["warn", "end"],
  ]);
});

test("a gateway that is not running or frozen does not keep the process alive", async () => {
  for (const endpoint of ["http://127.0.0.1:9", gateway.url]) {
    gateway.isFrozen = true;
    const [code, printed] = await program(`await sdk.run("lost", () => 1);`, endpoint);
    assert.equal(code, 0);
    assert.match(printed, /2 events were not sent: the process ends/);
  }
});

test("what a shutdown could not send does not delay the end of the process again", async () => {
  gateway.isFrozen = true;
  const [code, printed] = await program(`
    await sdk.run("lost", () => 1);
    await sdk.shutdown(1);
  `);
  assert.equal(code, 0);
  assert.match(printed, /2 events were not sent: the SDK was closed/);
  assert.doesNotMatch(printed, /the process ends/);
});

test("a flush keeps the process alive until it is done", async () => {
  const [code, printed] = await program(`
    await sdk.run("flushed", () => 1);
    console.log(await sdk.flush(), sdk.counts().delivered);
    process.exit(0);
  `);
  assert.deepEqual([code, printed], [0, "true 2\n"]);
});
