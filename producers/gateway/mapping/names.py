"""The attributes that fill each field of a step, for all conventions.

The names of one field are ordered: the first attribute that has a value is used. Old names stay,
because instrumentations follow the conventions years later. docs/gateway.md documents this table.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple


class Field(IntEnum):
    """A field of a step that attributes fill."""

    LANGSMITH_KIND = 0
    OPERATION = 1
    OPENINFERENCE_KIND = 2
    OTHER_KIND = 3
    NAME = 4
    AGENT = 5
    AGENT_VERSION = 6
    ENVIRONMENT = 7
    TASK = 8
    SESSION = 9
    USER = 10
    MODEL = 11
    REQUEST_MODEL = 12
    PROVIDER = 13
    TOOL = 14
    TOOL_CALL_ID = 15
    SYSTEM_INSTRUCTIONS = 16
    INPUT = 17
    TOOL_PARAMETERS = 18
    OUTPUT = 19
    DOCUMENTS = 20
    ERROR_TYPE = 21
    ERROR_MESSAGE = 22
    LEVEL = 23
    TOOL_STATUS = 24
    HTTP_STATUS = 25
    INPUT_TOKENS = 26
    OUTPUT_TOKENS = 27
    CACHED_TOKENS = 28
    CACHE_WRITE_TOKENS = 29
    REASONING_TOKENS = 30
    AUDIO_INPUT_TOKENS = 31
    AUDIO_OUTPUT_TOKENS = 32
    TOKEN_DETAILS = 33
    COST = 34
    COST_DETAILS = 35
    FIRST_CHUNK_S = 36
    FIRST_CHUNK_MS = 37
    FIRST_TOKEN_AT = 38
    NODE = 39
    METADATA = 40
    PENDING = 41
    PENDING_PARENT = 42
    PROJECT = 43
    GRAPH_NODE = 44
    REQUEST_TYPE = 45
    TOOL_CALLS = 46
    LOGGED_EVENTS = 47
    HAYSTACK_TYPE = 48
    BRAINTRUST_KIND = 49
    CHAT_NAME = 50


COUNT: Final = len(Field)
F = Field


def _mastra(side: str) -> str:
    """Mastra names contents after the type of the span: ``mastra.tool_call.input``."""
    types = (
        "agent_run workflow_run workflow_step workflow_conditional workflow_parallel "
        "workflow_loop processor_run model_generation model_step model_inference tool_call "
        "mcp_tool_call client_tool_call generic"
    )
    return " ".join(f"mastra.{one}.{side}" for one in types.split())


CHAINS: Final[dict[Field, str]] = {
    # A retriever is called "embeddings" and a prompt "chat" by LangSmith's operation name, so its
    # own kind goes first.
    F.LANGSMITH_KIND: "langsmith.span.kind",
    F.OPERATION: "gen_ai.operation.name",
    F.OPENINFERENCE_KIND: "openinference.span.kind",
    F.OTHER_KIND: (
        "langfuse.observation.type traceloop.span.kind ai.operationId genkit:metadata:subtype "
        "mastra.span.type spring.ai.kind span.type mlflow.spanType gen_ai.span.kind "
        "lmnr.span.type braintrust.span_attributes.type"
    ),
    # Weaker than a kind: read only where no other attribute names one.
    F.REQUEST_TYPE: "llm.request.type",
    F.HAYSTACK_TYPE: "haystack.component.type",
    F.BRAINTRUST_KIND: "braintrust.span_attributes",
    F.CHAT_NAME: "genkit:name",
    F.NAME: "traceloop.entity.name",
    F.GRAPH_NODE: "graph.node.name graph.node.id",
    F.AGENT: (
        "gen_ai.agent.name agent.name agent_name ai.telemetry.functionId gen_ai.workflow.name "
        "traceloop.workflow.name crewai.agent.role lk.agent_name"
    ),
    F.AGENT_VERSION: "gen_ai.agent.version traceloop.entity.version langfuse.version",
    F.ENVIRONMENT: "deployment.environment.name deployment.environment langfuse.environment",
    F.TASK: "stepstream.task langfuse.trace.name langsmith.trace.name",
    F.SESSION: (
        "gen_ai.conversation.id session.id langfuse.session.id ai.telemetry.metadata.sessionId "
        "langsmith.metadata.thread_id langsmith.metadata.session_id "
        "langsmith.metadata.conversation_id traceloop.association.properties.session_id "
        "gcp.vertex.agent.session_id spring.ai.chat.client.conversation.id microsoft.session.id "
        "langfuse.observation.metadata.thread_id mlflow.trace.session genkit:sessionId "
        "lmnr.association.properties.session_id traceloop.association.properties.thread_id "
        "traceloop.association.properties.conversation_id"
    ),
    F.USER: (
        "user.id enduser.id langfuse.user.id ai.telemetry.metadata.userId "
        "langsmith.metadata.user_id traceloop.association.properties.user_id mlflow.trace.user "
        "lmnr.association.properties.user_id"
    ),
    F.MODEL: "gen_ai.response.model llm.response.model_name ai.response.model",
    F.REQUEST_MODEL: (
        "gen_ai.request.model llm.model_name llm.request.model_name embedding.model_name "
        "reranker.model_name ai.model.id langfuse.observation.model.name model_name "
        "mlflow.llm.model langsmith.metadata.ls_model_name model model_id"
    ),
    F.PROVIDER: (
        "gen_ai.provider.name gen_ai.system llm.provider llm.system ai.model.provider "
        "mlflow.llm.provider langsmith.metadata.ls_provider"
    ),
    F.TOOL: (
        "gen_ai.tool.name tool.name ai.toolCall.name mcp.tool.name spring.ai.tool.definition.name "
        "mastra.tool_call.toolId mastra.mcp_tool_call.toolId lk.function_tool.name "
        "haystack.tool.name tool_name"
    ),
    F.TOOL_CALL_ID: (
        "gen_ai.tool.call.id tool.id tool_call.id ai.toolCall.id spring.ai.tool.call.id "
        "mastra.tool_call.toolCallId lk.function_tool.id tool_use_id"
    ),
    F.SYSTEM_INSTRUCTIONS: "gen_ai.system_instructions",
    F.INPUT: (
        "gen_ai.input.messages gen_ai.tool.call.arguments gen_ai.retrieval.query.text input.value "
        "ai.prompt.messages ai.prompt ai.toolCall.args traceloop.entity.input gen_ai.prompt "
        "pydantic_ai.all_messages tool_arguments gcp.vertex.agent.tool_call_args "
        "gcp.vertex.agent.llm_request langfuse.observation.input mlflow.spanInputs genkit:input "
        "spring.ai.tool.call.arguments gen_ai.tool.input lmnr.span.input braintrust.input_json "
        "haystack.component.input haystack.agent.input haystack.pipeline.input_data "
        "lk.function_tool.arguments lk.pii.function_tool.arguments lk.chat_ctx lk.pii.chat_ctx "
        "db.vector.query.content reranker.query embedding.text ai.value ai.values "
        f"{_mastra('input')} request_data user_prompt langfuse.trace.input input"
    ),
    # Arguments in some instrumentations, the declared schema in others: used only where no other
    # attribute has the input.
    F.TOOL_PARAMETERS: "tool.parameters",
    F.OUTPUT: (
        "gen_ai.output.messages gen_ai.tool.call.result output.value ai.response.text "
        "ai.response.object ai.result.text ai.result.object ai.toolCall.result "
        "traceloop.entity.output "
        "gen_ai.completion final_result tool_response gcp.vertex.agent.tool_response "
        "gcp.vertex.agent.llm_response langfuse.observation.output mlflow.spanOutputs "
        "genkit:output spring.ai.tool.call.result gen_ai.tool.output tool.result lmnr.span.output "
        "braintrust.output_json haystack.component.output haystack.agent.output "
        "haystack.pipeline.output_data lk.function_tool.output lk.pii.function_tool.output "
        f"lk.response.text lk.pii.response.text {_mastra('output')} response_data "
        "langfuse.trace.output output"
    ),
    # Some frameworks write the text and the tool calls of one answer into two attributes.
    F.TOOL_CALLS: (
        "ai.response.toolCalls ai.result.toolCalls lk.response.function_calls "
        "lk.pii.response.function_calls"
    ),
    # Pydantic AI's first form: the content events as one JSON list.
    F.LOGGED_EVENTS: "events all_messages_events",
    F.DOCUMENTS: "gen_ai.retrieval.documents db.vector.query.response.documents",
    F.ERROR_TYPE: "error.type",
    F.ERROR_MESSAGE: "langfuse.observation.status_message",
    F.LEVEL: "langfuse.observation.level",
    F.TOOL_STATUS: "gen_ai.tool.status tool.status genkit:state lk.function_tool.is_error",
    F.HTTP_STATUS: "http.response.status_code http.status_code",
    F.INPUT_TOKENS: (
        "gen_ai.usage.input_tokens llm.token_count.prompt gen_ai.usage.prompt_tokens "
        "ai.usage.inputTokens ai.usage.promptTokens ai.usage.tokens gen_ai.response.prompt_tokens "
        "llm.usage.prompt_tokens braintrust.metrics.prompt_tokens input_tokens"
    ),
    F.OUTPUT_TOKENS: (
        "gen_ai.usage.output_tokens llm.token_count.completion gen_ai.usage.completion_tokens "
        "ai.usage.outputTokens ai.usage.completionTokens gen_ai.response.completion_tokens "
        "llm.usage.completion_tokens braintrust.metrics.completion_tokens output_tokens"
    ),
    F.CACHED_TOKENS: (
        "gen_ai.usage.cache_read.input_tokens llm.token_count.prompt_details.cache_read "
        "gen_ai.usage.cache_read_input_tokens gen_ai.usage.cache_read_tokens "
        "gen_ai.usage.details.cache_read_tokens gen_ai.usage.cached_tokens "
        "gen_ai.usage.cached_input_tokens gen_ai.usage.input_cached_tokens "
        "ai.usage.cachedInputTokens ai.usage.inputTokenDetails.cacheReadTokens "
        "llm.usage.cache_read_input_tokens cache_read_tokens"
    ),
    F.CACHE_WRITE_TOKENS: (
        "gen_ai.usage.cache_write.input_tokens gen_ai.usage.cache_creation.input_tokens "
        "llm.token_count.prompt_details.cache_write gen_ai.usage.cache_write_input_tokens "
        "gen_ai.usage.cache_creation_input_tokens gen_ai.usage.cache_write_tokens "
        "gen_ai.usage.details.cache_write_tokens ai.usage.inputTokenDetails.cacheWriteTokens "
        "llm.usage.cache_creation_input_tokens cache_creation_tokens"
    ),
    F.REASONING_TOKENS: (
        "gen_ai.usage.reasoning.output_tokens llm.token_count.completion_details.reasoning "
        "gen_ai.usage.reasoning_tokens gen_ai.usage.details.reasoning_tokens "
        "ai.usage.reasoningTokens ai.usage.outputTokenDetails.reasoningTokens"
    ),
    F.AUDIO_INPUT_TOKENS: (
        "llm.token_count.prompt_details.audio gen_ai.usage.details.input_audio_tokens"
    ),
    F.AUDIO_OUTPUT_TOKENS: (
        "llm.token_count.completion_details.audio gen_ai.usage.details.output_audio_tokens"
    ),
    F.TOKEN_DETAILS: (
        "langfuse.observation.usage_details langsmith.usage_metadata mlflow.chat.tokenUsage "
        "braintrust.metrics gen_ai.usage.input_token_details input_token_details"
    ),
    F.COST: (
        "llm.cost.total operation.cost gen_ai.usage.cost gen_ai.usage.total_cost "
        "gen_ai.usage.cost_usd gen_ai.cost.total_cost litellm.cost.total llm.usage.total_cost"
    ),
    F.COST_DETAILS: "langfuse.observation.cost_details mlflow.llm.cost",
    F.FIRST_CHUNK_S: "gen_ai.response.time_to_first_chunk",
    F.FIRST_CHUNK_MS: "ai.response.msToFirstChunk gen_ai.server.time_to_first_token",
    F.FIRST_TOKEN_AT: "langfuse.observation.completion_start_time mastra.completion_start_time",
    F.NODE: (
        "langgraph_node langfuse.observation.metadata.langgraph_node "
        "langsmith.metadata.langgraph_node traceloop.association.properties.langgraph_node"
    ),
    F.METADATA: "metadata",
    F.PENDING: "logfire.span_type",
    F.PENDING_PARENT: "logfire.pending_parent_id",
    F.PROJECT: "stepstream.project",
}
"""Names in the order in which they are used: the first one that has a value counts."""

ALSO_KEPT: Final = frozenset(
    [
        "gen_ai.agent.id",
        "langfuse.trace.name",
        "langsmith.trace.name",
        "genkit:metadata:subtype",
        "haystack.component.type",
        "llm.request.type",
    ]
)

GENERAL: Final = frozenset(
    {
        F.ENVIRONMENT,
        F.SESSION,
        F.USER,
        F.ERROR_TYPE,
        F.HTTP_STATUS,
        F.METADATA,
        F.AGENT_VERSION,
        F.PROJECT,
    }
)
"""Fields that HTTP and database spans have too, so they do not show that a span is an agent's."""

DROPPED: Final = frozenset(
    [
        "logfire.json_schema",
        "logfire.null_args",
        "logfire.tags_schema",
        "input.mime_type",
        "output.mime_type",
        "llm.token_count.total",
        "gen_ai.usage.total_tokens",
        "llm.usage.total_tokens",
        "ai.usage.totalTokens",
        "logfire.metrics",
    ]
)
"""Descriptions and sums of other attributes, which add no information."""


class Slot(NamedTuple):
    """The field that an attribute fills, and its rank there: the lowest rank is used."""

    field: int
    rank: int


SLOTS: Final[dict[str, Slot]] = {
    name: Slot(int(field), rank)
    for field, names in CHAINS.items()
    for rank, name in enumerate(names.split())
}

GROUPS: Final[tuple[tuple[str, str], ...]] = (
    ("llm.input_messages.", "input"),
    ("llm.output_messages.", "output"),
    ("gen_ai.prompt.", "prompt"),
    ("gen_ai.completion.", "completion"),
    ("retrieval.documents.", "documents"),
    ("reranker.output_documents.", "documents"),
)
"""Lists that are flattened into attributes with an index in their names, by how those begin."""
