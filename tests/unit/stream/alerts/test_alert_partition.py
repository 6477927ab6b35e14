"""The alert stage: one problem is one alert despite replays; its own topic is all its state."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import msgspec
import pytest

from stepstream.schemas.alert import AlertStruct, Finding
from stepstream.schemas.alert_text import sentence
from stepstream.schemas.ids import derived_id
from stepstream.stream.alerts import partition as alert_stage
from stepstream.stream.alerts.lifecycle import MAX_FINDING_IDS, MAX_STEP_IDS, AlertLimits
from stepstream.stream.alerts.partition import AlertPartition
from stepstream.stream.core.outputs import Output
from tests.support.stream_world import START_US, Rec

_decode = msgspec.json.Decoder(AlertStruct).decode


def finding(
    number: int, state: str = "firing", *, time_s: float = 0.0, **more: Any
) -> dict[str, Any]:
    """A finding; those of one trace are about one problem unless the fields differ."""
    base = {
        "finding_id": f"finding {number}",
        "state": state,
        "time": START_US + round(time_s * 1e6),
        "project": "shop",
        "agent": "support",
        "trace_id": "a" * 32,
        "alert": "run-cost",
        "rule": "run_cost",
        "severity": "warning",
        "message": f"message {number}",
        "value": float(number),
        "step_ids": [f"{number:016x}"],
    }
    Finding.model_validate(base | more)
    return base | more


def record(offset: int, item: dict[str, Any]) -> Rec:
    return Rec(offset, START_US // 1000, b"shop", msgspec.json.encode(item), ())


def process_all(
    logic: AlertPartition, items: list[dict[str, Any]], *, start: int = 0
) -> list[AlertStruct]:
    """Process findings, acknowledge everything; the alert records they led to."""
    for offset, item in enumerate(items, start):
        logic.process(record(offset, item))
    return [_decode(output.value or b"") for output in acknowledged(logic)]


def acknowledged(logic: AlertPartition) -> list[Output]:
    outputs = logic.take_outputs()
    for output in outputs:
        logic.acknowledged(output)
    return outputs


def test_one_problem_is_one_alert_with_growing_seq() -> None:
    """Updated, not repeated: the worst severity, the newest words, all the evidence."""
    alerts = process_all(
        AlertPartition(0),
        [
            finding(1, time_s=1),
            finding(2, severity="error", time_s=2),
            finding(3, severity="info", time_s=3),
            finding(4, "resolved", time_s=4, severity="info"),
        ],
    )
    assert [(a.seq, a.state, a.severity, a.message, a.findings) for a in alerts] == [
        (1, "firing", "warning", "message 1", 1),
        (2, "firing", "error", "message 2", 2),
        (3, "firing", "error", "message 3", 3),
        (4, "resolved", "error", "message 3", 3),
    ]
    last = alerts[-1]
    assert {a.alert_id for a in alerts} == {last.alert_id}
    assert (last.opened_at, last.updated_at, last.resolved_at) == tuple(
        START_US + s * 1_000_000 for s in (1, 4, 4)
    )
    assert last.step_ids == [f"{n:016x}" for n in (1, 2, 3)]
    assert last.finding_ids == [f"finding {n}" for n in (1, 2, 3, 4)]
    assert [(a.source_partition, a.source_offset) for a in alerts] == [
        (0, 0),
        (0, 1),
        (0, 2),
        (0, 3),
    ]


def test_the_id_is_derived_from_the_group_and_the_time_it_opened() -> None:
    """The same log gives the same alerts on every machine."""
    (alert,) = process_all(AlertPartition(0), [finding(1, subject="search")])
    group = ("shop", "", "support", "run-cost", "a" * 32, "search")
    assert alert.alert_id == derived_id("alert", *group, START_US)


@pytest.mark.parametrize(
    "field", ["project", "environment", "agent", "alert", "trace_id", "subject"]
)
def test_a_difference_in_one_of_these_fields_is_another_problem(field: str) -> None:
    """Project, environment, agent, alert, run and subject identify a problem."""
    other: dict[str, Any] = {field: "b" * 32}
    alerts = process_all(AlertPartition(0), [finding(1), finding(2, **other)])
    assert [alert.seq for alert in alerts] == [1, 1]
    assert len({alert.alert_id for alert in alerts}) == 2


def test_a_finding_that_comes_again_changes_nothing() -> None:
    """By its id, at whatever offset, in whatever state the alert is."""
    logic = AlertPartition(0)
    process_all(logic, [finding(1), finding(2)])
    assert process_all(logic, [finding(1), finding(2)], start=2) == []
    process_all(logic, [finding(3, "resolved")], start=4)
    assert process_all(logic, [finding(1), finding(3, "resolved"), finding(2)], start=5) == []
    assert logic.offsets.safe == 8


def test_a_replay_below_what_was_merged_changes_nothing() -> None:
    """Even a finding whose id is long forgotten: its offset proves that it was merged."""
    logic = AlertPartition(0)
    # Twice as many as an alert remembers: the first half is known by its offsets only.
    items = [finding(number) for number in range(2 * MAX_FINDING_IDS)]
    newest = process_all(logic, items)[-1]
    assert len(newest.finding_ids) == MAX_FINDING_IDS
    again = AlertPartition(0)
    again.restore([newest], 0)
    assert process_all(again, items) == []
    assert process_all(again, [finding(999)], start=len(items))[0].seq == newest.seq + 1


def test_a_problem_that_returns_soon_is_the_same_alert() -> None:
    """Within the flap window it keeps its identity, and counts how often it came back."""
    logic = AlertPartition(0)
    alerts = process_all(
        logic,
        [
            finding(1),
            finding(2, "resolved", time_s=1),
            finding(3, time_s=601),
            finding(4, "resolved"),
        ],
    )
    assert [(a.seq, a.change, a.state, a.reopened, a.findings) for a in alerts] == [
        (1, "opened", "firing", 0, 1),
        (2, "resolved", "resolved", 0, 1),
        (3, "reopened", "firing", 1, 2),
        (4, "resolved", "resolved", 1, 2),
    ]
    assert len({a.alert_id for a in alerts}) == 1
    assert [bool(a.resolved_at) for a in alerts] == [False, True, False, True]


def test_a_problem_that_returns_late_is_a_new_alert() -> None:
    """Named by the time it opened again; what belonged to the one before is still recognised."""
    logic = AlertPartition(0)
    first, _ = process_all(logic, [finding(1), finding(2, "resolved", time_s=1)])
    # The flap window is ten minutes; the alert was resolved at 1 s.
    (again,) = process_all(logic, [finding(3, time_s=602)], start=2)
    assert (again.seq, again.state, again.findings) == (1, "firing", 1)
    assert again.alert_id != first.alert_id
    assert process_all(logic, [finding(1), finding(2, "resolved", time_s=1)], start=3) == []
    restored = AlertPartition(0)
    restored.restore([first, again], 3)
    assert process_all(restored, [finding(1), finding(2, "resolved", time_s=1)], start=3) == []


def test_people_acknowledge_and_silence() -> None:
    """Both are fields of the firing alert, which goes on growing and ends by itself."""
    alerts = process_all(
        AlertPartition(0),
        [
            finding(1),
            finding(2, "acknowledged", by="ada"),
            finding(3, "silenced", until=START_US + 9, by="ada"),
            finding(4, severity="critical"),
            finding(5, "resolved"),
        ],
    )
    assert [(a.seq, a.state, a.severity, a.acknowledged_by, a.silenced_until) for a in alerts] == [
        (1, "firing", "warning", "", 0),
        (2, "firing", "warning", "ada", 0),
        (3, "firing", "warning", "ada", START_US + 9),
        (4, "firing", "critical", "ada", START_US + 9),
        (5, "resolved", "critical", "ada", START_US + 9),
    ]


@pytest.mark.parametrize("state", ["resolved", "acknowledged", "silenced"])
def test_what_ends_or_quiets_nothing_is_nothing(state: str) -> None:
    """Without a firing alert there is nothing to change, and nothing is published."""
    logic = AlertPartition(0)
    assert process_all(logic, [finding(1, state)]) == []
    process_all(logic, [finding(2), finding(3, "resolved")], start=1)
    assert process_all(logic, [finding(4, state)], start=3) == []
    assert logic.offsets.safe == 4


def test_every_record_states_what_changed_and_by_whom() -> None:
    """An alert's history is complete by itself; a resolved alert is no longer marked as running."""
    alerts = process_all(
        AlertPartition(0),
        [
            finding(1, message="cost $1 so far", running=True, run_steps=4),
            finding(2, severity="error", message="cost $2 so far", running=True, run_steps=9),
            finding(3, message="cost $3 so far", running=True, run_steps=11),
            finding(4, "acknowledged", by="ada"),
            finding(5, "silenced", by="bob", until=START_US + 10**9),
            finding(6, "resolved", by="eve"),
        ],
    )
    assert [(a.change, a.by) for a in alerts] == [
        ("opened", ""), ("worse", ""), ("updated", ""),
        ("acknowledged", "ada"), ("silenced", "bob"), ("resolved", "eve"),
    ]  # fmt: skip
    assert sentence(alerts[-2]) == "cost $3 so far; still running, step 11"
    assert sentence(alerts[-1]) == "cost $3 so far"


