// The Vercel AI SDK, exporting by its documented settings.
import { createOpenAI } from "@ai-sdk/openai";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-proto";
import { NodeSDK } from "@opentelemetry/sdk-node";
import { generateText, stepCountIs, tool } from "ai";
import { z } from "zod";

const sdk = new NodeSDK({ traceExporter: new OTLPTraceExporter() });
sdk.start();
const openai = createOpenAI({ baseURL: process.env.OPENAI_BASE_URL, apiKey: "none" });
await generateText({
  model: openai.chat("gpt-4o"),
  prompt: "where is order 7?",
  tools: {
    look_up: tool({
      description: "Look an order up.",
      inputSchema: z.object({ order: z.number() }),
      execute: async () => "shipped",
    }),
  },
  stopWhen: stepCountIs(3),
  experimental_telemetry: { isEnabled: true, functionId: "refunds" },
});
await sdk.shutdown();
