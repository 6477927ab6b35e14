"""``stepstream.Executor``: the agents that a program offers to run as tasks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

from stepstream.producers.executor.declared import (
    DEFAULT_GRACE,
    DEFAULT_TIMEOUT,
    Agent,
    Isolation,
    ReadyCheck,
    Retry,
    TaskType,
    agent_label,
    declare,
    fallback_cycle,
    lease_us,
)
from stepstream.producers.tracer import public_tracer
from stepstream.schemas.task_common import MAX_AGENTS, OnBusy

if TYPE_CHECKING:
    from stepstream.producers.control.budget import Budget
    from stepstream.producers.tracer import Tracer
    from stepstream.schemas.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])


class Executor:
    """Agents that run as durable tasks::

        app = stepstream.Executor(project="shop")

        @app.agent("refund", version="v13", slots=4, timeout="10m", retry=Retry(3))
        async def refund(task: stepstream.Task) -> str: ...

    ``stepstream executor module:app --slots 8`` runs them. ``project`` is by default that of the
    settings. An attempt is lost when the executor's heartbeats have not arrived for ``lease``.
    ``tracer`` records the runs of attempts; by default the one of the functions of ``stepstream``.
    """

    def __init__(
        self,
        project: str | None = None,
        *,
        lease: str | float | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        if project is not None and (not isinstance(project, str) or not project):
            raise ValueError(f"Executor(project={project!r}): the name of a project")
        try:
            lease_us(lease)
        except ValueError as error:
            raise ValueError(f"Executor({error})") from None
        self.project = project
        self._lease = lease
        self._tracer = tracer
        self._agents: dict[tuple[str, str], Agent] = {}
        self._checks: list[ReadyCheck] = []

    # The parameters are those of ``declare``; here their names and types are for editors.
    @overload
    def agent(self, name: F, /) -> F: ...

    @overload
    def agent(
        self,
        name: str = "",
        *,
        version: str = "",
        slots: int | None = None,
        max_running: int | None = None,
        timeout: str | float | None = DEFAULT_TIMEOUT,
        lease: str | float | None = None,
        retry: Retry | int | None = None,
        fallback: str = "",
        budget: Budget | None = None,
        key: str = "",
        on_busy: OnBusy = "enqueue",
        idempotent: bool = False,
        isolation: Isolation = "thread",
        grace: str | float = DEFAULT_GRACE,
        task: TaskType = "",
    ) -> Callable[[F], F]: ...

    def agent(self, name: Any = "", **settings: Any) -> Any:
        """As a decorator: the function is an agent. It gets a ``Task`` and returns its result.

        - ``name``: of the agent; default: the function's. ``version``: tasks may ask for one.
        - ``slots``: attempts of this agent at a time in this executor; ``max_running``: in all.
        - ``timeout``: limit of an attempt; None: no limit. ``grace``: time to stop after it.
        - ``retry``: attempts at most, or ``Retry(...)``. By default an attempt that has started is
          never followed by another one. ``idempotent``: one whose lease was lost may be.
        - ``fallback``: the agent that gets the task when no attempt is left.
        - ``budget``: what a run may use.
        - ``key``: tasks with the same value of this field run one after another: ``session_id``,
          ``user_id`` or ``input.NAME``. ``on_busy``: what a further task with the key does:
          ``enqueue``, ``reject``, ``interrupt`` or ``replace``.
        - ``isolation``: ``process`` runs attempts in a process of their own, which can be ended.
        - ``task``: the task type of runs, or a function that returns it for the input; default:
          the agent's name.

        Raises ``ValueError`` for what cannot be.
        """
        if inspect.isroutine(name):
            return self._declare(name, "", settings)
        return lambda function: self._declare(function, name, settings)

    def _declare(self, function: F, name: str, settings: dict[str, Any]) -> F:
        settings.setdefault("lease", self._lease)
        agent = declare(function, name, **settings)
        place = (agent.spec.name, agent.spec.version)
        if place in self._agents:
            raise ValueError(f"agent {agent.label} is declared twice")
        if len(self._agents) >= MAX_AGENTS:
            raise ValueError(f"an executor has at most {MAX_AGENTS} agents")
        self._agents[place] = agent
        if cycle := fallback_cycle(self.agents):
            del self._agents[place]
            raise ValueError(f"fallbacks lead back: {' -> '.join(cycle)}")
        return function

    def ready(self, function: F) -> F:
        """As a decorator: the function is called every few seconds, also asynchronous ones.

        While it returns False, raises, or does not return, the executor gets no new attempts.
        """
        if not callable(function):
            raise ValueError(f"@app.ready: {function!r} is no function")
        self._checks.append(function)
        return function

    @property
    def agents(self) -> Sequence[Agent]:
        """The declared agents."""
        return tuple(self._agents.values())

    @property
    def checks(self) -> Sequence[ReadyCheck]:
        """The functions of ``ready``."""
        return tuple(self._checks)

    @property
    def tracer(self) -> Tracer:
        """What records the runs."""
        return self._tracer or public_tracer()

    def find(self, name: str, version: str = "") -> Agent | None:
        """An agent; without a version any one of this name."""
        if version:
            return self._agents.get((name, version))
        exact = self._agents.get((name, ""))
        return exact or next((one for one in self.agents if one.spec.name == name), None)

    def run(
        self,
        *,
        slots: int = 1,
        drain: str | float = "25s",
        target: str = "",
        settings: Settings | None = None,
    ) -> int:
        """Run the agents until SIGTERM; returns the exit code, see ``stepstream executor``.

        For the main thread. ``target`` is ``module:app`` of this executor, which
        ``isolation="process"`` needs.
        """
        from stepstream.producers.executor.service import run

        return run(self, slots=slots, drain=drain, target=target, settings=settings)

    def __repr__(self) -> str:
        names = ", ".join(agent_label(*place) for place in self._agents)
        return f"<Executor {self.project or ''} {names or 'without agents'}>"