def test_an_acknowledgement_lasts_while_the_alert_flaps() -> None:
    """But an alert that a person resolved is opened again for them."""
    items = [
        finding(1),
        finding(2, "acknowledged", by="ada"),
        finding(3, "resolved", time_s=1),
        finding(4, time_s=2),
    ]
    *_, over, back = process_all(AlertPartition(0), items)
    assert (over.by, over.acknowledged_by, back.acknowledged_by) == ("", "ada", "ada")
    items[2] = finding(3, "resolved", time_s=1, by="ada")
    *_, over, back = process_all(AlertPartition(0), items)
    assert (over.by, back.acknowledged_by, back.change) == ("ada", "", "reopened")


def test_a_change_of_one_alert_does_not_affect_a_later_one() -> None:
    """A person may be late: the alert they saw is over, another of the same problem has opened."""
    logic = AlertPartition(0)
    first, _ = process_all(logic, [finding(1), finding(2, "resolved", time_s=1)])
    (again,) = process_all(logic, [finding(3, time_s=700)], start=2)
    assert (
        process_all(logic, [finding(4, "acknowledged", by="ada", alert_id=first.alert_id)], start=3)
        == []
    )
    (changed,) = process_all(
        logic, [finding(5, "acknowledged", by="ada", alert_id=again.alert_id)], start=4
    )
    assert changed.acknowledged_by == "ada"


