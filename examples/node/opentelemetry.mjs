// A run sent to the gateway with the plain OpenTelemetry SDK.
//
//   npm install && OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 node opentelemetry.mjs
import { trace } from "@opentelemetry/api";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-proto";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { BatchSpanProcessor, NodeTracerProvider } from "@opentelemetry/sdk-trace-node";

const provider = new NodeTracerProvider({
  resource: resourceFromAttributes({ "service.name": "node-agent" }),
  spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter())],
});
provider.register();
const tracer = trace.getTracer("my.agent");

let traceId = "";
await tracer.startActiveSpan(
  "refund",
  { attributes: { "gen_ai.operation.name": "invoke_agent" } },
  async (run) => {
    traceId = run.spanContext().traceId;
    await tracer.startActiveSpan("chat gpt-4o", async (call) => {
      call.setAttributes({
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.usage.input_tokens": 1200,
        "gen_ai.usage.output_tokens": 80,
      });
      call.end();
    });
    run.end();
  },
);
await provider.shutdown();
console.log(traceId);
