"""The executors of one project: what they offer, what they run, and who gets the next attempt.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from stepstream.schemas.suggestions import did_you_mean
from stepstream.schemas.task_common import DEFAULT_LEASE_US, AgentSpec
from stepstream.schemas.task_state import ExecutorState

Target = tuple[str, str]
"""Agent and version; an empty version stands for any."""

MAX_EXECUTORS: Final = 10_000
"""Executors known of a project; of more the oldest ones that have ended are forgotten."""
TAKES: Final = frozenset({"ready"})
ALIVE: Final = frozenset({"ready", "not_ready", "draining"})
MAX_CHAIN: Final = 20


def name_of(target: Target) -> str:
    """``refund@v13``, or ``refund`` for any version."""
    agent, version = target
    return f"{agent}@{version}" if version else agent


def target_of(name: str) -> Target:
    """``refund@v13`` as agent and version."""
    agent, _, version = name.partition("@")
    return agent, version


class Executor:
    """One executor. ``state`` is its record as it was last published."""

    __slots__ = ("by_agent", "lease_until_us", "running", "specs", "state")

    def __init__(self, state: ExecutorState) -> None:
        self.state = state
        self.specs: dict[Target, AgentSpec] = {
            (spec.name, spec.version): spec for spec in state.agents
        }
        self.running: dict[str, Target] = {}
        """The agent (with its version) of each task that is bound to it."""
        self.by_agent: dict[Target, int] = {}
        self.lease_until_us = 0

    @property
    def id(self) -> str:
        """Its id."""
        return self.state.executor_id

    @property
    def is_alive(self) -> bool:
        """Whether it has neither left nor been lost."""
        return self.state.state in ALIVE

    @property
    def lease_us(self) -> int:
        """After so long without a heartbeat it is lost: the longest lease of its agents."""
        return max((spec.lease_us for spec in self.specs.values()), default=DEFAULT_LEASE_US)

    @property
    def free(self) -> int:
        """Slots without an attempt."""
        return self.state.slots - len(self.running)

    def spec_for(self, target: Target) -> AgentSpec | None:
        """How it runs an agent; of several versions the last one that it names."""
        if target[1]:
            return self.specs.get(target)
        found = [spec for (name, _), spec in self.specs.items() if name == target[0]]
        return found[-1] if found else None

    def room_for(self, target: Target) -> AgentSpec | None:
        """The agent's settings if a slot is free for it; else None."""
        if self.state.state not in TAKES or self.free <= 0:
            return None
        spec = self.spec_for(target)
        if spec is None or not spec.slots:
            return spec
        return spec if self.by_agent.get((spec.name, spec.version), 0) < spec.slots else None


