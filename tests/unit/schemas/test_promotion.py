"""Promotions: what is decided, and what the records of the topic add up to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stepstream.schemas.policy import Policy
from stepstream.schemas.promotion import (
    MAX_EARLIER,
    MAX_LABELS,
    Promotion,
    ReleaseHead,
    Verdict,
    decide,
    head_after,
    required_gates,
)
from stepstream.schemas.release import Release, encode_release
from stepstream.schemas.release_log import (
    IN_A_WORKER,
    Bounds,
    ReleaseLog,
    UnreadableRelease,
    decision_key,
    head_key,
    promotion_key,
    release_key,
)
from tests.support.release_folder import built

A, B, C = "a" * 64, "b" * 64, "c" * 64
KNOWN = {A: "v1", B: "v2", C: "v3"}
GATES = {"evaluation": "careful"}


def command(number: int, release: str, expected: int, **more: Any) -> Promotion:
    """A promotion to production."""
    fields = {"action": "promote", "agent": "support", "label": "production", "by": "ann", "at": 1}
    return Promotion.model_validate(
        {**fields, "id": f"{number:032x}", "release": release, "expected": expected, **more}
    )


def decided(commands: list[Promotion]) -> list[str]:
    """The versions under the label after each command, or why one was refused."""
    head: ReleaseHead | None = None
    found = []
    for one in commands:
        decision = decide(one, head, KNOWN, {}, 5)
        head = head_after(head, decision)
        found.append(decision.why or decision.version)
    return found


def test_of_two_commands_at_once_the_first_in_the_log_counts() -> None:
    """Both expect the same change."""
    first, second = decided([command(1, A, 0), command(2, B, 0)])
    assert first == "v1"
    assert "changed meanwhile: it is v1 (change 1), changed by ann" in second


def test_a_rollback_goes_back_step_by_step() -> None:
    """A second one goes further back, not forth again; the first release is the end."""
    back = {"action": "rollback"}
    outcomes = decided(
        [
            command(1, A, 0),
            command(2, B, 1),
            command(3, C, 2),
            command(4, "", 3, **back),
            command(5, "", 4, **back),
            command(6, "", 5, **back),
        ]
    )
    assert outcomes[:5] == ["v1", "v2", "v3", "v2", "v1"]
    assert "no earlier release" in outcomes[5]


def test_a_rollback_may_name_an_earlier_release() -> None:
    """But none that the label never was."""
    start = [command(1, A, 0), command(2, B, 1)]
    assert decided([*start, command(3, A, 2, action="rollback")])[-1] == "v1"
    refused = decided([*start, command(3, C, 2, action="rollback", version="v3")])[-1]
    assert refused == "v3 is no earlier release of production (it was: v1)"


def test_what_is_not_published_or_not_new_is_refused() -> None:
    """With the reason."""
    assert "publish it first" in decided([command(1, "d" * 64, 0)])[0]
    assert decided([command(1, A, 0), command(2, A, 1)])[1] == "production is v1 already"


@pytest.mark.parametrize(
    ("verdicts", "more", "why"),
    [
        ([], {}, "policy careful requires the gate evaluation: it was not asked"),
        ([Verdict(gate="evaluation", outcome="pass")], {}, ""),
        ([Verdict(gate="evaluation", outcome="fail", detail="success -9 %")], {}, "success -9 %"),
        ([Verdict(gate="evaluation", outcome="inconclusive")], {}, "it was inconclusive"),
        ([Verdict(gate="evaluation", outcome="missing")], {}, "no package has registered it"),
        ([Verdict(gate="other", outcome="pass")], {}, "it was not asked"),
        ([], {"override": "evaluation", "reason": "hotfix"}, ""),
        ([], {"override": "evaluation"}, "needs a reason"),
        ([], {"override": "other", "reason": "hotfix"}, "it was not asked"),
        ([], {"action": "rollback"}, "no earlier release"),
    ],
)
def test_a_gate_that_a_policy_requires(
    verdicts: list[Verdict], more: dict[str, Any], why: str
) -> None:
    """It has to pass, or to be overridden by its name with a reason; a rollback needs none."""
    one = command(1, A, 0, verdicts=verdicts, **more)
    decision = decide(one, None, KNOWN, GATES, 5)
    assert why in decision.why
    assert decision.outcome == ("refused" if why else "accepted")


def test_a_command_that_waited_too_long_is_refused() -> None:
    """No worker ran for an hour: its sender does not expect it any more."""
    decision = decide(command(1, A, 0, at=1), None, KNOWN, {}, 3_600_000_002)
    assert "older than an hour" in decision.why


def test_policies_require_gates_for_agents_and_labels() -> None:
    """The first policy by name is named."""
    policies = [
        Policy.model_validate({"name": name, "match": {"agent": agent}, "promotion": rule})
        for name, agent, rule in (
            ("b", "supp*", {"gate": "evaluation"}),
            ("a", "support", {"gate": "evaluation"}),
            ("c", "other", {"gate": "never"}),
            ("d", "support", {"gate": "review", "labels": ["staging"]}),
            ("e", "support", None),
        )
    ]
    assert required_gates(policies, "support", "v1", "production") == {"evaluation": "a"}
    assert required_gates(policies, "support", "v1", "staging") == {"review": "d"}


def test_the_log_is_the_same_however_often_it_is_read(tmp_path: Path) -> None:
    """Releases, a command and its decision, read twice and with the command's deletion."""
    release = built(tmp_path)
    one = command(1, release.hash, 0)
    decision = decide(one, None, {release.hash: "v12"}, {}, 5)
    records: list[tuple[str, bytes | None]] = [
        (release_key(release), encode_release(release)),
        (promotion_key(one), one.model_dump_json().encode()),
    ]
    log = ReleaseLog()
    for offset, (key, value) in enumerate(records):
        log.apply(key, value, offset)
    assert log.pending() == [(1, one)]
    records += [
        (decision_key(one), decision.model_dump_json().encode()),
        (head_key("support"), head_after(None, decision).model_dump_json().encode()),
        (promotion_key(one), None),
    ]
    for _ in range(2):
        for offset, (key, value) in enumerate(records):
            log.apply(key, value, offset)
    assert log.pending() == []
    assert log.decision(one) == decision
    assert log.find("support", "production") == release
    assert log.decisions("support") == [decision]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("", b"1"),
        ("release/a@b", b"{}"),
        ("release/a", b"{"),
        ("release/a", b'{"agent": "b"}'),
        ("promotion/a/1", b"{}"),
        ("decision/a/1", b"[]"),
        ("promotion/a/1", b"[" * 10_000),
    ],
)
def test_what_cannot_be_read_counts_for_nothing(key: str, value: bytes) -> None:
    """One kind of error, which names the record."""
    log = ReleaseLog()
    with pytest.raises(UnreadableRelease, match="on the topic releases is ignored"):
        log.apply(key, value, 0)
    assert (log.agents(), log.pending()) == ([], [])