def test_a_silence_applies_to_the_problem_not_to_its_first_alert() -> None:
    """What comes back while it is silenced is silenced; afterwards it is not."""
    logic = AlertPartition(0)
    until = START_US + 2_000 * 10**6
    process_all(
        logic,
        [
            finding(1),
            finding(2, "silenced", by="ada", until=until),
            finding(3, "resolved", time_s=1),
        ],
    )
    again, _, late = process_all(
        logic,
        [finding(4, time_s=900), finding(5, "resolved", time_s=1_000), finding(6, time_s=2_100)],
        start=3,
    )
    assert (again.seq, again.silenced_until, late.seq, late.silenced_until) == (1, until, 1, 0)


def broken_tool(
    number: int, state: str = "firing", *, run: int, time_s: float, **more: Any
) -> dict[str, Any]:
    fields = {
        "alert": "tool-error-ignored",
        "rule": "tool_error_ignored",
        "subject": "search",
        "trace_id": f"{run:032x}",
    }
    return finding(
        number,
        state,
        time_s=time_s,
        **(fields | {"message": "search failed", "running": True, "run_steps": 2} | more),
    )


def test_many_runs_hit_by_one_broken_tool_are_one_incident() -> None:
    """From the third run on: a count and samples, in addition to the runs' own alerts."""
    logic = AlertPartition(0)
    alerts = process_all(logic, [broken_tool(n, run=n, time_s=n) for n in range(1, 41)])
    incident = [a for a in alerts if a.runs]
    own = [a for a in alerts if not a.runs]
    assert [(a.seq, a.runs) for a in incident] == [(n - 2, n) for n in range(3, 41)]
    assert {a.alert_id for a in incident} == {incident[0].alert_id}
    last = incident[-1]
    assert (last.trace_id, last.subject, last.message, last.running) == (
        "",
        "search",
        "40 runs: search failed",
        False,
    )
    # The first ten show how it began, the newest ten how it is now.
    assert last.trace_ids == [f"{n:032x}" for n in (*range(1, 11), *range(31, 41))]
    # The first two opened before there was an incident.
    assert [a.incident_id for a in own] == ["", ""] + [last.alert_id] * 38


