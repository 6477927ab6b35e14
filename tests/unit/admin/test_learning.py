"""How far baselines have learnt, in words that people see in ``runs`` and ``doctor``."""

from __future__ import annotations

from stepstream.admin.learning import learning, with_wider
from stepstream.stream.baselines.history import Owner

REFUND = Owner("shop", "prod", "support", "refund")
ORDER = Owner("shop", "prod", "support", "order")
TRIAGE = Owner("shop", "prod", "triage", "")


def test_a_group_with_too_few_runs_is_learning_and_its_substitute_is_named() -> None:
    """The agent, else the project, where these have enough."""
    counts = with_wider({REFUND: 28, ORDER: 12, TRIAGE: 3})
    assert learning(counts, [ORDER, TRIAGE]) == [
        "prod/support/order: learning 12 of 30 runs, compared with prod/support meanwhile",
        "prod/triage: learning 3 of 30 runs, compared with project shop meanwhile",
    ]
    assert learning(with_wider({ORDER: 12}), [ORDER]) == [
        "prod/support/order: learning 12 of 30 runs"
    ]


def test_who_has_learnt_is_not_spoken_of() -> None:
    """A line that is always shown carries no information."""
    assert learning(with_wider({REFUND: 30}), [REFUND]) == []


def test_many_are_named_in_part() -> None:
    """Three lines and how many more."""
    owners = [Owner("shop", "", f"agent {n}") for n in range(9)]
    lines = learning({}, owners)
    assert lines[0] == "agent 0: learning 0 of 30 runs"
    assert (len(lines), lines[-1]) == (4, "and 6 more")
