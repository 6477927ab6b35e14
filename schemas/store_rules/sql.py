"""The rule ``sql``: a SELECT on a schedule, each row of which is an alert. Pure.

A sink runs the query; here are the rule's model, the check of the query's form, and what becomes of
the rows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal, cast, get_args

from pydantic import Field, field_validator

from stepstream.schemas.alert import FindingSeverity, FindingStruct
from stepstream.schemas.durations import DurationUs
from stepstream.schemas.findings import new_finding
from stepstream.schemas.ids import derived_id
from stepstream.schemas.policy import Policy
from stepstream.schemas.rule_base import RuleBase, Scope
from stepstream.schemas.rules import detector_for
from stepstream.schemas.times import MINUTE_US, SECOND_US

MAX_QUERY: Final = 20_000
_COMMENT: Final = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_TEXT: Final = re.compile(r"'(?:[^'\\]|\\.|'')*'|`[^`]*`|\"[^\"]*\"")
_BEGINS: Final = re.compile(r"\s*(?:SELECT|WITH)\b", re.IGNORECASE)
_FORBIDDEN: Final = re.compile(
    r"\b(?:INTO\s+OUTFILE|FORMAT\s+\w+\s*$|SETTINGS\s+\w+\s*=|INSERT|ALTER|DROP|TRUNCATE|ATTACH|"
    r"DETACH|GRANT|REVOKE|SYSTEM\s+\w+\s*$)",
    re.IGNORECASE,
)


class Sql(RuleBase):
    """Each row of a SELECT is an alert, as long as the query returns it."""

    scope: ClassVar[Scope] = "store"
    actionable: ClassVar[bool] = False
    fires_when = "the query returns a row; each row is an alert until it is not returned any more"

    rule: Literal["sql"]
    query: str = Field(
        min_length=1,
        max_length=MAX_QUERY,
        description="a SELECT; the column subject, or the first one, identifies the alert",
    )
    every: DurationUs = Field(
        5 * MINUTE_US, ge=10 * SECOND_US, description="how often it runs; default: 5m"
    )
    timeout: DurationUs = Field(10 * SECOND_US, gt=0, le=5 * MINUTE_US, description="default: 10s")
    max_rows: int = Field(100, gt=0, le=1_000, description="further rows are ignored")

    @field_validator("query")
    @classmethod
    def _only_reads(cls, query: str) -> str:
        # A check of the form, for an early error. What keeps it from writing is the user that
        # runs it, whom the server lets only read.
        plain = _TEXT.sub("''", _COMMENT.sub(" ", query)).strip()
        if ";" in plain.rstrip("; \n\t"):
            raise ValueError("a rule has one statement: remove the semicolon")
        plain = plain.rstrip("; \n\t")
        if not _BEGINS.match(plain):
            raise ValueError("the query must begin with SELECT or WITH")
        if found := _FORBIDDEN.search(plain):
            raise ValueError(f"{found.group().strip()} is not allowed: the query only reads")
        return query

    @property
    def statement(self) -> str:
        """The query with its limit of rows; one row more shows that there are further ones."""
        # The line break ends a comment at the end of the query.
        query = self.query.strip().rstrip("; \n\t")
        return f"SELECT * FROM (\n{query}\n) LIMIT {self.max_rows + 1}"


LABELS: Final = ("project", "environment", "agent", "agent_version", "task", "user_id", "trace_id")
_FIELDS: Final = frozenset({*LABELS, "subject", "message", "severity", "value", "threshold"})
_MATCHED: Final = LABELS[:5]
"""The labels that a policy's match is about."""
MAX_TEXT: Final = 500


@dataclass(frozen=True, slots=True)
class OpenAlert:
    """A firing alert of a rule ``sql``, as the store has it."""

    alert_id: str
    policy: str
    alert: str
    labels: Mapping[str, str]
    subject: str

    @property
    def key(self) -> tuple[str, ...]:
        """What makes it the alert of a row."""
        return (*(self.labels.get(name, "") for name in _IDENTITY), self.subject)


_IDENTITY: Final = ("project", "environment", "agent", "trace_id")
"""The labels that are part of an alert's identity."""


@detector_for(Sql)
class SqlRows:
    """What the rows of a rule's query change: new alerts, and those that are over."""

    def __init__(self, rule: Sql, policy: Policy) -> None:
        self.rule = rule
        self.policy = policy

    def findings(
        self,
        rows: Sequence[Mapping[str, Any]],
        known: Iterable[OpenAlert],
        slot_us: int,
        now_us: int,
    ) -> Iterator[FindingStruct]:
        """The findings of one evaluation. ``known`` are the rule's alerts that are firing.

        Ids are derived from the time at which the evaluation was due, so that two sinks that run it
        both write the same findings.
        """
        before = {one.key: one for one in known}
        seen: set[tuple[str, ...]] = set()
        for row in rows[: self.rule.max_rows]:
            finding = self._finding(row, slot_us, now_us)
            match = {name: getattr(finding, name) for name in _MATCHED}
            key = (*(getattr(finding, name) for name in _IDENTITY), finding.subject)
            if not self.policy.match.matches(**match) or key in seen:
                continue
            seen.add(key)
            if key not in before:
                yield finding
        if len(rows) > self.rule.max_rows:
            return  # what is missing may be among the rows that were left out
        for key, one in before.items():
            if key not in seen:
                yield over(one, slot_us, now_us, "the query does not return this row any more")

    def _finding(self, row: Mapping[str, Any], slot_us: int, now_us: int) -> FindingStruct:
        labels = {name: _text(row.get(name)) for name in LABELS}
        labels["project"] = labels["project"] or "default"
        rule = self.rule
        first = next(iter(row.values()), "")
        subject = _text(row.get("subject", first))[:200]
        names: tuple[str | int, ...] = (self.policy.name, rule.alert_name, *labels.values())
        names += (subject, slot_us)
        severity = _text(row.get("severity"))
        known = severity if severity in get_args(FindingSeverity) else ""
        listed = ", ".join(
            f"{name} {_text(value)}" for name, value in row.items() if name not in _FIELDS
        )
        message = _text(row.get("message")) or f"{subject}: the query {rule.alert_name} returns it"
        return new_finding(
            None,
            derived_id("sql", *names),
            now_us,
            **labels,
            alert=rule.alert_name,
            rule=rule.rule,
            policy=self.policy.name,
            policy_revision=self.policy.revision,
            severity=cast("FindingSeverity", known) or rule.severity or "warning",
            subject=subject,
            message=message[:MAX_TEXT],
            detail=listed[:MAX_TEXT],
            value=_number(row.get("value")),
            threshold=_number(row.get("threshold")),
        )


def over(one: OpenAlert, slot_us: int, now_us: int, why: str) -> FindingStruct:
    """The finding that resolves an alert of a rule ``sql``."""
    return new_finding(
        None,
        derived_id("sql", one.alert_id, "resolved", slot_us),
        now_us,
        **one.labels,
        alert=one.alert,
        rule="sql",
        policy=one.policy,
        subject=one.subject,
        state="resolved",
        severity="info",
        message=why,
        alert_id=one.alert_id,
    )


def _text(value: Any) -> str:
    return "" if value is None else str(value)[:MAX_TEXT]


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
