"""Runs whose configuration is not that of a published release."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from stepstream.releases.drift import config_drift
from stepstream.schemas.release import encode_release
from stepstream.schemas.release_log import ReleaseLog, release_key
from tests.support.release_folder import built


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({}, []),
        ({"models": ["gpt-4o-2024-08-06", "gpt-4o"]}, []),
        ({"tools": []}, []),
        ({"release": ""}, ["none"]),
        ({"release": "f" * 64}, ["unknown"]),
        ({"agent_version": "v13"}, ["version"]),
        ({"tools": ["lookup_order", "refund"]}, ["tools"]),
        ({"models": ["gpt-4o-mini", "claude"]}, ["models"]),
        ({"agent_version": "", "tools": ["refund"]}, ["version", "tools"]),
        ({"agent": "other", "release": ""}, []),
    ],
)
def test_what_differs_from_the_release_is_named(
    tmp_path: Path, changes: dict[str, Any], kinds: list[str]
) -> None:
    """A dated snapshot of a model is that model; agents without releases have no drift."""
    release = built(tmp_path)
    log = ReleaseLog()
    log.apply(release_key(release), encode_release(release), 0)
    row = {
        "agent": "support",
        "agent_version": "v12",
        "release": release.hash,
        "tools": ["lookup_order"],
        "models": ["gpt-4o"],
        "runs": 3,
        "last_run": datetime(2026, 11, 30, tzinfo=UTC),
        "trace_id": "a" * 32,
    }
    found = config_drift([row | changes], log)
    assert [one.kind for one in found] == kinds
    if "models" in kinds:
        assert found[0].detail == "not in the release: claude, gpt-4o-mini"
