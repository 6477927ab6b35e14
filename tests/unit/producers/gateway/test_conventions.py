"""Spans as further frameworks and instrumentations write them: kind, tool, model, provider, tokens
and cost of each, by the names in their public sources.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest

from stepstream.producers.gateway.mapping.spans import Resource, SpanEvent
from tests.support.otlp import NOW_NS, mapped, span, step_of

PARENT = "b7ad6b7169203331"


class Row(NamedTuple):
    """What a span becomes."""

    kind: str
    tool: str = ""
    model: str = ""
    provider: str = ""
    # Input, output, cached.
    tokens: tuple[int, int, int] | None = None
    cost: str = ""


def row(name: str, attributes: dict[str, Any], scope: str = "", **fields: Any) -> Row:
    """The row of a span below another one."""
    made = {"name": name, "resource": Resource({}, scope), "parent_id": PARENT} | fields
    step = mapped(span(attributes=attributes, **made))[0]
    usage = step.usage
    return Row(
        step.kind,
        step.tool,
        step.model,
        step.provider,
        None
        if usage is None
        else (usage.input_tokens, usage.output_tokens, usage.cached_input_tokens),
        "" if step.cost_usd is None else str(step.cost_usd),
    )


# Scope, span name, attributes, row.
Case = tuple[str, str, dict[str, Any], Row]

SPANS: dict[str, list[Case]] = {
    "semantic kernel": [
        (
            "semantic_kernel.utils.telemetry.model_diagnostics.decorators",
            "chat.completions gpt-4o",
            {
                "gen_ai.operation.name": "chat.completions",
                "gen_ai.system": "openai",
                "gen_ai.request.model": "gpt-4o",
                "gen_ai.usage.prompt_tokens": 120,
                "gen_ai.usage.completion_tokens": 8,
            },
            Row("llm_call", "", "gpt-4o", "openai", (120, 8, 0)),
        ),
        (
            "Microsoft.SemanticKernel.Diagnostics",
            "chat.streaming_completions gpt-4o",
            {
                "gen_ai.operation.name": "chat.streaming_completions",
                "gen_ai.request.model": "gpt-4o",
                # Names of older releases of the .NET library.
                "gen_ai.response.prompt_tokens": 12,
                "gen_ai.response.completion_tokens": 3,
            },
            Row("llm_call", "", "gpt-4o", "", (12, 3, 0)),
        ),
        (
            "semantic_kernel.functions.kernel_function",
            "execute_tool menu-specials",
            {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "menu-specials"},
            Row("tool_call", "menu-specials"),
        ),
    ],
    "autogen": [
        (
            "autogen-core",
            "invoke_agent planner",
            {
                "gen_ai.operation.name": "invoke_agent",
                "gen_ai.system": "autogen",
                "gen_ai.agent.name": "planner",
            },
            Row("agent"),
        ),
        (
            "autogen-core",
            "create_agent planner",
            {"gen_ai.operation.name": "create_agent", "gen_ai.agent.name": "planner"},
            Row("other"),
        ),
        (
            "autogen-core",
            "execute_tool add",
            {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "add"},
            Row("tool_call", "add"),
        ),
    ],
    "google adk": [
        (
            "gcp.vertex.agent",
            "generate_content gemini-2.5-flash",
            {
                "gen_ai.operation.name": "generate_content",
                "gen_ai.system": "gcp.vertex.agent",
                "gen_ai.request.model": "gemini-2.5-flash",
                "gen_ai.usage.input_tokens": 30,
                "gen_ai.usage.output_tokens": 5,
            },
            Row("llm_call", "", "gemini-2.5-flash", "", (30, 5, 0)),
        ),
        (
            "gcp.vertex.agent",
            # A summary of parallel calls, each of which has a span of its own.
            "execute_tool (merged tools)",
            {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "(merged tools)"},
            Row("other"),
        ),
    ],
    "strands": [
        (
            "strands.telemetry.tracer",
            "chat",
            {
                "gen_ai.operation.name": "chat",
                "gen_ai.system": "strands-agents",
                "gen_ai.request.model": "us.anthropic.claude-sonnet-4-20250514-v1:0",
                "gen_ai.usage.prompt_tokens": 50,
                "gen_ai.usage.input_tokens": 50,
                "gen_ai.usage.output_tokens": 6,
                "gen_ai.usage.cache_read_input_tokens": 40,
            },
            # Its input leaves out what was read from the cache: 50 + 40. Both names of the input
            # count once.
            Row("llm_call", "", "us.anthropic.claude-sonnet-4-20250514-v1:0", "", (90, 6, 40)),
        ),
        (
            "strands.telemetry.tracer",
            "execute_event_loop_cycle",
            {"gen_ai.operation.name": "execute_event_loop_cycle", "event_loop.cycle_id": "1"},
            Row("other"),
        ),
        (
            "strands.telemetry.tracer",
            "execute_tool letter_counter",
            {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "letter_counter"},
            Row("tool_call", "letter_counter"),
        ),
    ],
    "mastra": [
        (
            "@mastra/otel-exporter",
            "invoke_agent weather",
            {"mastra.span.type": "agent_run", "gen_ai.operation.name": "invoke_agent"},
            Row("agent"),
        ),
        (
            "@mastra/otel-exporter",
            "model_generation gpt-4o",
            # Around several inferences, which have the usage: as a model call it would count twice.
            {"mastra.span.type": "model_generation", "gen_ai.operation.name": "model_generation"},
            Row("other"),
        ),
        (
            "@mastra/otel-exporter",
            "agent_step weather",
            {"mastra.span.type": "model_step", "gen_ai.operation.name": "agent_step"},
            Row("other"),
        ),
        (
            "@mastra/otel-exporter",
            "chat gpt-4o",
            {
                "mastra.span.type": "model_inference",
                "gen_ai.operation.name": "chat",
                "gen_ai.request.model": "gpt-4o",
                "gen_ai.provider.name": "openai",
                "gen_ai.usage.input_tokens": 11,
                "gen_ai.usage.output_tokens": 2,
                "gen_ai.usage.cached_input_tokens": 4,
            },
            Row("llm_call", "", "gpt-4o", "openai", (11, 2, 4)),
        ),
        (
            "@mastra/otel-exporter",
            "tool.execute calculator",
            {"mastra.span.type": "tool_call", "mastra.tool_call.toolId": "calculator"},
            Row("tool_call", "calculator"),
        ),
        (
            "@mastra/otel-exporter",
            "chunk",
            {"mastra.span.type": "model_chunk"},
            Row("other"),
        ),
    ],
    "spring ai": [
        (
            "org.springframework.boot",
            "chat_client",
            {
                "spring.ai.kind": "chat_client",
                "gen_ai.operation.name": "framework",
                "gen_ai.system": "spring_ai",
            },
            # A wrapper with the name of a framework as its system: no model was called by it.
            Row("other"),
        ),
        (
            "org.springframework.boot",
            "tool_call weather",
            {
                "spring.ai.kind": "tool_call",
                "gen_ai.operation.name": "framework",
                "spring.ai.tool.definition.name": "weather",
                "spring.ai.tool.call.arguments": '{"city":"Oslo"}',
            },
            Row("tool_call", "weather"),
        ),
        (
            "org.springframework.boot",
            "chat gpt-4o",
            {
                "gen_ai.operation.name": "chat",
                "gen_ai.system": "openai",
                "gen_ai.request.model": "gpt-4o",
                # Micrometer writes all values as texts.
                "gen_ai.usage.input_tokens": "10",
                "gen_ai.usage.output_tokens": "4",
            },
            Row("llm_call", "", "gpt-4o", "openai", (10, 4, 0)),
        ),
        (
            "org.springframework.boot",
            "pg_vector query",
            {"spring.ai.kind": "vector_store", "db.operation.name": "query"},
            Row("retrieval"),
        ),
    ],
    "langsmith": [
        (
            "langsmith",
            "ChatAnthropic",
            {
                "langsmith.span.kind": "llm",
                "gen_ai.operation.name": "chat",
                "gen_ai.system": "langchain",
                "langsmith.metadata.ls_provider": "anthropic",
                "langsmith.metadata.ls_model_name": "claude-sonnet-4-5",
                "langsmith.usage_metadata": json.dumps(
                    {
                        "input_tokens": 120,
                        "output_tokens": 10,
                        "total_cost": 0.25,
                        "input_token_details": {"cache_read": 80},
                        "output_token_details": {"reasoning": 3},
                    }
                ),
            },
            Row("llm_call", "", "claude-sonnet-4-5", "anthropic", (120, 10, 80), "0.25"),
        ),
        ("langsmith", "find", {"langsmith.span.kind": "tool"}, Row("tool_call", "find")),
        ("langsmith", "store", {"langsmith.span.kind": "retriever"}, Row("retrieval")),
        ("langsmith", "parse", {"langsmith.span.kind": "parser"}, Row("other")),
    ],
    "traceloop": [
        (
            "opentelemetry.instrumentation.openai.v1",
            "openai.chat",
            {
                "llm.request.type": "chat",
                "gen_ai.system": "OpenAI",
                "gen_ai.request.model": "gpt-4o",
                "gen_ai.usage.prompt_tokens": 9,
                "gen_ai.usage.completion_tokens": 1,
                "gen_ai.usage.cache_read_input_tokens": 5,
            },
            Row("llm_call", "", "gpt-4o", "openai", (9, 1, 5)),
        ),
        (
            "opentelemetry.instrumentation.anthropic",
            "anthropic.chat",
            {"llm.request.type": "chat", "gen_ai.request.model": "claude-sonnet-4-5"},
            Row("llm_call", "", "claude-sonnet-4-5"),
        ),
        (
            "opentelemetry.instrumentation.cohere",
            "cohere.rerank",
            # Ranking chooses documents: a retrieval, although a model does it.
            {"llm.request.type": "rerank", "gen_ai.request.model": "rerank-v3.5"},
            Row("retrieval", "", "rerank-v3.5"),
        ),
        (
            "opentelemetry.instrumentation.crewai",
            "Writer.agent",
            {"traceloop.span.kind": "agent", "crewai.agent.role": "Writer"},
            Row("agent"),
        ),
        (
            "opentelemetry.instrumentation.crewai",
            "Write.task",
            {"traceloop.span.kind": "task", "traceloop.entity.name": "Write"},
            Row("other"),
        ),
        (
            "opentelemetry.instrumentation.langchain",
            "search.tool",
            {"traceloop.span.kind": "tool", "traceloop.entity.name": "search"},
            Row("tool_call", "search"),
        ),
        ("opentelemetry.instrumentation.chromadb", "chroma.query", {"db.system": "chroma"},
         Row("retrieval")),
        ("opentelemetry.instrumentation.chromadb", "chroma.add", {"db.system": "chroma"},
         Row("other")),
    ],
    "openinference": [
        (
            "openinference.instrumentation.llama_index",
            "OpenAI.chat",
            {
                "openinference.span.kind": "LLM",
                "llm.model_name": "gpt-4o",
                "llm.provider": "openai",
                "llm.token_count.prompt": 7,
                "llm.token_count.completion": 2,
                "llm.token_count.prompt_details.cache_read": 3,
                "llm.cost.total": 0.5,
            },
            Row("llm_call", "", "gpt-4o", "openai", (7, 2, 3), "0.5"),
        ),
        (
            "openinference.instrumentation.llama_index",
            "OpenAIEmbedding.get_query_embedding",
            {"openinference.span.kind": "EMBEDDING", "embedding.model_name": "text-embed"},
            Row("llm_call", "", "text-embed"),
        ),
        (
            "openinference.instrumentation.haystack",
            "ranker.run",
            {"openinference.span.kind": "RERANKER", "reranker.model_name": "bge"},
            Row("retrieval", "", "bge"),
        ),
        (
            "openinference.instrumentation.smolagents",
            "CodeAgent.run",
            {
                # The sum of its calls, which must not count again.
                "openinference.span.kind": "AGENT",
                "llm.token_count.prompt": 900,
                "llm.token_count.completion": 90,
            },
            Row("agent"),
        ),
        (
            "openinference.instrumentation.smolagents",
            "Step 1",
            {"openinference.span.kind": "CHAIN"},
            Row("other"),
        ),
        (
            "openinference.instrumentation.dspy",
            "ReAct.forward",
            {"openinference.span.kind": "CHAIN"},
            Row("other"),
        ),
        (
            "openinference.instrumentation.crewai",
            "ToolUsage._use",
            {"openinference.span.kind": "TOOL", "tool.name": "scrape"},
            Row("tool_call", "scrape"),
        ),
        (
            "openinference.instrumentation.guardrails",
            "guard",
            {"openinference.span.kind": "GUARDRAIL"},
            Row("guardrail"),
        ),
    ],
    "haystack": [
        (
            "my_application",
            "haystack.component.run",
            {
                "haystack.component.name": "llm",
                "haystack.component.type": "OpenAIChatGenerator",
                "haystack.component.output": json.dumps(
                    {
                        "replies": [
                            {
                                "role": "assistant",
                                "meta": {
                                    "model": "gpt-4o",
                                    "usage": {"prompt_tokens": 21, "completion_tokens": 4},
                                },
                            }
                        ]
                    }
                ),
            },
            Row("llm_call", "", "gpt-4o", "", (21, 4, 0)),
        ),
        (
            "my_application",
            "haystack.component.run",
            {"haystack.component.type": "InMemoryEmbeddingRetriever"},
            Row("retrieval"),
        ),
        (
            "my_application",
            "haystack.component.run",
            {"haystack.component.type": "PromptBuilder"},
            Row("other"),
        ),
        ("my_application", "haystack.agent.run", {"haystack.agent.max_steps": 3}, Row("agent")),
    ],
    "mlflow": [
        (
            "mlflow.openai",
            "Completions",
            {
                # MLflow writes every value as JSON, texts in quotation marks too.
                "mlflow.spanType": '"CHAT_MODEL"',
                "mlflow.llm.model": '"gpt-4o"',
                "mlflow.llm.provider": '"openai"',
                "mlflow.chat.tokenUsage": json.dumps(
                    {"input_tokens": 15, "output_tokens": 5, "total_tokens": 20}
                ),
                "mlflow.llm.cost": '{"input_cost":0.1,"output_cost":0.2,"total_cost":0.3}',
            },
            Row("llm_call", "", "gpt-4o", "openai", (15, 5, 0), "0.3"),
        ),
        ("mlflow", "search", {"mlflow.spanType": '"TOOL"'}, Row("tool_call", "search")),
        ("mlflow", "agent", {"mlflow.spanType": '"AGENT"'}, Row("agent")),
        ("mlflow", "docs", {"mlflow.spanType": '"RETRIEVER"'}, Row("retrieval")),
        ("mlflow", "parse", {"mlflow.spanType": '"PARSER"'}, Row("other")),
    ],
    "langfuse": [
        (
            "langfuse-sdk",
            "answer",
            {
                "langfuse.observation.type": "generation",
                "langfuse.observation.model.name": "gpt-4o",
                "langfuse.observation.usage_details": '{"input":10,"output":3}',
                "langfuse.observation.cost_details": '{"input":0.25,"output":0.5}',
            },
            Row("llm_call", "", "gpt-4o", "", (10, 3, 0), "0.75"),
        ),
        ("langfuse-sdk", "find", {"langfuse.observation.type": "tool"}, Row("tool_call", "find")),
        ("langfuse-sdk", "docs", {"langfuse.observation.type": "retriever"}, Row("retrieval")),
        ("langfuse-sdk", "check", {"langfuse.observation.type": "guardrail"}, Row("guardrail")),
        ("langfuse-sdk", "step", {"langfuse.observation.type": "span"}, Row("other")),
    ],
    "claude code": [
        (
            "com.anthropic.claude_code.tracing",
            "claude_code.llm_request",
            {
                "span.type": "llm_request",
                "gen_ai.system": "anthropic",
                "model": "claude-opus-5",
                "input_tokens": 200,
                "output_tokens": 12,
                "cache_read_tokens": 100,
            },
            Row("llm_call", "", "claude-opus-5", "anthropic", (300, 12, 100)),
        ),
        (
            "com.anthropic.claude_code.tracing",
            "claude_code.tool",
            {"span.type": "tool", "tool_name": "Bash"},
            Row("tool_call", "Bash"),
        ),
        (
            "com.anthropic.claude_code.tracing",
            "claude_code.tool.execution",
            {"span.type": "tool.execution", "duration_ms": 5},
            Row("other"),
        ),
    ],
    "vercel ai sdk": [
        (
            "ai",
            "ai.toolCall",
            {"ai.operationId": "ai.toolCall", "ai.toolCall.name": "weather"},
            Row("tool_call", "weather"),
        ),
        (
            "ai",
            "ai.embed",
            {"ai.operationId": "ai.embed", "ai.usage.tokens": 5},
            Row("other"),
        ),
        (
            "ai",
            "ai.embed.doEmbed",
            {"ai.operationId": "ai.embed.doEmbed", "ai.usage.tokens": 5, "ai.model.id": "e3"},
            Row("llm_call", "", "e3", "", (5, 0, 0)),
        ),
    ],
    "genkit": [
        (
            "genkit-tracer",
            "googleai/gemini-2.5-flash",
            {
                "genkit:metadata:subtype": "model",
                "genkit:name": "googleai/gemini-2.5-flash",
                "genkit:output": '{"message":{},"usage":{"inputTokens":42,"outputTokens":17}}',
            },
            Row("llm_call", "", "gemini-2.5-flash", "google", (42, 17, 0)),
        ),
        (
            "genkit-tracer",
            "lookup",
            {"genkit:metadata:subtype": "tool", "genkit:name": "lookup"},
            Row("tool_call", "lookup"),
        ),
        ("genkit-tracer", "chat", {"genkit:metadata:subtype": "flow"}, Row("agent")),
    ],
    "livekit": [
        (
            "livekit-agents",
            "llm_request",
            {
                "gen_ai.request.model": "gpt-4.1",
                "gen_ai.usage.input_tokens": 8,
                "gen_ai.usage.output_tokens": 1,
            },
            Row("llm_call", "", "gpt-4.1", "", (8, 1, 0)),
        ),
        (
            "livekit-agents",
            "function_tool",
            {"lk.function_tool.name": "look_up", "lk.function_tool.arguments": "{}"},
            Row("tool_call", "look_up"),
        ),
    ],
    "others": [
        (
            "litellm",
            "litellm_request",
            {
                "llm.request.type": "acompletion",
                "gen_ai.request.model": "gpt-4o",
                "gen_ai.usage.prompt_tokens": 3,
                "gen_ai.usage.completion_tokens": 2,
                "gen_ai.cost.total_cost": 0.125,
            },
            Row("llm_call", "", "gpt-4o", "", (3, 2, 0), "0.125"),
        ),
        (
            "lmnr",
            "plan",
            {"lmnr.span.type": "LLM", "gen_ai.request.model": "gpt-4o"},
            Row("llm_call", "", "gpt-4o"),
        ),
        (
            "braintrust",
            "Chat Completion",
            {
                "braintrust.span_attributes": '{"type":"llm"}',
                "braintrust.metrics": '{"prompt_tokens":6,"completion_tokens":2}',
            },
            Row("llm_call", "", "", "", (6, 2, 0)),
        ),
        (
            "io.quarkus.opentelemetry",
            "langchain4j.tools.getWeather",
            {},
            Row("tool_call", "getWeather"),
        ),
        (
            "agentscope",
            "agent",
            {"gen_ai.span.kind": "AGENT"},
            Row("agent"),
        ),
    ],
}  # fmt: skip


@pytest.mark.parametrize("framework", sorted(SPANS))
def test_each_span_becomes_what_it_is(framework: str) -> None:
    """Row by row."""
    for scope, name, attributes, expected in SPANS[framework]:
        assert row(name, attributes, scope) == expected, name


CALL = {"toolCallId": "c1", "toolName": "find", "input": '{"q":1}'}


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        # Vercel AI SDK: a text and calls of one answer, in two attributes.
        (
            {"ai.response.text": "Wait.", "ai.response.toolCalls": json.dumps([CALL])},
            '"Wait."',
        ),
        ({"ai.response.toolCalls": json.dumps([CALL])}, "find"),
        # OpenLLMetry and OpenInference flatten them.
        (
            {
                "gen_ai.completion.0.content": "Wait.",
                "gen_ai.completion.0.tool_calls.0.id": "c1",
                "gen_ai.completion.0.tool_calls.0.name": "find",
                "gen_ai.completion.0.tool_calls.0.arguments": '{"q":1}',
            },
            "Wait.",
        ),
        (
            {
                "output.value": "Wait.",
                "llm.output_messages.0.message.tool_calls.0.tool_call.id": "c1",
                "llm.output_messages.0.message.tool_calls.0.tool_call.function.name": "find",
                "llm.output_messages.0.message.tool_calls.0.tool_call.function.arguments": (
                    '{"q":1}'
                ),
            },
            "find",
        ),
        # Pydantic AI's first form.
        (
            {
                "events": json.dumps(
                    [
                        {"event.name": "gen_ai.user.message", "content": "hi"},
                        {
                            "event.name": "gen_ai.choice",
                            "message": {
                                "tool_calls": [
                                    {"id": "c1", "function": {"name": "find", "arguments": "{}"}}
                                ]
                            },
                        },
                    ]
                )
            },
            "tool_calls",
        ),
    ],
)
def test_the_tools_that_an_answer_chose_are_found(attributes: dict[str, Any], text: str) -> None:
    """Each once, next to the answer's text."""
    chat = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}
    steps = mapped(span(attributes={**chat, **attributes}))
    assert text in steps[0].output
    chosen = [(one.kind, one.tool, one.attributes["tool_call_id"]) for one in steps[1:]]
    assert chosen == [("tool_selection", "find", "c1")]


