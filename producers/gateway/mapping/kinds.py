"""The kind of step that a span is: named by an attribute, or derived from its name, tool, model and
tokens.
"""

from __future__ import annotations

from typing import Final

LLM: Final = "llm_call"
TOOL: Final = "tool_call"
RETRIEVAL: Final = "retrieval"
AGENT: Final = "agent"
OTHER: Final = "other"

_BY_KIND: Final = {
    LLM: (
        "chat generate_content text_completion completion embeddings embedding llm generation "
        "model model_step model_generation chat_model ai.generatetext.dogenerate "
        "ai.streamtext.dostream ai.generateobject.dogenerate ai.streamobject.dostream "
        "ai.embed.doembed ai.embedmany.doembed llm_request llm_invocation model_inference "
        "chat.completions chat.streaming_completions text.completions text.streaming_completions "
        "acompletion aembedding embedder"
    ),
    TOOL: "execute_tool tool ai.toolcall tool_call mcp_tool_call client_tool_call",
    RETRIEVAL: "retrieval retriever reranker rerank vector_store vectordb ai.rerank.dorerank",
    # Operations of the Vercel AI SDK repeat the usage of the calls below them: no calls.
    AGENT: (
        "invoke_agent invoke_workflow agent agent_run workflow_run workflow.run workflow "
        "ai.generatetext ai.streamtext ai.generateobject ai.streamobject flow interaction"
    ),
    "plan": "plan planner",
    "state_update": (
        "create_memory update_memory upsert_memory search_memory delete_memory memory "
        "memory_operation"
    ),
    "guardrail": "guardrail guardrails guardrail_check",
    "evaluation": "evaluator evaluation score scorer",
}
KINDS: Final[dict[str, str]] = {
    word: kind for kind, words in _BY_KIND.items() for word in words.split()
}
KINDS["vector store"] = RETRIEVAL
"""The kind by the word that spans use for it, in lower case. Every other word (chain, task, prompt,
agent_step ...) means ``other``.
"""

_BY_NAME: Final = (
    ("invoke_agent ", AGENT),
    ("invoke_workflow ", AGENT),
    ("agent_run [", AGENT),
    ("execute_tool ", TOOL),
    ("tool.execute ", TOOL),
    ("tools/call ", TOOL),
    ("running tool: ", TOOL),
    ("running tool ", TOOL),
    ("chat ", LLM),
    ("text_completion ", LLM),
    ("generate_content ", LLM),
    ("embeddings ", LLM),
)
_BY_SCOPE: Final = {
    ("gcp.vertex.agent", "call_llm"): LLM,
    ("gcp.vertex.agent", "invocation"): AGENT,
    ("livekit-agents", "llm_request"): LLM,
    ("livekit-agents", "function_tool"): TOOL,
}
_EXACT: Final = {"haystack.agent.run": AGENT, "litellm_request": LLM}
"""Names of spans whose instrumentation has a scope that each program chooses."""
_VECTOR_STORES: Final = tuple(
    f"opentelemetry.instrumentation.{store}"
    for store in ["chroma", "pinecone", "qdrant", "weaviate", "milvus", "lancedb", "marqo"]
)
_LOOKS_UP: Final = ("query", "search", "fetch", "hybrid", "near", "bm25")
UNCOUNTED: Final = frozenset({"model_step", "model_generation"})
"""Mastra's wrappers of a model call, which are calls only with tokens: newer releases report model
and tokens on the call below them.
"""
_SCOPES: Final = frozenset({"gen_ai", "ai", "gcp.vertex.agent", "langsmith", "logfire"})
_SCOPE_STARTS: Final = (
    "pydantic-ai",
    "strands",
    "openinference.",
    "opentelemetry.instrumentation.openai",
    "agent_framework",
    "autogen",
    "langfuse-sdk",
)
"""Instrumentations whose span names are reliable enough to derive the kind from them."""


def named_kind(word: object) -> str | None:
    """The kind that a word stands for; None where the word is empty, ``other`` where it is not
    known.
    """
    if not isinstance(word, str) or not word:
        return None
    # MLflow writes its attributes as JSON: the word stands in quotes.
    return KINDS.get(word.strip('"').lower(), OTHER)


_HAYSTACK: Final = (
    ("Generator", LLM),
    ("Embedder", LLM),
    ("Retriever", RETRIEVAL),
    ("Ranker", RETRIEVAL),
    ("Agent", AGENT),
    ("Evaluator", "evaluation"),
)


def haystack_kind(component: object) -> str:
    """The kind of a Haystack component, by its class: ``OpenAIChatGenerator`` calls a model."""
    name = str(component)
    return next((kind for end, kind in _HAYSTACK if name.endswith(end)), OTHER)


def tool_in_name(name: str) -> str:
    """The tool in the name of a span such as ``execute_tool find``; the name where it has none."""
    for start, kind in _BY_NAME:
        if kind == TOOL and name.startswith(start):
            return name[len(start) :].strip() or name
    if name.startswith("langchain4j.tools."):
        return name.rpartition(".")[2]
    return name


def kind_by_name(name: str, scope: str) -> str | None:
    """The kind that follows from the name of a span of a known instrumentation, else None."""
    found = _BY_SCOPE.get((scope, name.partition(" [")[0])) or _EXACT.get(name)
    if found is not None:
        return found
    if name.startswith("langchain4j."):
        kind = name.split(".")[1]
        return TOOL if kind == "tools" else AGENT if kind == "aiservices" else None
    if scope.startswith(_VECTOR_STORES):
        return RETRIEVAL if any(word in name.lower() for word in _LOOKS_UP) else OTHER
    if scope not in _SCOPES and not scope.startswith(_SCOPE_STARTS):
        return None
    for start, kind in _BY_NAME:
        if name.startswith(start):
            return kind
    return None
