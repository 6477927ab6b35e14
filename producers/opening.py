"""The methods that open steps (``run``, ``llm``, ``tool`` ...), the same on a tracer and a step.

Each returns a ``Step``: a context manager, and also a decorator (``@tool``, ``@tool("search")``,
``@tool(capture_content=False)``).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    ParamSpec,
    Protocol,
    TypedDict,
    TypeVar,
    Unpack,
    cast,
    overload,
)

from stepstream.producers.misuse import opens, text_name

if TYPE_CHECKING:
    from decimal import Decimal

    from stepstream.producers.control.budget import Budget
    from stepstream.schemas.alert import Command
    from stepstream.schemas.release import Release

P = ParamSpec("P")
R = TypeVar("R")


class HasStepId(Protocol):
    """A step, as the value of ``retry_of`` and ``fallback_of``."""

    @property
    def step_id(self) -> str: ...


class HasRelease(Protocol):
    """What ``stepstream.release`` returns, as the value of ``release``."""

    @property
    def agent(self) -> str: ...

    @property
    def document(self) -> Release: ...


class StepFields(TypedDict, total=False):
    """Keyword arguments of the methods that open a step."""

    input: object
    tool: str
    model: str
    provider: str
    tool_schema: str
    attempt: int
    retry_of: HasStepId | str
    fallback_of: HasStepId | str
    attributes: Mapping[str, object]
    capture_content: bool | int
    """False: this step and the steps inside it send the sizes of inputs and outputs only. A number:
    their contents are truncated to this many bytes. True: they are sent whatever the settings."""
    reserve_usd: Decimal | float | str
    """Reserved from the run's budget until the step ends. Default: the highest cost of a step of
    this kind and name in the run so far."""
    reserve_tokens: int
    schema: object
    """For tools: a pydantic model, a type or a JSON Schema. An input that does not fit raises
    ``ArgumentsRefused``."""


class RunFields(TypedDict, total=False):
    """Keyword arguments of the methods that open a run.

    The default of each is the configured value or, inside another run, that run's value.
    """

    input: object
    task: str
    agent: str
    agent_version: str
    session_id: str
    user_id: str
    project: str
    environment: str
    attributes: Mapping[str, object]
    capture_content: bool | int
    budget: Budget
    """What the run may use. The step that would exceed it raises ``BudgetExceeded``."""
    on_command: Callable[[Command], object]
    """Called in another thread with each command that reaches the run."""
    release: HasRelease
    """The release that the run uses. Default: the one that ``release`` loaded for its agent."""
    cancel_on_stop: bool
    """True: a stop cancels the asyncio task that entered the run, and the run's block raises
    ``RunStopped``."""


class SupportsDecoration(Protocol):
    def __call__(self, function: Callable[P, R], /) -> Callable[P, R]: ...


StepT = TypeVar("StepT", bound=SupportsDecoration)
RunT = TypeVar("RunT", bound=SupportsDecoration)


class StepOpener(Generic[StepT, RunT]):
    """The opening methods of ``Tracer``, ``Run`` and ``Step``.

    Generic over the two classes, because both of them inherit from it and it cannot import them.
    """

    __slots__ = ()

    @abstractmethod
    def _opening(self, kind: str, name: str, fields: StepFields) -> StepT: ...

    @abstractmethod
    def _opening_run(self, name: str, fields: RunFields) -> RunT: ...

    @opens(RunFields)
    def run(self, name: str = "", **fields: Unpack[RunFields]) -> RunT:
        """Open a run: what an agent does for one task. Inside a run: the steps of another agent.

        ``task`` is a type of task, such as ``refund``, never a prompt. ``name`` is the agent's
        name, unless ``agent`` is given.
        """
        return self._opening_run(text_name(name), fields)

    @overload
    def agent(self, function: Callable[P, R], /) -> Callable[P, R]: ...

    @overload
    def agent(self, name: str = "", **fields: Unpack[RunFields]) -> RunT: ...

    @opens(RunFields)
    def agent(self, name: Any = "", **fields: Unpack[RunFields]) -> Any:
        """As a decorator: every call of the function is a run, or this agent's part of a run."""
        return _opened(lambda text: self._opening_run(text, fields), name, fields)

    @overload
    def llm(self, function: Callable[P, R], /) -> Callable[P, R]: ...

    @overload
    def llm(self, name: str = "", **fields: Unpack[StepFields]) -> StepT: ...

    @opens(StepFields, "llm_call")
    def llm(self, name: Any = "", **fields: Unpack[StepFields]) -> Any:
        """Open a call of a language model.

        As a decorator: what the function returns is recorded as by ``record_response``.
        """
        return _opened(lambda text: self._opening("llm_call", text, fields), name, fields)

    @overload
    def tool(self, function: Callable[P, R], /) -> Callable[P, R]: ...

    @overload
    def tool(self, name: str = "", **fields: Unpack[StepFields]) -> StepT: ...

    @opens(StepFields, "tool_call")
    def tool(self, name: Any = "", **fields: Unpack[StepFields]) -> Any:
        """Open a tool call. ``name`` is the name by which the model calls the tool."""
        return _opened(lambda text: self._opening("tool_call", text, fields), name, fields)

    @overload
    def retrieval(self, function: Callable[P, R], /) -> Callable[P, R]: ...

    @overload
    def retrieval(self, name: str = "", **fields: Unpack[StepFields]) -> StepT: ...

    @opens(StepFields, "retrieval")
    def retrieval(self, name: Any = "", **fields: Unpack[StepFields]) -> Any:
        """Open a search for documents.

        As a decorator: the documents that the function returns are recorded as by
        ``set_documents``.
        """
        return _opened(lambda text: self._opening("retrieval", text, fields), name, fields)

    @overload
    def step(self, function: Callable[P, R], /) -> Callable[P, R]: ...

    @overload
    def step(self, kind: str = "other", name: str = "", **fields: Unpack[StepFields]) -> StepT: ...

    @opens(StepFields)
    def step(self, kind: Any = "other", name: str = "", **fields: Unpack[StepFields]) -> Any:
        """Open a step of any kind: plan, tool_selection, state_update, guardrail, evaluation,
        output, other ..."""
        if callable(kind) and "input" not in fields:
            return self._opening("other", "", fields)(kind)
        return self._opening(text_name(kind), text_name(name), fields)

    def attempt(
        self,
        name: str,
        function: Callable[..., Any],
        /,
        *args: Any,
        retries: int = 0,
        fallback: Callable[..., Any] | None = None,
        retry_on: tuple[type[Exception], ...] = (Exception,),
        wait_s: float = 0.1,
        kind: str = "tool_call",
        schema: object = None,
        **kwargs: Any,
    ) -> Any:
        """Call ``function``; retry it up to ``retries`` times, then call ``fallback``.

        Each try is a step of its own. Returns the first result (an awaitable if the function is
        asynchronous) or raises the last error. Waits ``wait_s`` before the first retry, and twice
        as long before each further one. A stopped run and an exceeded budget are not retried.
        """
        # Not at the top: most programs never call it, and it would slow `import stepstream`.
        from stepstream.producers import attempts

        plan = attempts.Plan(
            cast(Any, self._opening),
            kind,
            name,
            function,
            args,
            kwargs,
            retries=retries,
            fallback=fallback,
            retry_on=retry_on,
            wait_s=wait_s,
            schema=schema,
        )
        return attempts.attempt(plan)


def _opened(
    opening: Callable[[str], SupportsDecoration], name: object, fields: Mapping[str, object]
) -> Any:
    """Return the opened step or, if ``name`` is a function, the decorated function.

    With ``input`` among the fields a function is no decoration but a wrong name: a decorator
    records the arguments as input.
    """
    if type(name) is str:
        return opening(name)
    if "input" not in fields and (callable(name) or issubclass(type(name), classmethod)):
        return opening("")(cast(Callable[..., Any], name))
    return opening(text_name(name))
