"""The ways to open a step, the same on a tracer, a run, a step and on the module: ``run``, ``llm``, ``tool`` ...

Each gives a ``Step`` for ``with``, and is a decorator too: ``@tool``, ``@tool("search")``, ``@tool(capture_content=False)``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypedDict, TypeVar, Unpack, cast, overload

from stepstream.producers.misuse import opens, text_name

if TYPE_CHECKING:
    from decimal import Decimal

    from stepstream.producers.control.budget import Budget
    from stepstream.producers.steps import Run, Step
    from stepstream.schemas.alert import Command

P = ParamSpec("P")
R = TypeVar("R")


class StepFields(TypedDict, total=False):
    """What may be known when a step opens."""

    input: object
    tool: str
    model: str
    provider: str
    tool_schema: str
    attempt: int
    retry_of: Step | str
    fallback_of: Step | str
    attributes: Mapping[str, object]
    capture_content: bool
    """False: this step and those inside send no inputs and outputs, only their sizes."""
    reserve_usd: Decimal | float | str
    """What is set aside of the run's budget until the step ends; without it, the most that such a step has cost."""
    reserve_tokens: int
    schema: object
    """Of a tool: a pydantic model, a type or a JSON Schema that the input must fit, else ``ArgumentsRefused`` is raised."""


class RunFields(TypedDict, total=False):
    """What may be known when a run opens. What is not given is as configured, or as in the run around it."""

    input: object
    task: str
    agent: str
    agent_version: str
    session_id: str
    user_id: str
    project: str
    environment: str
    attributes: Mapping[str, object]
    capture_content: bool
    budget: Budget
    """What the run may use: the step that does not fit any more raises ``BudgetExceeded``."""
    on_command: Callable[[Command], object]
    """Called, in another thread, with each command that reaches the run."""
    cancel_on_stop: bool
    """True: a stop cancels the asyncio task that the run was entered in, and leaves the run as ``RunStopped``."""


class Opens:
    """Opens steps; ``Tracer``, ``Run`` and ``Step`` do."""

    __slots__ = ()

    @abstractmethod
    def _opening(self, kind: str, name: str, fields: StepFields) -> Step: ...

    @abstractmethod
    def _opening_run(self, name: str, fields: RunFields) -> Run: ...

    @opens(RunFields)
    def run(self, name: str = "", **fields: Unpack[RunFields]) -> Run:
        """A run: what an agent does for one task. Inside a run: the part that another agent does.

        ``task`` is a type of task, such as ``refund``, never a prompt. ``name`` is the agent's, unless given.
        """
        return self._opening_run(text_name(name), fields)

    @overload
    def agent(self, function: Callable[P, R], /) -> Callable[P, R]: ...

    @overload
    def agent(self, name: str = "", **fields: Unpack[RunFields]) -> Run: ...

    @opens(RunFields)
    def agent(self, name: Any = "", **fields: Unpack[RunFields]) -> Any:
        """As a decorator: every call of the function is a run, or the part of a run that this agent does."""
        return _opened(lambda text: self._opening_run(text, fields), name, fields)

    @overload
    def llm(self, function: Callable[P, R], /) -> Callable[P, R]: ...

    @overload
    def llm(self, name: str = "", **fields: Unpack[StepFields]) -> Step: ...

    @opens(StepFields)
    def llm(self, name: Any = "", **fields: Unpack[StepFields]) -> Any:
        """A call of a language model. Decorated functions: what they return is read as by ``record_response``."""
        return _opened(lambda text: self._opening("llm_call", text, fields), name, fields)

    @overload
    def tool(self, function: Callable[P, R], /) -> Callable[P, R]: ...

    @overload
    def tool(self, name: str = "", **fields: Unpack[StepFields]) -> Step: ...

    @opens(StepFields)
    def tool(self, name: Any = "", **fields: Unpack[StepFields]) -> Any:
        """A call of a tool, named as the model knows it."""
        return _opened(lambda text: self._opening("tool_call", text, fields), name, fields)

    @overload
    def retrieval(self, function: Callable[P, R], /) -> Callable[P, R]: ...

    @overload
    def retrieval(self, name: str = "", **fields: Unpack[StepFields]) -> Step: ...

    @opens(StepFields)
    def retrieval(self, name: Any = "", **fields: Unpack[StepFields]) -> Any:
        """A search for documents. Decorated functions: the documents they return are recorded as such."""
        return _opened(lambda text: self._opening("retrieval", text, fields), name, fields)

    @overload
    def step(self, function: Callable[P, R], /) -> Callable[P, R]: ...

    @overload
    def step(self, kind: str = "other", name: str = "", **fields: Unpack[StepFields]) -> Step: ...

    @opens(StepFields)
    def step(self, kind: Any = "other", name: str = "", **fields: Unpack[StepFields]) -> Any:
        """A step of any kind: plan, tool_selection, state_update, guardrail, evaluation, output, other ..."""
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
        """Call ``function``, up to ``retries`` times again when it fails, then ``fallback``: each try a step of its own.

        Returns the first result (awaitable where the function is asynchronous), or raises the last error. Between tries it
        waits ``wait_s``, doubled each time. What is stopped, or beyond its budget, is not tried again.
        """
        from stepstream.producers.attempts import Plan, attempt

        plan = Plan(
            self, kind, name, function, args, kwargs,
            retries=retries, fallback=fallback, retry_on=retry_on, wait_s=wait_s, schema=schema,
        )  # fmt: skip
        return attempt(plan)


def _opened(opening: Callable[[str], Step], name: object, fields: Mapping[str, object]) -> Any:
    """The step of that name; of a function, the decorated function, unless an input says that this is one call of it."""
    if type(name) is str:
        return opening(name)
    if "input" not in fields and (callable(name) or issubclass(type(name), classmethod)):
        return opening("")(cast(Callable[..., Any], name))
    return opening(text_name(name))
