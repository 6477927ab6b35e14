"""LangChain and LangGraph by their callbacks: a handler that is part of every run."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any
from uuid import UUID

from langchain_core.callbacks.base import BaseCallbackHandler
from langchain_core.tracers import context as langchain_context

from stepstream.producers.instruments.calls import Switch
from stepstream.producers.instruments.frames import OpenSteps
from stepstream.producers.steps import Step


class Handler(BaseCallbackHandler):
    """Records chains, graph nodes, model calls, tools and retrievers as steps."""

    # In the caller's own context, so that the step is current for what is called next.
    run_inline = True
    # Only RunStopped and BudgetExceeded leave a method here, and they have to stop the chain.
    raise_error = True

    def __init__(self, switch: Switch) -> None:
        self._steps = OpenSteps(switch)

    def on_chain_start(
        self,
        serialized: dict[str, Any] | None,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        name = _name(serialized, kwargs, "chain")
        node = (metadata or {}).get("langgraph_node")

        def make(parent: Any) -> Step:
            is_root = parent_run_id is None and parent.current_step() is None
            if is_root:
                session = (metadata or {}).get("thread_id") or (metadata or {}).get("session_id")
                session_id = session if type(session) is str else None
                return parent.run(name, input=inputs, session_id=session_id)  # type: ignore[no-any-return]
            kind = "state_update" if node is not None and node == name else "other"
            return parent.step(kind, name, input=inputs)  # type: ignore[no-any-return]

        self._steps.begin(run_id, parent_run_id, make)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._steps.end(run_id, lambda step: step.set_output(outputs))

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._steps.end(run_id, error=error)

    def on_chat_model_start(
        self,
        serialized: dict[str, Any] | None,
        messages: list[list[Any]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        asked: Any = messages[0] if len(messages) == 1 else messages
        self._begin_model(serialized, asked, run_id, parent_run_id, metadata, kwargs)

    def on_llm_start(
        self,
        serialized: dict[str, Any] | None,
        prompts: list[str],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        asked: Any = prompts[0] if len(prompts) == 1 else prompts
        self._begin_model(serialized, asked, run_id, parent_run_id, metadata, kwargs)

    def _begin_model(
        self,
        serialized: dict[str, Any] | None,
        asked: Any,
        run_id: UUID,
        parent_run_id: UUID | None,
        metadata: dict[str, Any] | None,
        kwargs: dict[str, Any],
    ) -> None:
        given, named = kwargs.get("invocation_params") or {}, metadata or {}
        model = str(given.get("model") or given.get("model_name") or named.get("ls_model_name", ""))
        provider = _PROVIDERS.get(str(named.get("ls_provider", "")), "")
        name = _name(serialized, kwargs, "model")
        self._steps.begin(
            run_id,
            parent_run_id,
            lambda parent: parent.llm(name, model=model, provider=provider, input=asked),
        )

    def on_llm_new_token(self, token: str, *, run_id: UUID, **kwargs: Any) -> None:
        step = self._steps.get(run_id)
        if step is not None:
            step.record_first_token()

    def on_llm_end(self, response: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._steps.end(run_id, lambda step: step.record_response(response))

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._steps.end(run_id, error=error)

    def on_tool_start(
        self,
        serialized: dict[str, Any] | None,
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        inputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        name = _name(serialized, kwargs, "tool")
        given = inputs if inputs is not None else input_str
        self._steps.begin(run_id, parent_run_id, lambda parent: parent.tool(name, input=given))

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        def record(step: Step) -> None:
            step.set_output(getattr(output, "content", output))
            if getattr(output, "status", "") == "error":
                step.set_error(str(getattr(output, "content", ""))[:4_096])

        self._steps.end(run_id, record)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._steps.end(run_id, error=error)

    def on_retriever_start(
        self,
        serialized: dict[str, Any] | None,
        query: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        name = _name(serialized, kwargs, "retriever")
        self._steps.begin(run_id, parent_run_id, lambda parent: parent.retrieval(name, input=query))

    def on_retriever_end(self, documents: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._steps.end(run_id, lambda step: step.set_documents(documents))

    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._steps.end(run_id, error=error)


_PROVIDERS = {
    "openai": "openai",
    "anthropic": "anthropic",
    "azure": "azure",
    "google_genai": "google",
    "google_vertexai": "google",
    "amazon_bedrock": "aws",
    "mistral": "mistral",
    "cohere": "cohere",
    "groq": "groq",
    "deepseek": "deepseek",
    "xai": "x-ai",
}


def _name(serialized: dict[str, Any] | None, kwargs: dict[str, Any], default: str) -> str:
    found = kwargs.get("name") or (serialized or {}).get("name")
    if not found:
        path = (serialized or {}).get("id")
        found = path[-1] if isinstance(path, list) and path else default
    return str(found)


def add_handler(switch: Switch) -> Callable[[], None]:
    """Add the handler to every run of LangChain. Returns what removes it."""
    # LangChain reads the variable in the context of each run; the default is the same in all.
    handler = Handler(switch)
    variable: ContextVar[Any] = ContextVar("stepstream_langchain", default=handler)
    langchain_context.register_configure_hook(variable, inheritable=True)
    hooks: list[Any] = langchain_context._configure_hooks

    def remove() -> None:
        hooks[:] = [hook for hook in hooks if hook[0] is not variable]

    return remove