def test_a_log_without_contents_names_the_same_releases(tmp_path: Path) -> None:
    """It is for processes that decide about releases and do not use them."""
    release = built(tmp_path)
    log = ReleaseLog(IN_A_WORKER)
    for offset in range(2):
        log.apply(release_key(release), encode_release(release), offset)
    (kept,) = log.releases("support")
    assert (kept.release.hash, kept.release.version) == (release.hash, release.version)
    assert not kept.release.prompts
    assert len(encode_release(kept.release)) < 300


def published(log: ReleaseLog, folder: Path, numbers: range) -> list[Release]:
    releases = [built(folder / str(number), f"v{number}") for number in numbers]
    for release in releases:
        log.apply(release_key(release), encode_release(release), log_offset(release))
    return releases


def log_offset(release: Release) -> int:
    return int(release.version.removeprefix("v"))


def test_contents_beyond_the_bound_are_not_kept(tmp_path: Path) -> None:
    """Those of the oldest release that no label names go first; what it is called stays known."""
    size = len(encode_release(built(tmp_path / "0", "v0")))
    log = ReleaseLog(Bounds(content_bytes=2 * size + size // 2))
    first, *_ = published(log, tmp_path, range(3))
    decision = decide(command(1, first.hash, 0), None, {first.hash: "v0"}, {}, 5)
    log.apply(head_key("support"), head_after(None, decision).model_dump_json().encode(), 9)
    assert [one.is_complete for one in log.releases("support")] == [False, True, True]
    log.apply(release_key(first), None, 10)
    published(log, tmp_path, range(3))  # again, in which the labelled one comes last
    published(log, tmp_path, range(3, 5))
    complete = [one.release.version for one in log.releases("support") if one.is_complete]
    assert complete == ["v0", "v4"]
    found = log.find_published("support", "v2")
    assert found is not None
    assert (found.release.title, found.release.prompts) == ("support@v2", {})
    assert log.forgotten == 0


def test_of_more_releases_than_the_bound_the_oldest_are_forgotten(tmp_path: Path) -> None:
    """A label keeps the one that it names. Decisions are forgotten too, and not made again."""
    log = ReleaseLog(Bounds(releases=2, decisions=1))
    (first,) = published(log, tmp_path, range(1))
    one = command(1, first.hash, 0)
    decision = decide(one, None, {first.hash: "v0"}, {}, 5)
    log.apply(head_key("support"), head_after(None, decision).model_dump_json().encode(), 9)
    published(log, tmp_path, range(1, 4))
    assert [one.release.version for one in log.releases("support")] == ["v0", "v3"]
    assert log.forgotten == 2
    two = command(2, first.hash, 1)
    for given in (one, two):
        made = decide(given, None, {first.hash: "v0"}, {}, 5)
        log.apply(promotion_key(given), given.model_dump_json().encode(), 20)
        log.apply(decision_key(given), made.model_dump_json().encode(), 21)
    assert (log.decision(one), log.pending()) == (None, [])
    assert log.decision(two) is not None


def test_the_labels_of_an_agent_always_fit_into_a_record() -> None:
    """As many labels and earlier releases as there may be, with the longest of each text."""
    known = {f"{number:064x}": f"v{number:063d}" for number in range(MAX_EARLIER + 2)}
    head: ReleaseHead | None = None
    for number in range(MAX_LABELS):
        for change, release in enumerate(known):
            one = command(1, release, change, label=f"l{number:063d}", by="\x01" * 2_000)
            decision = decide(one, head, known, {}, 5)
            assert decision.outcome == "accepted", decision.why
            head = head_after(head, decision)
    assert head is not None
    # Kafka's own limit for a record, and librdkafka's for a message, is about a megabyte.
    assert len(head.model_dump_json()) < 1_000_000


def test_a_version_that_was_published_twice_is_the_first(tmp_path: Path) -> None:
    """Two publications at once with different contents."""
    first, second = built(tmp_path, tone="one"), built(tmp_path, tone="two")
    log = ReleaseLog()
    for offset, release in enumerate((first, second)):
        log.apply(release_key(release), encode_release(release), offset)
    assert [one.release for one in log.releases("support")] == [first]
