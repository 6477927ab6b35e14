"""The release that a run used, and how it differs from it, in its trajectory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stepstream.schemas.release import encode_release
from stepstream.schemas.release_log import IN_A_WORKER, ReleaseLog, release_key
from stepstream.schemas.step import RELEASE_ATTRIBUTE
from tests.support.release_folder import built
from tests.support.stream_bench import Bench, root, step


def play(bench: Bench, release: str, *, tool: str, version: str = "v12") -> dict[str, Any]:
    """The newest trajectory of a run that calls a tool."""
    named = {"attributes": {RELEASE_ATTRIBUTE: release}} if release else {}
    common: dict[str, Any] = {"agent": "support", "agent_version": version, **named}
    bench.send(root("start", 0, **common), 0)
    bench.swap()
    bench.send(step(2, "end", 1, 2, kind="tool_call", tool=tool), 2)
    bench.send(root("end", 0, 3, **common), 3)
    bench.wait(20)
    found = bench.values("trajectories")[-1]
    assert found["closed"]
    return found


@pytest.mark.parametrize(
    ("given", "drift"),
    [
        ({"tool": "lookup_order"}, []),
        ({"tool": "refund"}, ["tools"]),
        ({"tool": "refund", "version": "v13"}, ["version", "tools"]),
        ({"tool": "refund", "release": ""}, ["none"]),
        ({"tool": "refund", "release": "f" * 64}, ["unknown"]),
    ],
)
def test_a_run_states_its_release_and_the_difference(
    tmp_path: Path, given: dict[str, Any], drift: list[str]
) -> None:
    """The worker knows the releases without their contents; a restart keeps the run's release."""
    release = built(tmp_path)
    bench, log = Bench(), ReleaseLog(IN_A_WORKER)
    log.apply(release_key(release), encode_release(release), 0)
    bench.logic.publisher.releases = log
    found = play(bench, **{"release": release.hash, **given})
    assert found.get("release", "") == given.get("release", release.hash)
    assert found.get("config_drift", []) == drift


def test_an_agent_without_releases_has_no_drift() -> None:
    found = play(Bench(), "", tool="t")
    assert (found.get("release", ""), found.get("config_drift", [])) == ("", [])