def test_what_is_about_one_run_is_no_incident() -> None:
    """Its cost, its loop, its step: each run's alert is its own."""
    for more in (
        {"rule": "run_cost", "subject": ""},
        {"rule": "loop"},
        {"rule": "step_duration", "subject": "a" * 16},
    ):
        alerts = process_all(
            AlertPartition(0), [broken_tool(n, run=n, time_s=n, **more) for n in range(1, 9)]
        )
        assert [a.runs for a in alerts] == [0] * 8


def test_runs_far_apart_are_no_incident() -> None:
    """Within the window, or never; and none at all where the setting disables them."""
    alerts = process_all(
        # Two runs within ten minutes, and three are needed.
        AlertPartition(0),
        [broken_tool(n, run=n, time_s=n * 400) for n in range(1, 9)],
    )
    assert [a.runs for a in alerts] == [0] * 8
    off = AlertPartition(0, limits=AlertLimits(incident_runs=0))
    assert [
        a.runs for a in process_all(off, [broken_tool(n, run=n, time_s=n) for n in range(1, 9)])
    ] == [0] * 8


def test_a_finding_that_comes_again_is_no_other_run() -> None:
    """Sent twice by a worker that died in between, it counts once."""
    items = [broken_tool(n, run=n, time_s=n) for n in range(1, 6)]
    alerts = process_all(AlertPartition(0), [*items, *items])
    assert max(a.runs for a in alerts) == 5


def test_an_incident_that_hits_no_run_is_over() -> None:
    """Time ends it by a finding, effective once read back, unless one more run was hit."""
    logic = AlertPartition(0)
    process_all(logic, [broken_tool(n, run=n, time_s=n) for n in range(1, 5)])
    logic.tick(START_US + 603 * 10**6)
    assert logic.take_outputs() == []
    for seconds in (605, 606):
        logic.tick(START_US + seconds * 10**6)
    (sent,) = acknowledged(logic)
    assert sent.topic == "findings"
    over = msgspec.json.decode(sent.value or b"")
    (late,) = [
        a for a in process_all(logic, [broken_tool(9, run=9, time_s=600)], start=4) if a.runs
    ]
    assert process_all(logic, [over], start=5) == []
    logic.tick(START_US + 1_300 * 10**6)
    (again,) = acknowledged(logic)
    (end,) = process_all(logic, [msgspec.json.decode(again.value or b"")], start=6)
    assert (end.alert_id, end.seq, end.state, end.change) == (
        late.alert_id,
        late.seq + 1,
        "resolved",
        "resolved",
    )
    logic.tick(START_US + 5_000 * 10**6)
    assert logic.take_outputs() == []


