import assert from "node:assert/strict";
import { test } from "node:test";
import { encode, type StepRecord } from "../src/record.ts";
import { cutToBytes, sizeOf } from "../src/shortening.ts";
import { LIMITS } from "../src/tables.ts";
import { toText } from "../src/values.ts";

const text = (value: unknown, most = 16_384) => toText(value, most).text;

test("values as text", () => {
  class Order {
    id = 7;
    items = [1, 2];
    get total(): number {
      throw new Error("a getter is not called");
    }
    toJSON(): never {
      throw new Error("neither is toJSON");
    }
  }
  assert.equal(text("plain"), "plain");
  assert.equal(text(undefined), "");
  assert.equal(
    text({ a: [1, "x", null, undefined, true], b: undefined }),
    '{"a":[1,"x",null,null,true]}',
  );
  assert.equal(text(new Order()), '{"id":7,"items":[1,2]}');
  assert.equal(text(new Date(0)), "1970-01-01T00:00:00.000Z");
  assert.equal(text({ e: new TypeError("no") }), '{"e":"TypeError: no"}');
  assert.equal(
    text([10n, Number.NaN, Symbol("s"), () => 1]),
    '["10","NaN","<symbol>","<function>"]',
  );
  assert.equal(text(new Map([["a", new Set([1])]])), '{"a":[1]}');
  assert.equal(text(new Uint8Array(5)), "[bytes, 5 bytes]");
  assert.equal(
    text({ v: new Float64Array(1_536) }),
    '{"v":"<Float64Array 1,536: 0, 0, 0, 0, ...>"}',
  );
  assert.equal(
    text({
      get a() {
        throw new Error("a getter");
      },
    }),
    '{"a":"<getter>"}',
  );
});

test("odd values neither throw nor take long", () => {
  const circular: unknown[] = [];
  circular.push(circular, { circular });
  assert.equal(text(circular), '["<circular>",{"circular":"<circular>"}]');
  let deep: unknown = 1;
  for (let i = 0; i < 10_000; i += 1) deep = [deep];
  assert.match(text(deep), /<deeper>/);
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  assert.equal(text({ proxy }), '{"proxy":"<unreadable>"}');
  const wide = text(
    Array.from({ length: 1_000_000 }, (_, i) => `item ${i}`),
    10_000,
  );
  assert.ok(sizeOf(wide) <= 10_000);
  assert.match(wide, /items cut/);
  assert.ok(wide.includes("item 0") && wide.includes("item 999999"));
  const keys = Object.fromEntries(Array.from({ length: 10_000 }, (_, i) => [`k${i}`, i]));
  assert.match(text(keys, 2_000), /keys cut/);
});

test("nothing of a value's own class is called", () => {
  const endless = function* () {
    for (;;) yield 1;
  };
  const called = () => assert.fail("it was called");
  class Items extends Array<unknown> {
    override slice = called;
    override map = called;
    override [Symbol.iterator] = endless as never;
  }
  assert.equal(text(Items.from({ length: 3, 0: 1, 1: 2, 2: 3 })), "[1,2,3]");
  assert.equal(text(new Items(1_000).fill(7)).slice(0, 6), "[7,7,7");
  class Names extends Set<number> {
    override get size(): number {
      return called();
    }
    override [Symbol.iterator] = endless as never;
  }
  class Prices extends Map<string, number> {
    override get size(): number {
      return called();
    }
    override [Symbol.iterator] = endless as never;
  }
  assert.equal(text(new Names([1, 2])), "[1,2]");
  assert.equal(text(new Prices([["a", 1]])), '{"a":1}');
  const item = Object.defineProperty([1], 0, { get: called });
  assert.equal(text(item), '["<getter>"]');
  const sparse: number[] = [];
  sparse[2] = 3;
  assert.equal(text(sparse), "[null,null,3]");
});

test("long texts keep both ends, and files become their type and size", () => {
  const long = text(`begin ${"word ".repeat(100_000)} end`, 1_000);
  assert.ok(long.length <= 1_000);
  assert.match(long, /^begin .*\.\.\.\[[\d,]+ characters cut\]\.\.\..* end$/s);
  const base64 = Buffer.from(Array.from({ length: 3_000 }, (_, i) => (i * 7919) % 251));
  const image = `iVBORw${base64.toString("base64")}`;
  assert.match(text({ image: `data:image/png;base64,${image}` }), /"\[image\/png, 3,00\d bytes\]"/);
  assert.match(text(`see ${image} there`), /^see \[image\/png, 3,00\d bytes\] there$/);
  const conversation = Array.from({ length: 200 }, (_, i) => ({
    role: "user",
    content: `m${i} ${"x ".repeat(500)}`,
  }));
  const kept = text(conversation, 8_192);
  assert.ok(kept.includes("m0 ") && kept.includes("m199 "));
  JSON.parse(kept);
});

test("texts are cut to bytes, not to characters", () => {
  for (const sample of [
    "é".repeat(5_000),
    "数".repeat(5_000),
    "🙂".repeat(5_000),
    "a".repeat(5_000),
  ]) {
    const [cut, bytes] = cutToBytes(sample, 1_000);
    assert.ok(sizeOf(cut) <= 1_000);
    assert.equal(bytes, Buffer.byteLength(sample));
    assert.ok(!cut.includes("\ufffd"));
  }
});

test("no record is larger than the contract allows", () => {
  const record: StepRecord = {
    trace_id: "a".repeat(32),
    step_id: "b".repeat(16),
    parent_step_id: "",
    phase: "end",
    kind: "other",
    name: "n".repeat(10_000),
    project: "p",
    start_time: 1,
    end_time: 2,
    input: "\u0001".repeat(400_000),
    output: "\ud800".repeat(400_000),
    error_message: "m".repeat(100_000),
    attributes: Object.fromEntries(
      Array.from({ length: 200 }, (_, i) => [`k${i}`, "\u0001".repeat(9_000)]),
    ),
    documents: Array.from({ length: 500 }, () => ({
      id: "d",
      score: 1,
      content: "c".repeat(9_000),
    })),
  };
  const line = encode(record, 1_000_000);
  assert.ok(Buffer.byteLength(line) <= LIMITS.recordBytes);
  const sent = JSON.parse(line) as StepRecord;
  assert.ok(sent.name.length <= LIMITS.textChars);
  assert.equal(Object.keys(sent.attributes ?? {}).length, LIMITS.attributes);
  assert.equal(sent.documents?.length, LIMITS.documents);
  assert.equal(sent.input_bytes, 400_000);
});
