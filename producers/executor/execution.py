"""One attempt in the process that runs its body: the run that records it, and how it is stopped."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast

from stepstream.producers.exceptions import RunStopped
from stepstream.producers.executor.outcome import Outcome, Stop, raised, returned
from stepstream.producers.executor.task import Host, Task
from stepstream.producers.opening import RunFields
from stepstream.producers.scope import Scope
from stepstream.producers.steps import Run
from stepstream.schemas.ids import derived_id
from stepstream.schemas.step import TASK_ATTRIBUTE

if TYPE_CHECKING:
    from stepstream.producers.control.budget import Budget
    from stepstream.producers.engine import Engine
    from stepstream.producers.executor.declared import Agent
    from stepstream.producers.tracer import Tracer
    from stepstream.schemas.alert import Command
    from stepstream.schemas.task_bindings import RunAttempt

_log: Final = logging.getLogger("stepstream.executor")


class AttemptRun(Run):
    """The run of an attempt: its trace id is the one that the scheduler has given."""

    __slots__ = ("_attempt_trace_id",)

    def __init__(self, tracer: Tracer, trace_id: str, fields: RunFields) -> None:
        super().__init__(tracer, None, "agent", "", fields)
        self._attempt_trace_id = trace_id

    def _new_scope(self, engine: Engine) -> Scope:
        trace_id = self._attempt_trace_id
        return Scope(trace_id, engine.labels, engine.run_capture(trace_id))

    @property
    def stoppable(self) -> Any:
        """What takes commands to this run; None while recording is off."""
        return self._control


class Execution:
    """Runs the body of one attempt, once. ``stop`` may be called by any thread, at any time."""

    def __init__(self, agent: Agent, binding: RunAttempt, host: Host, tracer: Tracer) -> None:
        self.agent = agent
        self.binding = binding
        self.task = Task(binding, host, is_async=agent.is_async)
        self._tracer = tracer
        self._pid = os.getpid()
        self._guard = threading.Lock()
        self._stop: Stop | None = None
        self._run: AttemptRun | None = None
        self._target: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None

    def execute(self) -> Outcome:
        """Run a body that is not asynchronous, in this thread."""
        try:
            with self._opened() as run:
                self._began(run)
                result = self.agent.function(self.task)
                run.set_output(result)
        except BaseException as error:
            return self._failed(error)
        finally:
            self._check_process()
        return returned(result)

    async def execute_async(self) -> Outcome:
        """Run an asynchronous body as the current asyncio task."""
        current = asyncio.current_task()
        assert current is not None
        self._target = (asyncio.get_running_loop(), current)
        try:
            async with self._opened() as run:
                self._began(run)
                result = await self.agent.function(self.task)
                run.set_output(result)
        except BaseException as error:
            return self._failed(error)
        finally:
            self._target = None
            self._check_process()
        return returned(result)

    def stop(self, stop: Stop) -> None:
        """Stop the body: its next step raises, an asyncio task is cancelled."""
        with self._guard:
            if self._stop is not None:
                return
            self._stop = stop
            run = self._run
        if run is not None:
            self._deliver(run, stop)

    def _opened(self) -> AttemptRun:
        binding, spec = self.binding, self.agent.spec
        fields: dict[str, Any] = {
            "agent": spec.name,
            "agent_version": spec.version or None,
            "task": self._task_type(),
            "project": binding.project,
            "environment": binding.environment or None,
            "user_id": binding.user_id or None,
            "session_id": binding.session_id or None,
            "input": self.task.input,
            "attributes": {TASK_ATTRIBUTE: binding.task_id},
            "attempt": binding.attempt,
            "budget": _budget_of(self.agent, binding),
            "cancel_on_stop": self.agent.is_async,
        }
        given = {name: value for name, value in fields.items() if value is not None}
        return AttemptRun(self._tracer, binding.trace_id, cast(RunFields, given))

    def _task_type(self) -> str:
        kind = self.agent.task_type
        return kind(self.task.input) if callable(kind) else kind

    def _began(self, run: AttemptRun) -> None:
        self.task.run = run
        with self._guard:
            self._run, stop = run, self._stop
        if stop is not None:
            self._deliver(run, stop)
            raise RunStopped(stop.reason, by=stop.by)

    def _deliver(self, run: AttemptRun, stop: Stop) -> None:
        control = run.stoppable
        if control is not None:
            control.deliver(self._command(stop))
            return
        # Recording is off, so the run takes no commands.
        if self._target is not None:
            loop, task = self._target
            loop.call_soon_threadsafe(task.cancel)

    def _command(self, stop: Stop) -> Command:
        from stepstream.schemas.alert import CommandStruct

        binding = self.binding
        return CommandStruct(
            # As the scheduler's own command, which may arrive as well: taken once.
            command_id=derived_id("task-stop", binding.project, binding.task_id, binding.fence),
            action="stop",
            # After any time that a clock of another machine may show: an approval does not undo it.
            time=2**53,
            project=binding.project,
            trace_id=binding.trace_id,
            reason=stop.reason,
            by=stop.by,
        )

    def _failed(self, error: BaseException) -> Outcome:
        with self._guard:
            stop = self._stop
        outcome = raised(error, stop, self.agent.spec.retry.on)
        if outcome.status == "failed":
            binding = self.binding
            _log.warning(
                "attempt %d of task %s (%s) failed",
                binding.attempt,
                binding.task_id,
                self.agent.label,
                exc_info=error,
            )
        return outcome

    def _check_process(self) -> None:
        """End a forked copy of the process: the attempt belongs to the original one."""
        if os.getpid() != self._pid:
            os._exit(0)


def _budget_of(agent: Agent, binding: RunAttempt) -> Budget | None:
    """The agent's budget, with the amount that the task was submitted with."""
    usd, budget = binding.budget_usd, agent.budget
    if not usd or usd == agent.spec.budget_usd:
        return budget
    # Not at the top: it is imported with the first budget only.
    from stepstream.producers.control.budget import Budget

    return Budget(usd=usd) if budget is None else replace(budget, usd=usd)
