"""Names of models and providers as frameworks and gateways write them, and what a price list may
call the same thing.

Nothing is guessed: a name is only taken apart where the part that goes away names who serves the
model (``bedrock/``, ``models/``, ``us.anthropic.``). Versions stay as they are.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple


class Name(NamedTuple):
    """A provider, empty where none is known, and a model of its."""

    provider: str
    model: str


_BEHIND_HUGGINGFACE: Final = (
    "cerebras", "fireworks-ai", "groq", "hyperbolic", "nebius", "novita", "nscale", "ovhcloud",
    "publicai", "sambanova",
    "together",
)  # fmt: skip
_PROVIDERS: Final[dict[str, str]] = {
    "anthropic": "anthropic claude",
    "arcee": "arcee arcee_ai",
    "avian": "avian",
    "aws": "aws bedrock bedrock_converse bedrock_runtime amazon amazon_bedrock aws_bedrock"
    " anthropic_bedrock chatbedrock",
    "azure": "azure azure_ai azure_ai_inference azure_ai_openai az_ai_openai az_ai_inference"
    " azure_openai azureopenai azureai"
    " azurechatopenai azure_text azure_ai_foundry azure_foundry azure_ai_studio microsoft"
    " microsoft_foundry anthropic_foundry",
    "baseten": "baseten",
    "cerebras": "cerebras",
    "cloudflare": "cloudflare workers_ai",
    "cohere": "cohere cohere_chat cohere_v2",
    "cursor": "cursor",
    "databricks": "databricks",
    "deepseek": "deepseek deepseek_ai",
    "doubleword": "doubleword",
    "elevenlabs": "elevenlabs",
    "fireworks": "fireworks fireworks_ai",
    "github-copilot": "github_copilot",
    "google": "google gemini gcp gcp_gen_ai gcp_gemini gcp_vertex_ai google_ai google_ai_studio"
    " google_genai"
    " google_generative_ai google_generativeai generativelanguage google_gla google_vertex"
    " google_vertexai google_vertex_ai"
    " vertex vertexai vertex_ai vertex_ai_beta anthropic_vertex",
    "groq": "groq",
    **{
        f"huggingface_{server}": f"huggingface_{server.replace('-', '_')}"
        for server in _BEHIND_HUGGINGFACE
    },
    "meta": "meta llama_api meta_llama_api",
    "minimax": "minimax",
    "mistral": "mistral mistralai mistral_ai codestral",
    "modal": "modal",
    "moonshotai": "moonshotai moonshot moonshot_ai",
    "novita": "novita novita_ai",
    "openai": "openai openai_responses openai_chat text_completion_openai",
    "openai-decisions": "openai_decisions",
    "openrouter": "openrouter",
    "ovhcloud": "ovhcloud",
    "perplexity": "perplexity perplexity_ai pplx",
    "quicksilverpro": "quicksilverpro",
    "together": "together together_ai togetherai",
    "typesafe": "typesafe",
    "voyageai": "voyageai voyage",
    "x-ai": "x_ai xai grok",
    "zai": "zai z_ai",
    "zhipuai": "zhipuai zhipu zhipu_ai bigmodel",
}
"""The ids of genai-prices and their other spellings, with ``_`` for ``.``, ``-`` and spaces."""
_ALIASES: Final = {
    alias: provider for provider, aliases in _PROVIDERS.items() for alias in aliases.split()
}

_NO_PROVIDERS: Final = frozenset(
    [
        "litellm",
        "litellm_proxy",
        "langchain",
        "langgraph",
        "autogen",
        "crewai",
        "vercel",
        "vercel_ai_gateway",
        "gateway",
        "strands",
        "strands_agents",
        "spring_ai",
        "framework",
        "gcp_vertex_agent",
        "pydantic_ai",
        "haystack",
        "llama_index",
        "llamaindex",
        "openai_agents",
        "agno",
        "dspy",
        "smolagents",
        "other",
        "unknown",
    ]
)
"""Frameworks and gateways that telemetry names as the provider; the model's name decides who is
paid.
"""

_RESELLERS: Final = frozenset(
    [
        *(f"huggingface_{server}" for server in _BEHIND_HUGGINGFACE),
        "avian",
        "baseten",
        "cerebras",
        "cloudflare",
        "cursor",
        "databricks",
        "doubleword",
        "fireworks",
        "github-copilot",
        "groq",
        "modal",
        "novita",
        "openrouter",
        "ovhcloud",
        "quicksilverpro",
        "together",
    ]
)
"""Servers of other makers' models at own prices: there ``openai/`` names the maker, not the server.
"""

_KINDS_OF_CALL: Final = re.compile(
    r"(chat|responses?|messages?|completions?|generative[-_]?ai|embeddings?|speech|transcription|image|converse|language)$"
)
_ROUTES: Final = frozenset(
    [
        "chat",
        "responses",
        "completion",
        "converse",
        "converse_like",
        "invoke",
        "global",
        "global-standard",
    ]
)
"""Parts of LiteLLM's names for the way of a call; they have no price of their own."""
_REGION = re.compile(r"(?:us|eu|ap|me|sa|ca|af|il|mx|us-gov)-[a-z]+-\d$")
_BEDROCK = re.compile(
    r"(?:(?:us|eu|apac|ap|jp|au|ca|sa|me|af|us-gov|global)\.)?"
    r"(?:anthropic|amazon|meta|mistral|cohere|ai21|deepseek|openai|qwen|writer|stability|luma|nvidia|google|minimax|moonshot"
    r"|moonshotai|zai|twelvelabs)\.[a-z]"
)
_BEDROCK_AREA = re.compile(r"(?:us|eu|apac|ap|jp|au|ca|sa|me|af|us-gov|global)\.")
_PUBLISHED = re.compile(r"(?:projects/[^/]+/locations/[^/]+/)?publishers/[^/]+/models/")
_DATED = re.compile(
    r"[-@:]?(?:20\d\d-?(?:0[1-9]|1[0-2])-?(?:0[1-9]|[12]\d|3[01])|(?<=[-@])(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]))"
    r"(?:-v\d+(?::\d+)?)?$"
)


