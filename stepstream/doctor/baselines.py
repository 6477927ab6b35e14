"""What is normal for each agent and task, as the workers have published it."""

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
    """Which agents have enough runs for spikes to be judged, and which are still learning."""
    counts = known_runs(settings)
    judged = [owner for owner, _ in counts.items() if owner.task or not _has_tasks(owner, counts)]
    lines = learning(counts, (owner for owner in judged if owner.agent))
    learnt = sorted(
        (count, name_of(owner))
        for owner, count in counts.items()
        if owner in judged and owner.agent
    )
    ready = [f"{name} {count:,} runs" for count, name in reversed(learnt) if count >= MIN_RUNS][:3]
    if not counts:
        yield ok(
            "baselines", f"nothing learnt yet: spikes are judged once {MIN_RUNS} runs have closed"
        )
    else:
        yield ok("baselines", "; ".join([*ready, *lines]))


def known_runs(settings: Settings) -> dict[Owner, int]:
    """The runs that each published baseline was learnt from."""
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
