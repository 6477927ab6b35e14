// An agent that answers a question about an order, recorded step by step.
//
//   stepstream up                      (in another terminal)
//   node examples/agent.ts             (Node 22.18 or newer runs TypeScript as it is)
//   stepstream trace --last
import { llm, RunStopped, retrieval, run, shutdown, tool } from "../src/index.ts";

const ORDERS = new Map([[7, { state: "shipped", days: 2 }]]);

// In the place of a model client; a real one returns its usage in the same way.
async function model(prompt: string) {
  const text = prompt.includes("shipped") ? "It is on its way." : "look_up(order=7)";
  return { text, usage: { inputTokens: prompt.length, outputTokens: text.length } };
}

const ask = (name: string, prompt: string) =>
  llm(name, { model: "gpt-4o", provider: "openai", input: prompt }, async (step) => {
    const answer = await model(prompt);
    step.setUsage(answer.usage);
    return answer.text;
  });

try {
  const question = "Where is order 7?";
  await run("support", { task: "order_status", input: question }, async (current) => {
    console.log(`run ${current.traceId}`);
    await ask("plan", question);
    const [order] = await Promise.all([
      tool("look_up", { input: { order: 7 } }, () => ORDERS.get(7)),
      retrieval("policies", { input: "delivery times" }, (step) => {
        step.setDocuments([{ id: "p-3", score: 0.8, content: "Parcels take three days." }]);
      }),
    ]);
    return ask("answer", `${question} ${JSON.stringify(order)}`);
  });
} catch (error) {
  // Thrown by the next step once the run has been stopped.
  if (!(error instanceof RunStopped)) throw error;
  console.log(`stopped by ${error.by}: ${error.reason}`);
}
await shutdown();
