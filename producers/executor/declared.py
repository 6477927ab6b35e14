"""What a program declares: agents, and how their attempts are repeated. Pure.

Each bad argument raises ``ValueError`` where the agent is declared, with what to write instead.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, get_args

from stepstream.schemas.durations import parse_duration_us
from stepstream.schemas.suggestions import did_you_mean
from stepstream.schemas.task_common import (
    DEFAULT_LEASE_US,
    MAX_ATTEMPTS,
    MAX_DURATION_US,
    MAX_LEASE_US,
    MAX_NAME_CHARS,
    MAX_SLOTS,
    MIN_LEASE_US,
    AgentSpecStruct,
    OnBusy,
    RetrySpecStruct,
)

if TYPE_CHECKING:
    from stepstream.producers.control.budget import Budget
    from stepstream.producers.tracer import Tracer
    from stepstream.schemas.task_common import AgentSpec

Isolation = Literal["thread", "process"]
ReadyCheck = Callable[[], Any]
TaskType = str | Callable[[Any], str]
"""The task type of an agent's runs, or a function that returns it for an input."""
DEFAULT_TIMEOUT: Final = "1h"
DEFAULT_GRACE: Final = "5s"
_KEY_FIELD: Final = re.compile(r"session_id|user_id|input\.[^.\s]+")
_WAITS: Final = re.compile(r"(?P<least>[^.\s].*?)\.\.(?P<most>[^.\s].*)")


class Timeout(Exception):
    """In ``Retry(on=...)``: the attempt took longer than its ``timeout``."""


class LostLease(Exception):
    """In ``Retry(on=...)``: the executor's heartbeats stopped while the attempt ran."""


class CriteriaFailed(Exception):
    """In ``Retry(on=...)``: the run failed a criterion of a Criteria document."""


_CAUSES: Final[Mapping[type, str]] = {
    Timeout: "timeout",
    LostLease: "lost_lease",
    CriteriaFailed: "criteria_failed",
    Exception: "exception",
}
_CAUSE_NAMES: Final = (*_CAUSES.values(), "alert")


@dataclass(frozen=True, init=False)
class Retry:
    """How often a task is attempted, and after which failures: ``Retry(3, on=(Timeout,))``.

    ``attempts`` includes the first one. ``on`` has exception classes (a subclass counts as its base
    class), ``Timeout``, ``LostLease``, ``CriteriaFailed``, or the text ``alert``; by default every
    exception of the agent's. ``wait`` is the range of the limits of a wait, which doubles with
    each attempt; a wait is a random time up to its limit. Raises ``ValueError``.
    """

    attempts: int
    on: tuple[str, ...]
    wait_min_us: int
    wait_max_us: int

    def __init__(
        self,
        attempts: int = 3,
        on: type[BaseException] | str | Sequence[type[BaseException] | str] = Exception,
        wait: str = "2s..60s",
    ) -> None:
        if not _is_whole(attempts) or not 1 <= attempts <= MAX_ATTEMPTS:
            raise ValueError(
                f"Retry(attempts={attempts!r}): a whole number from 1 to {MAX_ATTEMPTS}"
            )
        causes = on if isinstance(on, list | tuple | set | frozenset) else (on,)
        least, most = _wait_limits(wait)
        object.__setattr__(self, "attempts", attempts)
        object.__setattr__(self, "on", tuple(_cause(one) for one in causes))
        object.__setattr__(self, "wait_min_us", least)
        object.__setattr__(self, "wait_max_us", most)


def _cause(given: object) -> str:
    if isinstance(given, type) and issubclass(given, BaseException):
        return _CAUSES.get(given, given.__name__)
    # Names of exception classes begin with a capital letter: they need not exist here.
    if isinstance(given, str) and (given in _CAUSE_NAMES or given[:1].isupper()):
        return given
    hint = did_you_mean(str(given), _CAUSE_NAMES, otherwise="an exception class, such as Timeout")
    raise ValueError(f"Retry(on={given!r}): {hint}")


def _wait_limits(wait: object) -> tuple[int, int]:
    match = _WAITS.fullmatch(wait.strip()) if isinstance(wait, str) else None
    try:
        if match is None:
            least = most = duration_us("wait", wait)
        else:
            least, most = (duration_us("wait", match[part]) for part in ("least", "most"))
    except ValueError as error:
        raise ValueError(f"Retry({error}), or a range such as 2s..60s") from None
    if least > most:
        raise ValueError(f"Retry(wait={wait!r}): the first duration is longer than the second one")
    return least, most


@dataclass(frozen=True)
class Agent:
    """One declared agent."""

    function: Callable[..., Any]
    spec: AgentSpec
    is_async: bool
    isolation: Isolation
    grace_s: float
    budget: Budget | None
    task_type: TaskType

    @property
    def label(self) -> str:
        return agent_label(self.spec.name, self.spec.version)


class Program(Protocol):
    """What an executor runs: a program's agents (``app.Executor``)."""

    project: str | None

    @property
    def agents(self) -> Sequence[Agent]:
        """The declared agents."""

    @property
    def checks(self) -> Sequence[ReadyCheck]:
        """The functions of ``ready``."""

    @property
    def tracer(self) -> Tracer:
        """What records the runs."""

    def find(self, name: str, version: str = "") -> Agent | None:
        """An agent; without a version any one of this name."""


