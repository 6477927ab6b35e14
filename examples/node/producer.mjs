// A run sent to Kafka from Node, by the contract in schemas/README.md and with nothing of Stepstream's.
//
//   npm install && KAFKA_BROKERS=127.0.0.1:9092 node producer.mjs
import { randomBytes } from "node:crypto";
import { Kafka, Partitioners, logLevel } from "kafkajs";

const topic = `${process.env.TOPIC_PREFIX ?? "stepstream"}.steps`;
const kafka = new Kafka({
  brokers: (process.env.KAFKA_BROKERS ?? "127.0.0.1:9092").split(","),
  logLevel: logLevel.NOTHING,
});
// The default partitioner hashes keys with murmur2, as the contract asks.
const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner });

const traceId = randomBytes(16).toString("hex");
const now = () => Date.now() * 1000; // microseconds
const step = (fields) => ({
  trace_id: traceId,
  step_id: randomBytes(8).toString("hex"),
  project: "shop",
  agent: "node-agent",
  start_time: now(),
  ...fields,
});
// The same step when it starts and, complete, when it has ended.
const send = (event) =>
  producer.send({
    topic,
    acks: -1,
    messages: [
      {
        key: event.trace_id,
        value: JSON.stringify(event),
        headers: { "content-type": "application/json", "stepstream-schema": "step/1" },
      },
    ],
  });

await producer.connect();
const run = step({ kind: "agent", name: "refund", task: "refund" });
await send({ ...run, phase: "start" });
const call = step({
  parent_step_id: run.step_id,
  kind: "llm_call",
  name: "answer",
  provider: "openai",
  model: "gpt-4o",
  usage: { input_tokens: 1200, output_tokens: 80 },
  input: "Where is my order?",
  output: "It was shipped on Monday.",
});
await send({ ...call, phase: "end", end_time: now() });
await send({ ...run, phase: "end", end_time: now(), status: "ok" });
await producer.disconnect();
console.log(traceId);
