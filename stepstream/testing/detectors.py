"""The behaviour suite of detectors: what every one of them promises, whatever it looks for.

Each check raises ``AssertionError`` with a sentence about the problem; ``check_detector`` makes all
of them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from stepstream.schemas.step import StepEvent
from stepstream.schemas.times import DAY_US
from stepstream.stream.detectors.base import MAX_EVIDENCE
from stepstream.stream.run.run import MAX_FINDINGS
from stepstream.testing.cases import DetectorCase
from stepstream.testing.world import World, all_at_once, as_they_happen

ORDERS: Final = 12
LONG_RUN: Final = 1_500
MAX_STATE: Final = 262_144
"""Bytes that a detector may keep of a run."""
YEAR_US: Final = 365 * DAY_US


def check_detector(case: DetectorCase) -> None:
    """All of the checks below."""
    check_findings(case)
    check_duplicates(case)
    check_restart(case)
    check_time(case)
    check_order(case)
    check_state(case)


def check_findings(case: DetectorCase) -> None:
    """It finds what it should, once, with evidence that exists and a sentence.

    And finds nothing in the calm run.
    """
    world = played(case, case.breaks)
    found = world.findings()
    assert len(found) == case.findings, (
        f"{case.name}: {len(found)} findings instead of {case.findings}: {_summary(found)}"
    )
    steps = {event.step_id for event in case.breaks}
    for value in found:
        assert value["message"], f"{case.name}: a finding without a sentence"
        assert len(value["message"]) <= 500, (
            f"{case.name}: too long for a sentence: {value['message'][:80]}..."
        )
        assert set(value.get("step_ids", ())) <= steps, (
            f"{case.name}: evidence that is no step of the run: {value['step_ids']}"
        )
    quiet = played(case, case.calm).findings()
    assert not quiet, f"{case.name}: fires about a run that only comes close: {_summary(quiet)}"


def check_duplicates(case: DetectorCase) -> None:
    """Kafka delivers at least once: records that come twice, at once or later, change nothing."""
    wanted = played(case, case.breaks).ids()
    for events in (
        [event for event in case.breaks for _ in range(2)],
        [*case.breaks, *case.breaks],
    ):
        times = sorted(as_they_happen(events))
        world = World(case)
        world.play(events, times)
        raised = [value["finding_id"] for value in world.findings()]
        assert set(raised) == wanted, f"{case.name}: duplicates change what is found"
        assert len(raised) == len(set(raised)), f"{case.name}: a duplicate raises a finding again"


def check_restart(case: DetectorCase) -> None:
    """What it knows of a run is in the run's state.

    A restart anywhere gives the same findings, and none a second time.
    """
    wanted = played(case, case.breaks).ids()
    world = World(case)
    world.play(case.breaks, as_they_happen(case.breaks), between=world.swap)
    assert world.ids() == wanted, (
        f"{case.name}: written down and read again after each record, it finds something else"
    )
    assert len(world.findings()) == len(wanted), (
        f"{case.name}: fires again after it was written down and read again"
    )
    for cut in range(1, len(case.breaks) + 1):
        # With a state record the run is restored, without one its records are replayed from the
        # start.
        for written in (False, True):
            crashed = _crashed(case, cut, written)
            assert crashed == wanted, (
                f"{case.name}: a crash after record {cut} changes what is found"
            )


def _crashed(case: DetectorCase, cut: int, written: bool) -> set[str]:
    world = World(case)
    fed = 0

    def after_each() -> None:
        nonlocal fed
        fed += 1
        if fed == cut:
            if written:
                world.checkpoint()
            world.crash()

    world.play(case.breaks, as_they_happen(case.breaks), between=after_each)
    return world.ids()


def check_time(case: DetectorCase) -> None:
    """Time is passed in.

    The same log gives the same findings, read at any time, also moved by a year.
    """
    first, again = played(case, case.breaks).findings(), played(case, case.breaks).findings()
    assert first == again, f"{case.name}: the same log read twice gives different findings"
    later = [_moved(event, YEAR_US) for event in case.breaks]
    moved = played(case, later).findings()
    assert _summary(moved) == _summary(first), f"{case.name}: it reads a clock"


def check_order(case: DetectorCase) -> None:
    """Records of the same moment may come in any order; skipped if order matters for the case."""
    if not case.any_order:
        return
    wanted = played(case, case.breaks).ids()
    for seed in range(ORDERS):
        events = list(case.breaks)
        # Seeded, so that a failure names an order that can be played again.
        random.Random(seed).shuffle(events)
        world = World(case)
        world.play(events, all_at_once(events))
        assert world.ids() == wanted, (
            f"{case.name}: another order (seed {seed}) changes what is found"
        )
        calm = list(case.calm)
        random.Random(seed).shuffle(calm)
        quiet = World(case)
        quiet.play(calm, all_at_once(calm))
        assert not quiet.findings(), (
            f"{case.name}: fires about a calm run in another order: {_summary(quiet.findings())}"
        )


def check_state(case: DetectorCase) -> None:
    """Its state of a long run is bounded, plain data, and so are its findings and evidence."""
    world = World(case)
    for number, event in enumerate(_long_run(case.breaks)):
        world.append(event, event.end_time or event.start_time)
        # State that grows and is trimmed again would not show at the end alone.
        if number % 250 == 0:
            _check_size(case, world)
    _check_size(case, world)
    found = world.findings()
    assert len(found) <= MAX_FINDINGS, f"{case.name}: {len(found)} findings about one run"
    for value in found:
        assert len(value.get("step_ids", ())) <= MAX_EVIDENCE, (
            f"{case.name}: evidence of {len(value['step_ids'])} steps"
        )


def _check_size(case: DetectorCase, world: World) -> None:
    for run in world.runs:
        state = run.detector_state
        written = msgspec.msgpack.encode(state)
        assert len(written) <= MAX_STATE, (
            f"{case.name}: keeps {len(written)} bytes of a run, {MAX_STATE} are the most"
        )
        assert msgspec.msgpack.decode(written, strict=False) == state, (
            f"{case.name}: its state is not plain data"
        )


def played(case: DetectorCase, events: Sequence[StepEvent]) -> World:
    """A world in which the events came as they happened."""
    world = World(case)
    world.play(events, as_they_happen(events))
    return world


def _long_run(events: Sequence[StepEvent]) -> list[StepEvent]:
    """The events again and again as steps of their own, each a little different, within one run."""
    root, parts = (
        [event for event in events if not event.parent_step_id][:1],
        [e for e in events if e.parent_step_id],
    )
    out = list(root)
    for number in range(LONG_RUN):
        event = parts[number % len(parts)]
        change: dict[str, Any] = {"step_id": f"{number + 1_000:016x}"}
        if number % 3:
            change |= {
                "input": f"{event.input} {number}",
                "output": f"{event.output} {number}",
                "name": f"{event.name}{number % 700}",
            }
        # New names as well as new texts: state keyed by the tool's name must be bounded too.
        if number % 5 == 0 and event.tool:
            change["tool"] = f"{event.tool}{number % 700}"
        out.append(_moved(event.model_copy(update=change), number * 1_000))
    return out


def _moved(event: StepEvent, by_us: int) -> StepEvent:
    change: dict[str, Any] = {"start_time": event.start_time + by_us}
    if event.end_time is not None:
        change["end_time"] = event.end_time + by_us
    return event.model_copy(update=change)


def _summary(found: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(str(value.get("subject", "")), str(value["message"])) for value in found]
