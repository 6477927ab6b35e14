"""Sealed windows in a scenario: whether the usage in each minute is exactly what was sent."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import msgspec

from stepstream.common.kafka import read_to_end
from stepstream.schemas.settings import Settings
from stepstream.schemas.times import HOUR_US, MINUTE_US
from stepstream.schemas.topics import topic
from tests.chaos.truth import RunTruth, Truth

# Project, agent, minute (unix microseconds).
Place = tuple[str, str, int]


class WindowVerifier:
    """Steps, cost and runs of each agent and minute, after everything was sealed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._minutes = 0

    def is_settled(self, truth: Truth) -> bool:
        """Whether everything that was sent is sealed; ``problems`` compares the parts."""
        found, runs = self._read()
        return sum(steps for steps, _ in found.values()) >= sum(
            len(run.ended) for run in truth.runs.values()
        ) and (sum(runs.values()) >= truth.count(closed_only=True))

    def problems(self, truth: Truth) -> list[str]:
        """Everything that is wrong."""
        found, runs = self._read()
        wanted = _wanted(truth)
        self._minutes = len(found)
        different = [
            place for place in found.keys() | wanted.keys() if found.get(place) != wanted.get(place)
        ]
        wrong = [
            f"windows: {place} has {found.get(place)}, wanted {wanted.get(place)}"
            for place in different
        ]
        closed = Counter(_project(run) for run in truth.runs.values() if run.closes)
        if runs != closed:
            wrong.append(f"windows: runs by project are {dict(runs)}, wanted {dict(closed)}")
        return wrong

    def counts(self) -> dict[str, int]:
        """What was compared."""
        return {"sealed minutes of agents": self._minutes}

    def _read(self) -> tuple[dict[Place, tuple[int, int]], Counter[str]]:
        newest: dict[bytes, dict[str, Any] | None] = {}
        for message in read_to_end(self._settings, topic(self._settings.topic_prefix, "fleet")):
            key = message.key() or b""
            if b"|window|" in key:
                newest[key] = msgspec.json.decode(value) if (value := message.value()) else None
        windows = [
            window for window in newest.values() if window is not None and not window.get("user_id")
        ]
        hours = {
            (_owner(window), window["start"])
            for window in windows
            if window["end"] - window["start"] == HOUR_US
        }
        sums: dict[Place, list[int]] = defaultdict(lambda: [0, 0])
        runs: Counter[str] = Counter()
        for window in windows:
            hour_us = window["start"] - window["start"] % HOUR_US
            if window["end"] - window["start"] != HOUR_US and (_owner(window), hour_us) in hours:
                continue
            for minute in window.get("minutes", ()):
                place = (
                    window["project"],
                    window.get("agent", ""),
                    hour_us + minute["minute"] * MINUTE_US,
                )
                sums[place][0] += minute.get("steps", 0)
                sums[place][1] += minute.get("cost_nanos", 0)
                runs[window["project"]] += minute.get("runs", 0)
        return {place: (steps, cost) for place, (steps, cost) in sums.items() if steps}, runs


def _owner(window: dict[str, Any]) -> tuple[str, ...]:
    return tuple(
        window.get(name, "")
        for name in ("project", "environment", "agent", "agent_version", "task")
    )


def _project(run: RunTruth) -> str:
    return f"project-{int(run.trace_id[-2:], 16) % 5}"


def _wanted(truth: Truth) -> dict[Place, tuple[int, int]]:
    sums: dict[Place, list[int]] = defaultdict(lambda: [0, 0])
    for run in truth.runs.values():
        for step in run.ended.values():
            place = (_project(run), step.agent or run.agent, step.end_us - step.end_us % MINUTE_US)
            sums[place][0] += 1
            sums[place][1] += step.cost_nanos
    return {place: (steps, cost) for place, (steps, cost) in sums.items()}