def events(*found: dict[str, Any]) -> list[SpanEvent]:
    """Results of a vector store's query."""
    return [
        SpanEvent(
            NOW_NS, "db.query.result", {f"db.query.result.{key}": v for key, v in one.items()}
        )
        for one in found
    ]


@pytest.mark.parametrize(
    ("attributes", "listed", "expected"),
    [
        # Langfuse's and MLflow's callbacks for LangChain write documents as the output.
        (
            {
                "langfuse.observation.type": "retriever",
                "langfuse.observation.output": json.dumps(
                    [{"page_content": "refunds", "metadata": {"source": "faq.md"}}]
                ),
            },
            [],
            [("faq.md", None, "refunds")],
        ),
        (
            {
                "mlflow.spanType": '"RETRIEVER"',
                "mlflow.spanOutputs": '[{"page_content":"a","metadata":{"doc_uri":"u"},"id":"7"}]',
            },
            [],
            [("7", None, "a")],
        ),
        # Haystack, and LlamaIndex's nodes.
        (
            {
                "haystack.component.type": "InMemoryBM25Retriever",
                "haystack.component.output": '{"documents":[{"id":"d","content":"c","score":2.5}]}',
            },
            [],
            [("d", 2.5, "c")],
        ),
        (
            {
                "traceloop.span.kind": "task",
                "openinference.span.kind": "RETRIEVER",
                "output.value": '{"nodes":[{"node":{"id_":"n1","text":"t"},"score":0.5}]}',
            },
            [],
            [("n1", 0.5, "t")],
        ),
        (
            {"spring.ai.kind": "vector_store", "db.vector.query.response.documents": '["a","b"]'},
            [],
            [("", None, "a"), ("", None, "b")],
        ),
        (
            {"traceloop.span.kind": "retriever"},
            events({"id": "c-1", "document": "first"}, {"id": "c-2", "score": 0.5}),
            [("c-1", None, "first"), ("c-2", 0.5, "")],
        ),
        (
            {
                "openinference.span.kind": "RERANKER",
                "reranker.output_documents.0.document.id": "d1",
                "reranker.output_documents.0.document.score": 0.75,
                "reranker.output_documents.0.document.content": "x",
            },
            [],
            [("d1", 0.75, "x")],
        ),
        ({"openinference.span.kind": "RETRIEVER", "output.value": "none found"}, [], []),
    ],
)
def test_documents_are_found_in_every_form(
    attributes: dict[str, Any],
    listed: list[SpanEvent],
    expected: list[tuple[str, float | None, str]],
) -> None:
    """Attributes, span events, or the retriever's output."""
    step = step_of(attributes, events=listed)
    assert step.kind == "retrieval"
    assert [(one.id, one.score, one.content) for one in step.documents] == expected


