"""Stepstream: records every step of an AI agent while it happens.

    import stepstream

    with stepstream.run(task="refund", input=question) as run:
        with run.llm("plan", model="gpt-4o", provider="openai") as step:
            step.record_response(client.chat.completions.create(...))
        with run.tool("lookup_order", input={"order": 7}) as step:
            step.set_output(lookup_order(7))
        run.set_output(answer)

A step never waits for a network; ``release``, ``send_command``, ``flush``, ``close``, ``query`` and
``subscribe`` do. Seven exceptions are raised into your program while it records, and only if you
use what causes them: ``RunStopped``, ``BudgetExceeded``, ``StepRefused``, ``ArgumentsRefused``, for
releases ``ReleaseUnavailable`` and ``PromptError``, and for ``send_command`` ``CommandNotSent``.
"""

# The import loads what the first step needs, so that the step does not wait for it, but no Kafka
# client, price list, stream processor, store or web framework: those are loaded when they are used.

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from stepstream.common.settings import load_with_others as _load_with_others
from stepstream.producers.error_guard import never_raises as _never_raises
from stepstream.producers.exceptions import (
    ArgumentsRefused,
    BudgetExceeded,
    ReleaseUnavailable,
    RunStopped,
    StepRefused,
)
from stepstream.producers.propagation import propagate
from stepstream.producers.sdk_log import internal_error as _internal_error
from stepstream.producers.sdk_log import sdk_log as _sdk_log
from stepstream.producers.steps import Run, Step
from stepstream.producers.tracer import Tracer
from stepstream.producers.tracer import make_public as _make_public

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from stepstream.producers.control.budget import Budget, BudgetWarning
    from stepstream.producers.executor.app import Executor
    from stepstream.producers.executor.declared import CriteriaFailed, LostLease, Retry, Timeout
    from stepstream.producers.executor.task import Task
    from stepstream.producers.recordings.recorded import recorded
    from stepstream.producers.releases.agent_release import AgentRelease
    from stepstream.producers.tasks.handle import TaskCancelled, TaskFailed, TaskHandle
    from stepstream.producers.tasks.submit import submit, task
    from stepstream.producers.tasks.ways import TaskNotSent
    from stepstream.producers.transport.base import Transport
    from stepstream.producers.transport.memory import MemoryTransport
    from stepstream.queries.query import query
    from stepstream.schemas.alert import Command
    from stepstream.schemas.documents import Prices
    from stepstream.schemas.release import PromptError
    from stepstream.schemas.settings import Settings
    from stepstream.schemas.step import Document
    from stepstream.sinks.subscribe import asubscribe, on_alert, subscribe

__all__ = [
    "AgentRelease",
    "ArgumentsRefused",
    "Budget",
    "BudgetExceeded",
    "BudgetWarning",
    "Command",
    "CommandNotSent",
    "CriteriaFailed",
    "Document",
    "Executor",
    "LostLease",
    "MemoryTransport",
    "Prices",
    "PromptError",
    "ReleaseUnavailable",
    "Retry",
    "Run",
    "RunStopped",
    "Settings",
    "Step",
    "StepRefused",
    "Task",
    "TaskCancelled",
    "TaskFailed",
    "TaskHandle",
    "TaskNotSent",
    "Timeout",
    "Tracer",
    "agent",
    "asubscribe",
    "attempt",
    "close",
    "configure",
    "continue_run",
    "current_run",
    "current_step",
    "flush",
    "guardrails",
    "instrument",
    "llm",
    "on_alert",
    "propagate",
    "query",
    "recorded",
    "release",
    "retrieval",
    "run",
    "send_command",
    "step",
    "submit",
    "subscribe",
    "task",
    "tool",
    "trace_environment",
    "trace_headers",
    "trace_kafka_headers",
    "uninstrument",
]


def _settings(**given: Any) -> Settings:
    """The settings in force. A ``STEPSTREAM_*`` variable that is not a setting is logged."""
    settings, unknown = _load_with_others(**given)
    for text in unknown:
        _sdk_log.log(text, f"stepstream: {text}; the other settings apply")
    return settings


_tracer = _make_public(Tracer(_settings))

run = _tracer.run
agent = _tracer.agent
llm = _tracer.llm
tool = _tracer.tool
retrieval = _tracer.retrieval
step = _tracer.step
attempt = _tracer.attempt
flush = _tracer.flush
close = _tracer.close
release = _tracer.release
guardrails = _tracer.guardrails
continue_run = _tracer.continue_run
trace_headers = _tracer.trace_headers
trace_kafka_headers = _tracer.trace_kafka_headers
trace_environment = _tracer.trace_environment
current_run = _tracer.current_run
current_step = _tracer.current_step


