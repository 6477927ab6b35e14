"""How long what is kept: for all projects, and for some of them otherwise."""

from __future__ import annotations

import msgspec
import pytest

from stepstream.schemas.accept import Accepted, Rejected, accept_value
from stepstream.schemas.retention import KINDS, record_limits, retention
from stepstream.schemas.settings import Settings
from stepstream.schemas.times import DAY_US

NOW_US = 1_800_000_000_000_000


def aged(days: float, project: str) -> bytes:
    """A step that started this many days ago."""
    start_time = NOW_US - int(days * DAY_US)
    step = {
        "trace_id": "1" * 32,
        "step_id": "2" * 16,
        "kind": "plan",
        "name": "n",
        "project": project,
        "phase": "end",
    }
    return msgspec.json.encode({**step, "start_time": start_time, "end_time": start_time})


def test_a_project_may_have_days_of_its_own_for_each_kind_of_data() -> None:
    """What is not named has the usual days, and naming the usual days changes nothing."""
    settings = Settings(
        retention_by_project="dev.steps=7, shop.eu.steps=90,dev.runs=180,x.metrics=30"
    )
    steps = retention(settings, "steps")
    assert [steps.of(name) for name in ("dev", "shop.eu", "other")] == [7, 90, 30]
    assert (steps.shortest, str(steps)) == (7, "30 days (dev 7, shop.eu 90)")
    assert retention(settings, "runs").projects == ()
    assert retention(settings, "metrics").projects == (("x", 30),)
    assert not any(retention(Settings(), kind).projects for kind in KINDS)


@pytest.mark.parametrize(
    "text",
    ["dev", "dev=7", "dev.steps=0", "dev.nothing=7", "a'b.steps=7", "dev.steps=7;x.steps=8", "="],
)
def test_what_is_no_retention_is_refused(text: str) -> None:
    """A mistake is an error when the settings are read, not when rows are gone."""
    with pytest.raises(ValueError, match="retention_by_project"):
        Settings(retention_by_project=text)


@pytest.mark.parametrize(
    ("project", "days", "taken"),
    [
        ("dev", 6.9, True),
        ("dev", 7.1, False),
        ("shop", 89, True),
        ("shop", 91, False),
        ("other", 29, True),
        ("other", 31, False),
    ],
)
def test_a_step_older_than_its_projects_retention_is_rejected(
    project: str, days: float, taken: bool
) -> None:
    """By the project's own days, whether these are fewer or more than the others'."""
    limits = record_limits(Settings(retention_by_project="dev.steps=7,shop.steps=90"))
    verdict = accept_value(aged(days, project), timestamp_us=NOW_US, limits=limits)
    assert isinstance(verdict, Accepted) is taken
    if isinstance(verdict, Rejected):
        assert verdict.reason == "time_out_of_range"
