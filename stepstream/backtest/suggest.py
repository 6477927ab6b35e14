"""Limits from history: which limit would at most a given share of good runs have exceeded?

A limit is a quantile of what good runs used. Its interval is free of assumptions about the
distribution: the number of runs beyond the true quantile is binomial, so its ends are two of the
observed values (David and Nagaraja, Order Statistics, 7.1). Pure but for ``suggestions`` and
``marked``, which read the store.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

ERROR: Final = 0.025
"""The chance that the true quantile is beyond one end of the interval."""


class Measure(NamedTuple):
    """What a rule limits, and how the store has it."""

    rule: str
    field: str
    sql: str
    where: str = "1"


MEASURES: Final = (
    Measure("run_cost", "limit_usd", "toFloat64(cost_usd)", "unpriced_steps = 0"),
    Measure("run_tokens", "limit", "toFloat64(input_tokens + output_tokens)"),
    Measure("run_steps", "limit", "toFloat64(steps)"),
    Measure("run_duration", "limit", "duration_us / 1e6"),
)
_GOOD: Final = """
    closed AND status = 'ok' AND start_time >= {since:DateTime64(6, 'UTC')}
    AND agent LIKE {agent:String} AND task LIKE {task:String} AND project LIKE {project:String}
    AND environment LIKE {environment:String}
    AND trace_id NOT IN (SELECT trace_id FROM alert_marks WHERE verdict = 'true')"""


@dataclass(frozen=True)
class Suggestion:
    """A limit for one rule; ``limit`` is None where the history has too few runs for one."""

    measure: Measure
    runs: int
    needed: int
    """Runs that an interval at this rate needs."""
    limit: float | None
    """The upper end of the interval, rounded up: with 97.5 % confidence at most the given share
    of good runs exceeds it."""
    quantile: float | None
    low: float | None
    exceeded: int = 0
    """Good runs of the history that exceeded ``limit``."""


class Ranks(NamedTuple):
    """Places, counted from the largest value, of a quantile and the ends of its interval."""

    quantile: int
    high: int | None
    low: int


def ranks(runs: int, rate: float) -> Ranks:
    """The places for the quantile that a share ``rate`` of ``runs`` values exceeds.

    ``high`` is None where even the largest value may be below the true quantile.
    """
    high, low, total, at = None, runs - 1, 0.0, 0
    # The log of the chance that exactly `at` of the runs are beyond the true quantile.
    chance = runs * math.log1p(-rate)
    while at < runs:
        total += math.exp(chance)
        if total <= ERROR:
            high = at
        if total >= 1 - ERROR:
            low = min(at, runs - 1)
            break
        chance += math.log((runs - at) / (at + 1)) + math.log(rate) - math.log1p(-rate)
        at += 1
    return Ranks(min(runs - 1, int(runs * rate)), high, low)


def runs_needed(rate: float) -> int:
    """The fewest runs of which the largest bounds the quantile: (1 - rate)^n <= 2.5 %."""
    return math.ceil(math.log(ERROR) / math.log1p(-rate))


def suggestion(measure: Measure, runs: int, largest: Sequence[float], rate: float) -> Suggestion:
    """The limit for a measure; ``largest`` are its largest values, descending, as many as
    ``values_needed``.
    """
    needed = runs_needed(rate)
    if not runs:
        return Suggestion(measure, 0, needed, None, None, None)
    found = ranks(runs, rate)
    quantile = largest[found.quantile]
    if found.high is None:
        return Suggestion(measure, runs, needed, None, quantile, largest[found.low])
    limit = rounded_up(largest[found.high], whole=measure.rule in ("run_tokens", "run_steps"))
    exceeded = sum(value > limit for value in largest)
    return Suggestion(measure, runs, needed, limit, quantile, largest[found.low], exceeded)


def values_needed(runs: int, rate: float) -> int:
    """How many of the largest values ``suggestion`` reads."""
    return ranks(runs, rate).low + 1 if runs else 0


def rounded_up(value: float, *, whole: bool) -> float:
    """The value with two significant digits, rounded up; at least 1 where it is a whole number."""
    if value <= 0:
        return 1.0 if whole else 0.01
    unit = 10.0 ** (math.log10(value) // 1 - 1)
    unit = max(1.0, unit) if whole else unit
    # The product of two floats may be a little above the value that it stands for.
    return float(f"{math.ceil(round(value / unit, 6)) * unit:.12g}")


def suggestions(client: Client, rate: float, parameters: Mapping[str, Any]) -> Iterator[Suggestion]:
    """A suggestion for each measure. ``parameters``: since, agent, task, project, environment."""
    for measure in MEASURES:
        where = f"{_GOOD} AND {measure.where}"
        count = client.query(f"SELECT count() FROM runs WHERE {where}", parameters=dict(parameters))
        runs = int(count.result_rows[0][0])
        sql = f"SELECT {measure.sql} AS value FROM runs WHERE {where} ORDER BY value DESC LIMIT "
        most = values_needed(runs, rate)
        rows = client.query(f"{sql}{most}", parameters=dict(parameters)).result_rows if most else []
        # Between the two queries runs may have come: the count is that of what was read.
        runs = runs if len(rows) == most else len(rows)
        yield suggestion(measure, runs, [float(value) for (value,) in rows], rate)


@dataclass(frozen=True)
class Marked:
    """How often people marked the alerts of a name as right or wrong."""

    alert: str
    right: int
    wrong: int


def marked(client: Client, parameters: Mapping[str, Any]) -> list[Marked]:
    """The marks of the alerts about an agent, by alert name."""
    sql = """
        SELECT alert, countIf(verdict = 'true'), countIf(verdict = 'false') FROM alert_marks
        WHERE agent LIKE {agent:String} AND task LIKE {task:String}
        AND project LIKE {project:String} AND environment LIKE {environment:String}
        GROUP BY alert ORDER BY alert"""
    rows = client.query(sql, parameters=dict(parameters)).result_rows
    return [Marked(str(alert), int(right), int(wrong)) for alert, right, wrong in rows]


def policy_document(
    name: str, match: Mapping[str, str], found: Sequence[Suggestion]
) -> dict[str, Any]:
    """The policy with the suggested limits, as it is written in a file; in mode observe."""
    rules = [
        {"rule": one.measure.rule, one.measure.field: _written(one)}
        for one in found
        if one.limit is not None
    ]
    return {"kind": "Policy", "name": name, "match": dict(match), "mode": "observe", "rules": rules}


def _written(one: Suggestion) -> Any:
    limit = one.limit or 0.0
    if one.measure.rule == "run_duration":
        return f"{max(1, math.ceil(limit))}s"
    return int(limit) if one.measure.rule in ("run_tokens", "run_steps") else f"{limit:.12g}"
