"""OpenAI's client alone, instrumented by OpenTelemetry's own package: contents are log records."""

from exporting import provider
from openai import OpenAI
from opentelemetry._logs import set_logger_provider
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

logs = LoggerProvider()
logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
set_logger_provider(logs)
OpenAIInstrumentor().instrument(tracer_provider=provider, logger_provider=logs)
tools = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
OpenAI().chat.completions.create(
    model="gpt-4o", messages=[{"role": "user", "content": "where is order 7?"}], tools=tools
)
# The span first: its contents come after it.
provider.shutdown()
logs.shutdown()