def agent_label(name: str, version: str) -> str:
    """An agent as texts name it: ``refund@v13``."""
    return f"{name}@{version}" if version else name


# Each is a keyword of the public decorator.
def declare(  # noqa: PLR0913
    function: Callable[..., Any],
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
) -> Agent:
    """The agent that a function and these settings describe. Raises ``ValueError``."""
    name = name or getattr(function, "__name__", "")
    where = f"@app.agent({name!r})"
    try:
        _check_function(function)
        checked = _checked_retry(retry)
        spec = AgentSpecStruct(
            name=_text("name", name, required=True),
            version=_text("version", version),
            slots=_limit("slots", slots, MAX_SLOTS),
            max_running=_limit("max_running", max_running, 1_000_000),
            timeout_us=0 if timeout is None else duration_us("timeout", timeout),
            lease_us=lease_us(lease),
            retry=RetrySpecStruct(
                attempts=checked.attempts,
                on=list(checked.on),
                wait_min_us=checked.wait_min_us,
                wait_max_us=checked.wait_max_us,
            ),
            fallback=_text("fallback", fallback),
            budget_usd=_budget_usd(budget),
            key_field=_key_field(key),
            on_busy=_one_of("on_busy", on_busy, get_args(OnBusy)),
            idempotent=_switch("idempotent", idempotent),
        )
        if spec.fallback.partition("@")[0] == name and spec.fallback in (
            name,
            agent_label(name, version),
        ):
            raise ValueError(f"fallback={fallback!r} is the agent itself")
        return Agent(
            function,
            spec,
            is_async=inspect.iscoroutinefunction(inspect.unwrap(function)),
            isolation=_one_of("isolation", isolation, get_args(Isolation)),
            grace_s=duration_us("grace", grace) / 1e6,
            budget=budget,
            task_type=task if callable(task) else _text("task", task) or name,
        )
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def fallback_cycle(agents: Sequence[Agent]) -> list[str]:
    """The agents of a cycle of fallbacks, the first one again at the end; empty without one."""
    following = {agent.spec.name: agent.spec.fallback.partition("@")[0] for agent in agents}
    for start in following:
        path = [start]
        while (after := following.get(path[-1], "")) and after not in path:
            path.append(after)
        if after:
            return [*path[path.index(after) :], after]
    return []


def duration_us(name: str, given: object) -> int:
    """A duration of more than zero and at most 30 days. Raises ``ValueError`` with its name."""
    try:
        found = parse_duration_us(given)
    except ValueError as error:
        raise ValueError(f"{name}={given!r}: {error}") from None
    if not 0 < found <= MAX_DURATION_US:
        limit = "more than 0 and at most 30 days, such as 90s or 10m"
        raise ValueError(f"{name}={given!r}: a duration of {limit}")
    return found


def lease_us(given: str | float | None) -> int:
    """The lease of attempts, in microseconds. Raises ``ValueError``."""
    if given is None:
        return DEFAULT_LEASE_US
    found = duration_us("lease", given)
    if not MIN_LEASE_US <= found <= MAX_LEASE_US:
        raise ValueError(f"lease={given!r}: from 3s to 1h")
    return found


def _check_function(function: object) -> None:
    if not callable(function):
        raise ValueError(f"{function!r} is no function")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ValueError("the function yields values; return the result instead")
    try:
        inspect.signature(function).bind(object())
    except TypeError:
        raise ValueError(
            "the function takes one argument, the task: def refund(task): ..."
        ) from None
    except ValueError:  # a built-in without a signature
        return


def _checked_retry(retry: object) -> Retry:
    if retry is None:
        return Retry(1, on=())
    if _is_whole(retry):
        return Retry(retry)  # type: ignore[arg-type]
    if not isinstance(retry, Retry):
        raise ValueError(f"retry={retry!r}: write retry=Retry(3)")
    return retry


def _budget_usd(budget: Budget | None) -> str:
    if budget is None:
        return ""
    from stepstream.producers.control.budget import Budget as BudgetClass

    if not isinstance(budget, BudgetClass):
        raise ValueError(f"budget={budget!r}: write budget=Budget(usd=0.50)")
    return "" if budget.usd is None else str(budget.usd)


def _key_field(key: str) -> str:
    text = _text("key", key)
    if text and not _KEY_FIELD.fullmatch(text):
        raise ValueError(
            f"key={key!r}: session_id, user_id, or input.NAME for a field of the input"
        )
    return text


def _text(name: str, given: object, *, required: bool = False) -> str:
    if not isinstance(given, str) or len(given) > MAX_NAME_CHARS or (required and not given):
        raise ValueError(f"{name}={given!r}: a text of at most {MAX_NAME_CHARS} characters")
    return given


def _limit(name: str, given: object, most: int) -> int:
    if given is None:
        return 0
    if not _is_whole(given) or not 1 <= given <= most:  # type: ignore[operator]
        raise ValueError(
            f"{name}={given!r}: a whole number from 1 to {most:,}; leave it out for no limit"
        )
    return given  # type: ignore[return-value]


def _switch(name: str, given: object) -> bool:
    if not isinstance(given, bool):
        raise ValueError(f"{name}={given!r}: True or False")
    return given


def _one_of(name: str, given: Any, known: Sequence[str]) -> Any:
    if given not in known:
        hint = did_you_mean(str(given), known, otherwise=f"one of {', '.join(known)}")
        raise ValueError(f"{name}={given!r}: {hint}")
    return given


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
