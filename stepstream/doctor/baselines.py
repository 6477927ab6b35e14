"""The baselines that the workers have published for each agent and task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from stepstream.admin.fleet import readable
from stepstream.admin.learning import learning, name_of
from stepstream.common.kafka import read_to_end
from stepstream.doctor.check import Check, ok
from stepstream.schemas.fleet import FleetBaselineStruct
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from stepstream.stream.baselines.history import MIN_RUNS, Owner
from stepstream.stream.baselines.records import kind_of, owner_of

TIMEOUT_S: Final = 5.0


def checks(settings: Settings) -> Iterator[Check]:
    """Which agents have enough runs for the detection of spikes, and which have not."""
    counts = known_runs(settings)
    # An agent with tasks is compared per task, so the line about the agent alone adds nothing.
    shown = [owner for owner, _ in counts.items() if owner.task or not _has_tasks(owner, counts)]
    lines = learning(counts, (owner for owner in shown if owner.agent))
    learnt = sorted(
        (count, name_of(owner)) for owner, count in counts.items() if owner in shown and owner.agent
    )
    ready = [f"{name} {count:,} runs" for count, name in reversed(learnt) if count >= MIN_RUNS][:3]
    if not counts:
        yield ok(
            "baselines", f"none yet: spikes are detected after {MIN_RUNS} closed runs of an agent"
        )
    else:
        yield ok("baselines", "; ".join([*ready, *lines]))


def known_runs(settings: Settings) -> dict[Owner, int]:
    """The number of runs in each published baseline."""
    newest: dict[bytes, bytes] = {}
    for message in read_to_end(settings, topic(settings.topic_prefix, "fleet"), timeout=TIMEOUT_S):
        key, value = message.key() or b"", message.value()
        if kind_of(key) == "baseline":
            newest[key] = value or b""
    decode = msgspec.json.Decoder(FleetBaselineStruct).decode
    return dict(
        readable(
            (key for key, value in newest.items() if value),
            lambda key: (owner_of(key), decode(newest[key]).runs),
        )
    )


def _has_tasks(owner: Owner, counts: dict[Owner, int]) -> bool:
    return any(other.task and other._replace(task="") == owner for other in counts)