@pytest.mark.parametrize(
    "attributes",
    [
        {"gen_ai.tool.status": "error"},
        {"tool.status": "error"},
        {"genkit:state": "error"},
        {"lk.function_tool.is_error": True},
        {"langfuse.observation.level": "ERROR"},
    ],
)
def test_a_failure_may_be_an_attribute(attributes: dict[str, Any]) -> None:
    """With the span's own status unset."""
    tool = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "pay"}
    assert step_of({**tool, **attributes}).status == "error"
    assert step_of(tool).status == "ok"


def test_contents_of_tools_come_from_each_namespace() -> None:
    """Arguments and result."""
    pairs = [
        ("spring.ai.tool.call.arguments", "spring.ai.tool.call.result"),
        ("gen_ai.tool.input", "gen_ai.tool.output"),
        ("mastra.tool_call.input", "mastra.tool_call.output"),
        ("lk.function_tool.arguments", "lk.function_tool.output"),
        ("lmnr.span.input", "lmnr.span.output"),
        ("braintrust.input_json", "braintrust.output_json"),
        ("input", "output"),
    ]
    for given, taken in pairs:
        step = step_of({"gen_ai.operation.name": "execute_tool", given: '{"q":1}', taken: "found"})
        assert (step.input, step.output) == ('{"q":1}', "found"), given