def provider_id(provider: str) -> str:
    """The price list's name of a provider; empty for a framework, lower case if unknown."""
    plain = provider.strip().lower()
    name = re.sub(r"[.\-\s]+", "_", plain)
    if name in _NO_PROVIDERS:
        return ""
    while name not in _ALIASES:
        shorter = (
            _KINDS_OF_CALL.sub("", name).rstrip("_")
            if not name.startswith("chat")
            else name.removeprefix("chat")
        )
        if shorter in (name, ""):
            return plain
        name = shorter
    return _ALIASES[name]


@lru_cache(maxsize=4_096)
def possible_names(provider: str, model: str) -> tuple[Name, ...]:
    """Names under which a price list may have a model, the likeliest first."""
    found: dict[Name, None] = {}
    _collect(provider_id(provider), model.strip().lower(), found, depth=0)
    return tuple(found)


def _collect(owner: str, model: str, found: dict[Name, None], depth: int) -> None:
    if not model or depth > 6:
        return
    if (_BEDROCK.match(model) and owner in ("", "aws", "anthropic")) or model.startswith("arn:aws"):
        owner = "aws"
    elif not owner and model.startswith("ft:"):
        owner = "openai"
    routes = list(_without_prefix(owner, model))
    if owner:
        found[Name(owner, model)] = None
    for next_owner, rest in routes:
        _collect(next_owner, rest, found, depth + 1)
    if not owner and not routes:  # a prefix is more reliable than a match of a part of the name
        found[Name("", model)] = None
    if owner == "aws" and (area := _BEDROCK_AREA.match(model)):
        found[Name("aws", model[area.end() :])] = None


def _without_prefix(owner: str, model: str) -> list[tuple[str, str]]:
    published = _PUBLISHED.match(model)
    if published:
        return [(owner or "google", model[published.end() :])]
    if model.startswith("accounts/fireworks/"):
        return [] if owner else [("fireworks", model)]
    if model.startswith("arn:aws"):
        return []
    head, slash, rest = model.partition("/")
    server, colon, _ = head.partition(":")
    if slash and colon and provider_id(server) in _PROVIDERS:  # groq:openai/gpt-oss-120b
        return _served_by(server, model[len(server) + 1 :], owner)
    if slash:
        if head == "models":
            return [(owner or "google", rest)]
        if head in _ROUTES or (owner == "aws" and _REGION.match(head)):
            return [(owner, rest)]
        return _served_by(head, rest, owner)
    head, colon, rest = model.partition(":")
    return _served_by(head, rest, owner) if colon else []


def _served_by(head: str, rest: str, owner: str) -> list[tuple[str, str]]:
    """The part of a name after ``head/`` if that is a server of models; ``head`` is never a
    version.
    """
    named = provider_id(head)
    if not named:
        return [(owner, rest)]
    if named not in _PROVIDERS or (
        owner and named != owner and (owner in _RESELLERS or owner not in _PROVIDERS)
    ):
        return []
    return [(named, rest)]


def undated(model: str) -> str:
    """The model's name without a snapshot date (``gpt-4o-2024-08-06``); empty if it has none."""
    shorter, found = _DATED.subn("", model)
    return shorter if found else ""