# The settings that most programs set have a name here, so that editors and type checkers know them.
@_never_raises
def configure(  # noqa: PLR0913
    *,
    project: str | None = None,
    environment: str | None = None,
    agent: str | None = None,
    agent_version: str | None = None,
    endpoint: str | None = None,
    enabled: bool | None = None,
    capture_content: bool | None = None,
    max_content_bytes: int | None = None,
    quiet: bool | None = None,
    redact: Callable[[str], str] | None = None,
    prices: Sequence[Prices] = (),
    transport: Transport | None = None,
    **settings: Any,
) -> None:
    """Set what the functions of this module record and where it goes, from the next step on.

    Every setting may be given by name (``stepstream settings`` lists them). A setting that is not
    given comes from a ``STEPSTREAM_*`` variable, a settings file or a running ``stepstream up``.
    ``redact`` is applied to every text after the built-in redaction, ``prices`` take precedence
    over the built-in list, ``transport`` replaces Kafka.

    Never raises: wrong settings print a line on stderr, and nothing is recorded.
    """
    given = {
        "project": project,
        "environment": environment,
        "agent": agent,
        "agent_version": agent_version,
        "endpoint": endpoint,
        "enabled": enabled,
        "capture_content": capture_content,
        "max_content_bytes": max_content_bytes,
        "quiet": quiet,
        **settings,
    }

    _tracer.configure(lambda: _settings(**given), transport=transport, redact=redact, prices=prices)


_instruments: Any = None


def _all_instruments() -> Any:
    global _instruments
    if _instruments is None:
        from stepstream.producers.instruments.instruments import Instruments

        _instruments = Instruments(_tracer)
    return _instruments


def instrument(*names: str) -> tuple[str, ...]:
    """Record every call of the model clients and frameworks that are installed.

    Known names: openai, anthropic, google, mistral, cohere, litellm, bedrock, langchain (with
    LangGraph) and openai_agents; without names all of them. Returns the names of those that are
    installed. Call it before clients are made; a package may be imported later. Results and
    exceptions stay those of the clients. In a run that was stopped or has used up its budget a
    call raises ``RunStopped`` or ``BudgetExceeded``. Never raises.
    """
    try:
        found: tuple[str, ...] = _all_instruments().on(names)
        return found
    except Exception as error:
        _internal_error("instrument", error)
        return ()


@_never_raises
def uninstrument() -> None:
    """Restore everything that ``instrument`` replaced."""
    _all_instruments().off()


# Imported when they are first used, because most agents never use them.
_LATER = {
    "AgentRelease": "stepstream.producers.releases.agent_release",
    "Budget": "stepstream.producers.control.budget",
    "BudgetWarning": "stepstream.producers.control.budget",
    "Command": "stepstream.schemas.alert",
    "Document": "stepstream.schemas.step",
    "MemoryTransport": "stepstream.producers.transport.memory",
    "Prices": "stepstream.schemas.documents",
    "PromptError": "stepstream.schemas.release",
    "Settings": "stepstream.schemas.settings",
    "CriteriaFailed": "stepstream.producers.executor.declared",
    "Executor": "stepstream.producers.executor.app",
    "LostLease": "stepstream.producers.executor.declared",
    "Retry": "stepstream.producers.executor.declared",
    "Task": "stepstream.producers.executor.task",
    "TaskCancelled": "stepstream.producers.tasks.handle",
    "TaskFailed": "stepstream.producers.tasks.handle",
    "TaskHandle": "stepstream.producers.tasks.handle",
    "TaskNotSent": "stepstream.producers.tasks.ways",
    "Timeout": "stepstream.producers.executor.declared",
    "asubscribe": "stepstream.sinks.subscribe",
    "submit": "stepstream.producers.tasks.submit",
    "task": "stepstream.producers.tasks.submit",
    "query": "stepstream.queries.query",
    "recorded": "stepstream.producers.recordings.recorded",
    "CommandNotSent": "stepstream.admin.gateway_commands",
    "send_command": "stepstream.admin.gateway_commands",
    "on_alert": "stepstream.sinks.subscribe",
    "subscribe": "stepstream.sinks.subscribe",
}


def __getattr__(name: str) -> Any:
    if name == "otel":
        return importlib.import_module("stepstream.otel")
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(_LATER[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
