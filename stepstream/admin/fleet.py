"""What stands on the fleet topic, as rows for people: budgets, hours of each agent, baselines."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeVar

import msgspec

from stepstream.common.kafka import read_to_end
from stepstream.schemas.alert import Alert
from stepstream.schemas.calendar import window_name
from stepstream.schemas.documents import AlertMatch, WrongDocument, decode_document
from stepstream.schemas.fleet import (
    FleetBaselineStruct,
    FleetBudgetStruct,
    FleetWindowStruct,
    WindowMinuteStruct,
)
from stepstream.schemas.latency import quantile_us
from stepstream.schemas.money import amount_nanos, usd_from_nanos
from stepstream.schemas.policy import Policy
from stepstream.schemas.settings import Settings
from stepstream.schemas.times import HOUR_US, time_of
from stepstream.schemas.topics import topic
from stepstream.stream.baselines.records import checked_baseline
from stepstream.stream.usage.detectors.spend import Spend
from stepstream.stream.usage.fleet_records import checked_window

Row = tuple[Any, ...]
_Read = TypeVar("_Read")

BUDGETS: Final = (
    "policy",
    "alert",
    "project",
    "per",
    "group",
    "window",
    "spent_usd",
    "limit_usd",
    "share",
    "as_of",
)
HOURS: Final = (
    "hour", "project", "environment", "agent", "agent_version", "task", "user_id",
    "runs", "failed_runs", "steps", "error_steps", "tokens", "cost_usd", "p50_s", "p99_s",
)  # fmt: skip
BASELINES: Final = (
    "project",
    "environment",
    "agent",
    "task",
    "state",
    "runs",
    "p50_usd",
    "p99_usd",
    "p50_s",
    "p99_s",
    "as_of",
)


def readable(values: Iterable[bytes], read: Callable[[bytes], _Read]) -> list[_Read]:
    """The results of ``read``, without values for which it raises: workers dead-letter them."""
    made = []
    for value in values:
        try:
            made.append(read(value))
        except (msgspec.MsgspecError, ValueError, ArithmeticError, LookupError, RecursionError):
            continue
    return made


def read_fleet(settings: Settings, kind: str) -> list[bytes]:
    """The newest values of one kind of record: ``window``, ``budget`` or ``baseline``."""
    found: dict[bytes, bytes] = {}
    for message in read_to_end(settings, topic(settings.topic_prefix, "fleet")):
        key, value = message.key() or b"", message.value()
        # Keys that begin with ! are the workers' own state.
        if key.startswith(b"!") or key.split(b"|")[1:2] != [kind.encode()]:
            continue
        if value:
            found[key] = value
        else:
            found.pop(key, None)
    return list(found.values())


def budgets(settings: Settings, now_us: int) -> list[Row]:
    """Budgets with the amounts spent, the fullest first, and limits without an amount so far.

    Raises ``KafkaUnreachable`` and the errors of ``documents.in_force``.
    """
    from stepstream.admin import documents
    from stepstream.sinks.notify import latest_records

    policies = []
    for stored in documents.in_force(settings).values():
        # A document of a newer version; `doctor` reports it.
        with contextlib.suppress(WrongDocument):
            document = decode_document(stored.value)
            policies += [document] if isinstance(document, Policy) else []
    counted = budget_rows(read_fleet(settings, "budget"), now_us)
    firing = latest_records.list_alerts(
        settings, AlertMatch(rule="spend"), state="firing", limit=10_000
    )
    return [*counted, *uncounted_rows(policies, firing, counted)]


def budget_rows(values: Iterable[bytes], now_us: int) -> list[Row]:
    """Budgets whose window is not over, the fullest first."""
    rows = readable(
        values,
        lambda value: _budget_row(msgspec.json.decode(value, type=FleetBudgetStruct), now_us),
    )
    return [row for share, row in sorted(rows, key=lambda item: -item[0]) if share >= 0]


def _budget_row(found: FleetBudgetStruct, now_us: int) -> tuple[float, Row]:
    """The share that is used and the row; no row, and a share below 0, where the window is over."""
    if found.end <= now_us:
        return -1.0, ()
    share = amount_nanos(found.spent_usd) / max(1, amount_nanos(found.limit_usd))
    window = window_name(found.start, found.window, found.timezone)
    row = (
        found.policy,
        found.alert,
        found.project,
        found.per,
        found.group,
        window,
        found.spent_usd,
        found.limit_usd,
    )
    return share, (*row, f"{100 * share:.0f} %", time_of(found.as_of))


def uncounted_rows(
    policies: Iterable[Policy], firing: Iterable[Alert], counted: Iterable[Row]
) -> Iterator[Row]:
    """Limits without a sealed amount: with the amount of their firing alert, else without one."""
    known = {row[:2] for row in counted}
    alerts = {(alert.policy, alert.alert): alert for alert in firing if alert.rule == "spend"}
    for policy in policies:
        for rule in policy.rules:
            if not isinstance(rule, Spend) or (policy.name, rule.alert_name) in known:
                continue
            alert = alerts.get((policy.name, rule.alert_name))
            limit = usd_from_nanos(amount_nanos(rule.limit_usd))
            project = alert.project if alert else policy.match.project
            group = alert.subject if alert else ""
            row = (policy.name, rule.alert_name, project, rule.per, group, rule.window)
            if alert is None or alert.value is None:
                yield (*row, None, limit, "nothing counted yet", None)
            else:
                share = f"{100 * alert.value / float(rule.limit_usd):.0f} %"
                yield (
                    *row,
                    f"{alert.value:.9f}".rstrip("0").rstrip("."),
                    limit,
                    share,
                    time_of(alert.updated_at),
                )


def hour_rows(values: Iterable[bytes], since_us: int) -> list[Row]:
    """Hours of each owner, the newest first; of the hour that is not over what is sealed."""
    windows = readable(
        values, lambda value: checked_window(msgspec.json.decode(value, type=FleetWindowStruct))
    )
    # An hour is published in parts while it is open and once as a whole when it is sealed: parts
    # of a whole hour would count twice.
    whole = {
        (_owner(found), found.start) for found in windows if found.end - found.start == HOUR_US
    }
    minutes: dict[tuple[int, Row], list[WindowMinuteStruct]] = {}
    for found in windows:
        hour = found.start - found.start % HOUR_US
        if hour >= since_us and (
            found.end - found.start == HOUR_US or (_owner(found), hour) not in whole
        ):
            minutes.setdefault((hour, _owner(found)), []).extend(found.minutes)
    ordered = sorted(minutes.items(), key=lambda item: (-item[0][0], item[0][1]))
    return [(time_of(hour), *owner, *_sums(rows)) for (hour, owner), rows in ordered]


def baseline_rows(values: Iterable[bytes]) -> list[Row]:
    """Baselines by owner: known, or how much is missing."""
    rows = []
    for found in readable(
        values, lambda value: checked_baseline(msgspec.json.decode(value, type=FleetBaselineStruct))
    ):
        is_known = found.runs >= found.wanted_runs
        state = "known" if is_known else f"learning {found.runs} of {found.wanted_runs}"
        cost, took = found.values.get("cost_nanos", []), found.values.get("duration_us", [])
        figures = [
            _at(found.shares, amounts, share, 1e9 if amounts is cost else 1e6)
            for amounts in (cost, took)
            for share in (0.5, 0.99)
        ]
        rows.append(
            (
                found.project,
                found.environment,
                found.agent,
                found.task,
                state,
                found.runs,
                *figures,
                time_of(found.as_of),
            )
        )
    return sorted(rows)


def _owner(found: FleetWindowStruct) -> Row:
    return (
        found.project,
        found.environment,
        found.agent,
        found.agent_version,
        found.task,
        found.user_id,
    )


def _sums(rows: list[WindowMinuteStruct]) -> Iterator[Any]:
    for name in ("runs", "failed_runs", "steps", "error_steps"):
        yield sum(getattr(row, name) for row in rows)
    yield sum(row.input_tokens + row.output_tokens for row in rows)
    yield usd_from_nanos(sum(row.cost_nanos for row in rows))
    latency: dict[int, int] = {}
    for row in rows:
        for bucket, count in row.latency.items():
            latency[int(bucket)] = latency.get(int(bucket), 0) + count
    for share in (0.5, 0.99):
        yield f"{quantile_us(latency, share) / 1e6:.3g}" if latency else ""


def _at(shares: list[float], amounts: list[float], share: float, unit: float) -> str:
    """The amount at the first share that is at least as high."""
    found = next((amount for at, amount in zip(shares, amounts, strict=False) if at >= share), None)
    return "" if found is None else f"{found / unit:.3g}"