class Fleet:
    """All executors of a project."""

    def __init__(self) -> None:
        self.executors: dict[str, Executor] = {}
        self._specs: dict[Target, AgentSpec] = {}
        """The newest settings of each agent and version, and of each agent (version empty)."""
        self._serving: dict[Target, dict[str, Executor]] = {}
        self._running: dict[Target, int] = {}
        """Attempts over all executors by agent and version, for the limit ``max_running``."""

    # -- who offers what ---------------------------------------------------------------------------

    def add(self, executor: Executor) -> None:
        """Add an executor, or replace it by one with other agents. Its attempts stay."""
        before = self.executors.get(executor.id)
        if before is not None:
            self._stop_serving(before)
            executor.running, executor.by_agent = before.running, before.by_agent
        self.executors[executor.id] = executor
        for target, spec in executor.specs.items():
            self._specs[target] = self._specs[target[0], ""] = spec
        if executor.is_alive:
            self._serve(executor)
        self._bound()

    def retire(self, executor: Executor) -> None:
        """It has left or was lost."""
        self._stop_serving(executor)

    def revive(self, executor: Executor) -> None:
        """It was lost and is back."""
        self._serve(executor)

    def _serve(self, executor: Executor) -> None:
        for agent, version in executor.specs:
            for target in ((agent, version), (agent, "")):
                self._serving.setdefault(target, {})[executor.id] = executor

    def _stop_serving(self, executor: Executor) -> None:
        for agent, version in executor.specs:
            for target in ((agent, version), (agent, "")):
                serving = self._serving.get(target)
                if serving is not None:
                    serving.pop(executor.id, None)
                    if not serving:
                        del self._serving[target]

    def _bound(self) -> None:
        if len(self.executors) <= MAX_EXECUTORS:
            return
        for executor_id, executor in list(self.executors.items()):
            if not executor.is_alive and not executor.running:
                del self.executors[executor_id]
            if len(self.executors) <= MAX_EXECUTORS:
                return

    def serves(self, target: Target) -> bool:
        """Whether an executor that is alive offers the agent."""
        return target in self._serving

    def targets(self) -> Iterable[Target]:
        """The agents that are offered."""
        return self._serving

    def spec(self, target: Target) -> AgentSpec | None:
        """The newest settings of an agent."""
        return self._specs.get(target)

    def missing(self, target: Target) -> str:
        """Why no executor runs an agent, with the nearest name."""
        agent, version = target
        versions = [v for name, v in self._serving if name == agent and v]
        if version and versions:
            return f"no executor for {name_of(target)}: {did_you_mean(version, sorted(versions))}"
        names = sorted({name for name, _ in self._serving if name != agent})
        if not names:
            return f"no executor for {name_of(target)}"
        hint = did_you_mean(agent, names, otherwise="-")
        return f"no executor for {name_of(target)}{'' if hint == '-' else f': {hint}'}"

    def differing(self, executor_id: str, specs: Iterable[AgentSpec]) -> str:
        """Which settings of agents differ from those of another executor that is alive."""
        for spec in specs:
            for other in self._serving.get((spec.name, spec.version), {}).values():
                theirs = other.specs.get((spec.name, spec.version))
                if other.id == executor_id or theirs is None or theirs == spec:
                    continue
                fields = [
                    name
                    for name in ("timeout_us", "lease_us", "retry", "fallback", "budget_usd",
                                 "key_field", "on_busy", "idempotent", "max_running")
                    if getattr(theirs, name) != getattr(spec, name)
                ]  # fmt: skip
                if fields:
                    agent = name_of((spec.name, spec.version))
                    return (
                        f"{agent} differs from executor {other.id} in {', '.join(fields)}:"
                        " the newest settings count"
                    )
        return ""

    def fallback_cycle(self, specs: Iterable[AgentSpec]) -> str:
        """The fallbacks among these agents and the known ones that lead back; empty if none do."""
        fallback = {name: spec.fallback for (name, _), spec in self._specs.items()}
        specs = list(specs)
        fallback.update({spec.name: spec.fallback for spec in specs})
        for spec in specs:
            chain = [spec.name]
            while len(chain) <= MAX_CHAIN and (following := fallback.get(chain[-1], "")):
                name = following.partition("@")[0]
                chain.append(name)
                if name in chain[:-1]:
                    return " -> ".join(chain)
        return ""

    # -- who runs what -----------------------------------------------------------------------------

    def choose(self, target: Target) -> tuple[Executor, AgentSpec] | None:
        """The executor with most free slots that has room for the agent; None without one."""
        best: tuple[Executor, AgentSpec] | None = None
        for executor in self._serving.get(target, {}).values():
            if best is not None and executor.free <= best[0].free:
                continue
            spec = executor.room_for(target)
            if spec is not None and not self._is_at_limit(spec):
                best = executor, spec
        return best

    def _is_at_limit(self, spec: AgentSpec) -> bool:
        newest = self._specs.get((spec.name, spec.version), spec)
        limit = newest.max_running
        return bool(limit) and self._running.get((spec.name, spec.version), 0) >= limit

    def took(self, executor: Executor, task_id: str, target: Target) -> None:
        """An attempt was bound to it; ``target`` with the version that it runs."""
        executor.running[task_id] = target
        executor.by_agent[target] = executor.by_agent.get(target, 0) + 1
        self._running[target] = self._running.get(target, 0) + 1

    def gave_back(self, executor_id: str, task_id: str) -> None:
        """An attempt has ended, wherever that was noticed."""
        executor = self.executors.get(executor_id)
        target = None if executor is None else executor.running.pop(task_id, None)
        if executor is None or target is None:
            return
        _decrease(executor.by_agent, target)
        _decrease(self._running, target)


def _decrease(counts: dict[Target, int], target: Target) -> None:
    left = counts.get(target, 0) - 1
    if left > 0:
        counts[target] = left
    else:
        counts.pop(target, None)