def test_evidence_is_bounded() -> None:
    """The oldest twenty steps; more are counted in the findings."""
    alerts = process_all(
        AlertPartition(0), [finding(number, step_ids=[f"{number:016x}"]) for number in range(50)]
    )
    assert len(alerts[-1].step_ids) == MAX_STEP_IDS
    assert alerts[-1].findings == 50


def test_the_safe_offset_waits_for_the_alert() -> None:
    """A finding is done when its alert is acknowledged, whatever came after it."""
    logic = AlertPartition(0)
    for offset, item in enumerate([finding(1), finding(2), finding(2)]):
        logic.process(record(offset, item))
    first, second = logic.take_outputs()
    assert logic.offsets.safe == 0
    logic.acknowledged(second)
    assert logic.offsets.safe == 0
    logic.acknowledged(first)
    assert logic.offsets.safe == 3


@pytest.mark.parametrize("value", [b"", b"no json", b"[]", b'{"finding_id": 3}', b"\xff"])
def test_what_is_no_finding_goes_to_the_dead_letter(value: bytes) -> None:
    """And keeps the safe offset back until it is there."""
    logic = AlertPartition(0)
    logic.process(Rec(0, START_US // 1000, b"shop", value, ()))
    (output,) = logic.take_outputs()
    assert (output.topic, output.value, logic.offsets.safe) == ("deadletter", value, 0)
    assert dict(output.headers)["stepstream-topic"] == b"findings"
    logic.acknowledged(output)
    assert logic.offsets.safe == 1


def test_resolved_alerts_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest resolved ones are forgotten; what fires is kept however old."""
    monkeypatch.setattr(alert_stage, "KEEP_RESOLVED", 50)
    logic = AlertPartition(0)
    items = [finding(0, trace_id="f" * 32)]
    for number in range(1, 400):
        items += [
            finding(number, trace_id=f"{number:032x}"),
            finding(-number, "resolved", trace_id=f"{number:032x}"),
        ]
    process_all(logic, items)
    # Twice the bound and the firing one: a clean-up starts there.
    assert len(logic._alerts) <= 101
    assert process_all(logic, [finding(9_999, trace_id="f" * 32)], start=len(items))[0].seq == 2


def make_findings(rng: random.Random) -> list[dict[str, Any]]:
    """Interleaved problems with repeats, reopenings, acknowledgements and silences."""
    items: list[dict[str, Any]] = []
    for number in range(400):
        trace_id = f"{rng.randrange(1, 12):032x}"
        state = rng.choices(["firing", "resolved", "acknowledged", "silenced"], [6, 3, 1, 1])[0]
        shared = (
            {"rule": "tool_error_ignored", "subject": "search", "alert": "tool-error-ignored"}
            if number % 3
            else {}
        )
        severity = rng.choice(["warning", "error"])
        items.append(
            finding(
                number,
                state,
                trace_id=trace_id,
                time_s=number * 7,
                by="ada",
                severity=severity,
                **shared,
            )
        )
        if rng.random() < 0.2:
            items.append(rng.choice(items[-30:]))
    return items


@pytest.mark.parametrize("seed", range(25))
def test_crashes_anywhere_give_the_same_alerts(seed: int) -> None:
    """Restored from its own topic at any point: the same alerts, equal by id and seq."""
    rng = random.Random(seed)
    items = make_findings(rng)
    calm = {(a.alert_id, a.seq): a for a in process_all(AlertPartition(0), items)}
    topic: list[AlertStruct] = []
    safe, crashes = 0, 0
    # Each life ends after a number of findings that chance decides, acknowledged or not.
    while safe < len(items):
        logic = AlertPartition(0)
        logic.restore(topic, safe)
        safe = live(logic, items, safe, topic, rng)
        crashes += 1
    assert crashes > 3
    assert {(a.alert_id, a.seq) for a in topic} == set(calm)
    assert all(alert == calm[alert.alert_id, alert.seq] for alert in topic)


def live(
    logic: AlertPartition,
    items: list[dict[str, Any]],
    start: int,
    topic: list[AlertStruct],
    rng: random.Random,
) -> int:
    """A process's life: outputs are acknowledged late and in order, some in flight still arrive."""
    flight: list[Output] = []
    for offset in range(start, min(len(items), start + rng.randrange(1, 120))):
        logic.process(record(offset, items[offset]))
        flight += logic.take_outputs()
        while flight and rng.random() < 0.6:
            output = flight.pop(0)
            topic.append(_decode(output.value or b""))
            logic.acknowledged(output)
    safe = logic.offsets.safe
    topic += [_decode(output.value or b"") for output in flight[: rng.randrange(len(flight) + 1)]]
    return safe


@pytest.mark.parametrize("seed", range(10))
def test_a_zombie_and_its_successor_publish_the_same(seed: int) -> None:
    """Both read the same log, so both publish the same records under the same id and seq."""
    rng = random.Random(seed)
    items = make_findings(rng)
    zombie, topic = AlertPartition(0), list[AlertStruct]()
    cut = rng.randrange(100, 300)
    safe = live(zombie, items[:cut], 0, topic, rng)
    successor = AlertPartition(0)
    successor.restore(topic, safe)
    topic += process_all(
        zombie, items[zombie.offsets.position : cut + 40], start=zombie.offsets.position
    )
    topic += process_all(successor, items[safe:], start=safe)
    published: dict[tuple[str, int], set[bytes]] = defaultdict(set)
    for alert in topic:
        published[alert.alert_id, alert.seq].add(msgspec.json.encode(alert))
    assert {key: len(forms) for key, forms in published.items() if len(forms) > 1} == {}
    assert set(published) == {(a.alert_id, a.seq) for a in process_all(AlertPartition(0), items)}


def test_a_quotation_goes_with_its_alert_apart_from_the_message() -> None:
    """The newest quote goes into the alert, its incident and later records; old ones lack it."""
    limits = AlertLimits(incident_runs=2)
    items = [
        finding(n, trace_id=f"{n:032x}", subject="lookup", quoted=f"quote {n}") for n in (1, 2)
    ]
    items += [
        finding(3, trace_id=f"{1:032x}", subject="lookup", quoted="quote 3"),
        finding(4, subject="other"),
    ]
    alerts = process_all(AlertPartition(0, limits=limits), items)
    assert [(alert.message, alert.quoted) for alert in alerts] == [
        ("message 1", "quote 1"), ("message 2", "quote 2"),
        ("2 runs: message 2", "quote 2"), ("message 3", "quote 3"),
        ("message 4", ""),
    ]  # fmt: skip


def test_a_note_opens_no_alert_and_changes_none() -> None:
    """Neither when it fires nor when it ends; a run that was only noted makes no incident."""
    items = [
        finding(n, severity="note", trace_id=f"{n:032x}", subject="lookup") for n in range(1, 5)
    ]
    assert process_all(AlertPartition(0, limits=AlertLimits(incident_runs=2)), items) == []
    alerts = process_all(
        AlertPartition(0),
        [finding(1), finding(2, severity="note"), finding(3, "resolved", severity="note")],
    )
    assert [(alert.state, alert.seq) for alert in alerts] == [("firing", 1)]


def test_what_later_steps_contradict_is_resolved_as_withdrawn() -> None:
    """With the reason; an alert that comes back is withdrawn no more."""
    over = finding(
        2, "resolved", withdrawn=True, message="withdrawn: it was called again", time_s=1
    )
    first, second, third = process_all(AlertPartition(0), [finding(1), over, finding(3, time_s=2)])
    assert (first.withdrawn, second.withdrawn, third.withdrawn) == (False, True, False)
    assert (second.state, second.message, second.detail) == (
        "resolved",
        "message 1",
        "withdrawn: it was called again",
    )
    assert (third.change, third.state) == ("reopened", "firing")
