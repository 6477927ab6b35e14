"""The rule sql: queries that are refused, and what becomes of rows."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from stepstream.schemas.policy import Policy
from stepstream.schemas.store_rules.sql import OpenAlert, Sql, SqlRows
from stepstream.sinks.clickhouse.sql_rules import Schedule

SLOT = 1_767_225_600_000_000


def policy(match: dict[str, str] | None = None, **rule: Any) -> Policy:
    made = {"rule": "sql", "alert": "rows", "query": "SELECT 1", **rule}
    return Policy.model_validate(
        {"name": "p", "revision": 3, "match": match or {}, "rules": [made]}
    )


def rows_of(given: Policy) -> SqlRows:
    (rule,) = given.rules
    assert isinstance(rule, Sql)
    return SqlRows(rule, given)


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("DROP TABLE runs", "must begin with SELECT"),
        ("SELECT 1; SELECT 2", "one statement"),
        ("SELECT 1 INTO OUTFILE 'x'", "INTO OUTFILE is not allowed"),
        ("SELECT 1 FORMAT CSV", "FORMAT CSV is not allowed"),
        ("SELECT 1 SETTINGS max_threads = 9", "SETTINGS max_threads = is not allowed"),
        ("WITH x AS (SELECT 1) INSERT INTO y SELECT 1", "INSERT is not allowed"),
        ("", "at least 1"),
    ],
)
def test_what_is_no_plain_select_is_refused(query: str, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        policy(query=query)


@pytest.mark.parametrize(
    "query",
    [
        "select 1;",
        "WITH 1 AS x SELECT x -- a comment; DROP",
        "SELECT 'INSERT; DROP' AS subject",
        "SELECT /* ; */ 1",
    ],
)
def test_a_select_is_wrapped_with_its_limit(query: str) -> None:
    (rule,) = policy(query=query, max_rows=7).rules
    assert isinstance(rule, Sql)
    assert rule.statement.endswith("\n) LIMIT 8")
    assert not rule.statement.rstrip().endswith(";")


def test_intervals_have_limits_and_no_action() -> None:
    for wrong in ({"every": "1s"}, {"timeout": "10m"}, {"max_rows": 5_000}, {"action": "stop"}):
        with pytest.raises(ValidationError):
            policy(**wrong)


def test_a_row_is_a_finding_with_its_columns() -> None:
    row = {"subject": "ada", "agent": "support", "value": 21.5, "threshold": 20, "runs": 7}
    (found,) = rows_of(policy()).findings([row], [], SLOT, SLOT + 5)
    assert (found.project, found.agent, found.subject) == ("default", "support", "ada")
    assert (found.value, found.threshold, found.detail) == (21.5, 20.0, "runs 7")
    assert (found.policy, found.policy_revision, found.severity) == ("p", 3, "warning")
    assert found.message == "ada: the query rows returns it"
    again = list(rows_of(policy()).findings([row], [], SLOT, SLOT + 9))
    assert again[0].finding_id == found.finding_id


def test_odd_values_are_no_reason_to_fail() -> None:
    """NULL, numbers as text, not a number, and severities that do not exist."""
    row = {"x": None, "value": float("nan"), "threshold": "3", "severity": "loud", "message": ""}
    (found,) = rows_of(policy(severity="error")).findings([row], [], SLOT, SLOT)
    assert (found.subject, found.value, found.threshold) == ("", None, 3.0)
    assert found.severity == "error"


def open_alert(subject: str) -> OpenAlert:
    return OpenAlert(f"id-{subject}", "p", "rows", {"project": "default"}, subject)


def test_rows_that_are_known_are_not_found_again_and_missing_ones_are_over() -> None:
    known = [open_alert("a"), open_alert("b")]
    rows = [{"subject": "a"}, {"subject": "c"}, {"subject": "c"}]
    found = list(rows_of(policy()).findings(rows, known, SLOT, SLOT))
    assert [(one.state, one.subject, one.alert_id) for one in found] == [
        ("firing", "c", ""),
        ("resolved", "b", "id-b"),
    ]


def test_too_many_rows_end_nothing() -> None:
    """What is missing may be among those that were left out."""
    rows = [{"subject": str(n)} for n in range(6)]
    found = list(rows_of(policy(max_rows=5)).findings(rows, [open_alert("x")], SLOT, SLOT))
    assert len(found) == 5
    assert {one.state for one in found} == {"firing"}


def test_the_match_of_the_policy_applies_to_rows() -> None:
    rows = [{"subject": "a", "agent": "support"}, {"subject": "b", "agent": "buyer"}]
    found = list(rows_of(policy({"agent": "support"})).findings(rows, [], SLOT, SLOT))
    assert [one.subject for one in found] == ["a"]


def test_a_rule_is_due_once_in_its_interval_and_at_once_when_it_is_new() -> None:
    schedule = Schedule()
    one = policy(every="1m")
    assert [due.slot_us for due in schedule.due([one], SLOT + 5)] == [SLOT]
    assert schedule.due([one], SLOT + 59_000_000) == []
    assert [due.slot_us for due in schedule.due([one], SLOT + 61_000_000)] == [SLOT + 60_000_000]
    changed = one.model_copy(update={"revision": 4})
    assert len(schedule.due([changed], SLOT + 62_000_000)) == 1
    disabled = policy(every="1m", enabled=False)
    assert schedule.due([disabled], SLOT + 200_000_000) == []
