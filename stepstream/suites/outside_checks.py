"""The checks of trials that call code outside of the worker: graders, functions and queries.

Whatever such code raises or returns, the check is then unknown and counted; it never fails a trial
and never ends a suite.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from stepstream.evals.gate.trials import Grade
from stepstream.schemas.criteria import (
    OUTSIDE_CHECKS,
    Criteria,
    FunctionCheck,
    GraderCheck,
    LimitsCheck,
    SqlCheck,
)
from stepstream.schemas.extensions import UnknownExtensionError
from stepstream.schemas.graders import GRADERS, score_of
from stepstream.suites.agent import AgentError, load_agent

MAX_REASON: Final = 300
MAX_ROWS: Final = 10_000

Outside = GraderCheck | FunctionCheck | SqlCheck
Called = Callable[..., Any]


MAX_LEFT: Final = 8
"""Calls of one grader that may be left running: each keeps a thread until the command ends."""


class _TooLate(Exception):
    """The code has not returned within its time."""


class _NotCalled(Exception):
    """Too many earlier calls have not returned."""


_left: defaultdict[str, list[threading.Thread]] = defaultdict(list)
"""Calls that had not returned within their time, by grader or function."""


# A document has at least one check. Every run has fewer steps: this one always passes.
_ALWAYS: Final = (LimitsCheck(check="limits", steps=10**9),)


def inside_only(documents: Iterable[Criteria]) -> list[Criteria]:
    """The documents without the checks that call code."""
    return [
        one.model_copy(
            update={
                "checks": tuple(c for c in one.checks if not isinstance(c, OUTSIDE_CHECKS))
                or _ALWAYS
            }
        )
        for one in documents
    ]


def outside_of(documents: Iterable[Criteria]) -> list[Outside]:
    """The checks that call code."""
    return [check for one in documents for check in one.checks if isinstance(check, OUTSIDE_CHECKS)]


def load(check: Outside) -> Called:
    """The grader or the function. Raises ``AgentError`` with its nearest name."""
    if isinstance(check, FunctionCheck):
        return load_agent(check.function)
    if isinstance(check, SqlCheck):
        return load_agent(check.connect)
    if ":" in check.grader:
        return load_agent(check.grader)
    try:
        return GRADERS.get(check.grader)
    except UnknownExtensionError as error:
        raise AgentError(str(error)) from None


def graded(check: Outside, given: Any, answer: str, steps: Sequence[Mapping[str, Any]]) -> Grade:
    """What the check comes to for one trial."""
    by = name_of(check)
    try:
        called = load(check)
        if isinstance(check, SqlCheck):
            return _of_query(check, _within(by, check.seconds, _queried, called, check.query))
        if isinstance(check, GraderCheck):
            question = given if isinstance(given, str) else json.dumps(given, default=str)
            score = score_of(_within(by, check.seconds, called, question, answer, check.rubric))
            passed = score.value >= check.at_least
            reason = "" if passed else f"{by} gave {score.value:g}, below {check.at_least:g}"
            return Grade(
                by, passed, score.value, (score.reason or reason)[:MAX_REASON], score.model,
                score.prompt_hash, score.cost_usd,
            )  # fmt: skip
        return _of_function(by, _within(by, check.seconds, called, given, answer, list(steps)))
    except _NotCalled:
        return Grade(by, None, reason=f"{by} was not called: {MAX_LEFT} earlier calls still run")
    except _TooLate:
        return Grade(by, None, reason=f"{by} had not returned after {check.seconds:g} s")
    except Exception as error:  # whatever foreign code raises
        return Grade(by, None, reason=f"{by}: {type(error).__name__}: {error}"[:MAX_REASON])


def _of_function(by: str, returned: Any) -> Grade:
    if returned is None or isinstance(returned, bool):
        reason = f"{by} returned False" if returned is False else ""
        return Grade(by, returned, reason=reason or ("" if returned else f"{by} returned None"))
    if isinstance(returned, str):
        return Grade(by, not returned, reason=returned[:MAX_REASON])
    kind = type(returned).__name__
    return Grade(by, None, reason=f"{by} returned {kind}, not True, False, None or a text")


def name_of(check: Outside) -> str:
    """The grader, or the function."""
    if isinstance(check, GraderCheck):
        return check.grader
    return check.connect if isinstance(check, SqlCheck) else check.function


def _queried(connect: Called, query: str) -> list[Sequence[Any]]:
    """The rows of the query; its transaction is rolled back."""
    connection = connect()
    try:
        cursor = connection.cursor()
        cursor.execute(query)
        # One more than a check may ask for: a larger result is known to be another one.
        found = list(cursor.fetchmany(MAX_ROWS + 1))
        connection.rollback()
        return found
    finally:
        connection.close()


def _of_query(check: SqlCheck, found: Sequence[Sequence[Any]]) -> Grade:
    by = check.connect
    if check.rows is not None:
        if len(found) == check.rows:
            return Grade(by, True)
        count = f"more than {MAX_ROWS}" if len(found) > MAX_ROWS else f"{len(found)}"
        return Grade(by, False, reason=f"the query found {count} rows, not {check.rows}")
    if len(found) != 1 or len(found[0]) != 1:
        return Grade(by, False, reason=f"the query found {len(found)} rows, not one value")
    value = found[0][0]
    if _equal(value, check.equals):
        return Grade(by, True)
    reason = f"the query found {str(value)[:100]!r}, not {check.equals!r}"
    return Grade(by, False, reason=reason[:MAX_REASON])


def _equal(value: Any, wanted: str | float | None) -> bool:
    if isinstance(wanted, str):
        return str(value) == wanted
    try:
        # Databases return Decimal and int; True is no number here.
        return not isinstance(value, bool) and float(value) == wanted
    except (TypeError, ValueError):
        return False


def _within(by: str, seconds: float, function: Called, *given: Any) -> Any:
    """What the function returns. Raises its error, ``_TooLate`` or ``_NotCalled``.

    In a thread: what cannot be ended is left behind and ends with the command.
    """
    left = _left[by] = [thread for thread in _left[by] if thread.is_alive()]
    if len(left) >= MAX_LEFT:
        raise _NotCalled
    result: list[Any] = []
    failure: list[BaseException] = []

    def call() -> None:
        try:
            result.append(function(*given))
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=call, name="stepstream-check", daemon=True)
    thread.start()
    thread.join(seconds)
    if failure:
        error = failure[0]
        raise error if isinstance(error, Exception) else RuntimeError(type(error).__name__)
    if thread.is_alive():
        left.append(thread)
        raise _TooLate
    return result[0]


def combined(success: bool | None, reason: str, found: Sequence[Grade]) -> tuple[bool | None, str]:
    """The trial's outcome with these: fail where one fails, else unknown where one is unknown."""
    failed = [one.reason for one in found if one.outcome is False]
    if success is False or failed:
        return False, "; ".join(filter(None, [reason if success is False else "", *failed]))
    unknown = [one.reason for one in found if one.outcome is None]
    if success is None or unknown:
        return None, "; ".join(filter(None, [reason, *unknown]))
    return True, ""
