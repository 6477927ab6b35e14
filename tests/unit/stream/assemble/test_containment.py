"""An error in a detector, a state record, an acknowledgement or a timer stops nothing else."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from stepstream.schemas.usage import MAX_USAGE_COUNT, TOTALLED
from stepstream.stream.assemble import checkpoint_writer, run_closer
from stepstream.stream.assemble import publish_schedule as publisher
from stepstream.stream.assemble.state import decode_state, encode_state
from stepstream.stream.core.contained_failures import DETECTOR_FAILED, REPORT_EVERY_US, RUN_GIVEN_UP
from stepstream.stream.core.outputs import Output
from stepstream.stream.detectors import make_detector
from stepstream.stream.detectors.base import DetectorBase, Observations
from stepstream.stream.run.limits import AssembleLimits
from stepstream.stream.run.rules import Applied, RuleBook
from stepstream.stream.run.run import Run
from tests.support.faulty_detector import BAD, GOOD, Hook, rules_with, world
from tests.support.stream_world import START_US, Kafka, Process, Rec, event, record_of


def run_of(trace_id: str, first: int, **more: Any) -> list[Rec]:
    """A run of two steps, from an offset on."""
    root = event(trace_id, "a" * 16, "", "start", START_US + first * 20_000)
    child = event(
        trace_id,
        "b" * 16,
        "a" * 16,
        "end",
        START_US + first * 20_000,
        START_US + first * 20_000 + 5,
        **more,
    )
    end = event(
        trace_id, "a" * 16, "", "end", START_US + first * 20_000, START_US + first * 20_000 + 10
    )
    return [record_of(first + index, item) for index, item in enumerate((root, child, end))]


def settled(process: Process, last: int = 10) -> Process:
    process.settle(max(process.logic.clock.now_us, START_US + last * 20_000))
    return process


def findings(kafka: Kafka, alert: str) -> list[dict[str, Any]]:
    return [found for found in kafka.values("findings") if found["alert"] == alert]


@pytest.mark.parametrize(
    "where", ["on_step", "on_content", "on_timer", "on_close", "state", "surrogate", "lazily"]
)
def test_a_detector_that_raises_is_off_for_that_run_and_nothing_else_changes(where: str) -> None:
    rules, made = rules_with(where)
    process = world(rules)
    process.batch(run_of(BAD, 0) + run_of(GOOD, 3))
    settled(process)
    final = process.kafka.final()
    assert {trace: value["closed"] for trace, value in final.items()} == {BAD: True, GOOD: True}
    assert process.logic.counters.detector_errors == {"loop": 1}
    assert [found["subject"] for found in findings(process.kafka, DETECTOR_FAILED)] == ["loop"]
    assert "deadletter" not in process.kafka.topics
    assert process.kafka.committed == 6
    assert made[0].asked.count(where) <= 1


def test_the_alert_names_the_detector_and_error_and_quotes_nothing_in_its_sentence() -> None:
    process = world(rules_with("on_content")[0])
    process.batch(run_of(BAD, 0))
    (found,) = findings(settled(process).kafka, DETECTOR_FAILED)
    assert "loop" in found["message"]
    assert "ValueError in _called" in found["message"]
    assert "²" not in found["message"]
    assert "²" in found["quoted"]
    assert found["severity"] == "error"
    assert "trace_id" not in found


def test_a_detector_stays_off_after_a_restart() -> None:
    rules, made = rules_with("on_step")
    limits = AssembleLimits(checkpoint_after_us=1)
    process = Process(Kafka(), random.Random(1), limits, rules)
    records = run_of(BAD, 0)
    process.batch(records[:2])
    for _ in range(20):
        process.logic.tick(START_US + 1_000_000)
        process.logic.flush()
        process.pump()
    assert decode_state(process.kafka.topics["state"][-1].value or b"").off == ["loop"]
    after = Process(process.kafka, random.Random(2), limits, rules)
    after.batch(records[2:])
    settled(after)
    assert made[0].asked.count("on_step") == 1
    assert process.kafka.final()[BAD]["closed"]


def test_many_runs_that_meet_a_fault_make_one_finding_and_one_log_line() -> None:
    rules = RuleBook(
        (),
        lambda applied: _always(applied) if applied.rule.rule == "loop" else make_detector(applied),
    )
    logged: list[str] = []
    process = world(rules)
    process.logic._failures._log_text = logged.append
    for number in range(50):
        process.batch(run_of(f"{number + 10:032x}", 3 * number))
    settled(process, 150)
    assert process.logic.counters.detector_errors["loop"] == 50
    assert len(findings(process.kafka, DETECTOR_FAILED)) == len(logged) == 1
    assert "ZeroDivisionError" in logged[0]
    late_us = START_US + 2 * REPORT_EVERY_US
    record = record_of(150, event(f"{99:032x}", "a" * 16, "", "end", late_us))
    record.timestamp = late_us // 1000
    process.batch([record])
    settled(process, 2 * REPORT_EVERY_US // 20_000)
    assert len(findings(process.kafka, DETECTOR_FAILED)) == len(logged) == 2


def _always(applied: Applied) -> Any:
    class Always(DetectorBase):
        def on_step(self, run: Run, step: Any, now_us: int) -> Observations:
            raise ZeroDivisionError

    return Always(applied)


@pytest.mark.parametrize(
    "text",
    ["²", "①", "³¹", "٣", "1_0", " 1", "+1", "-1", "9" * 5000, "1e400", "NaN", "\ud800", "½"],
)
@pytest.mark.parametrize(
    "shape",
    ['{"code": %s, "message": "failed"}', '{"status": %s}', '{"error": {"code": %s}}', "[%s]"],
)
def test_whatever_a_tool_returns_runs_close(shape: str, text: str) -> None:
    process = world()
    process.batch(
        run_of(
            BAD,
            0,
            tool="t",
            output=shape % msgspec.json.encode(text.replace("\ud800", "?")).decode(),
        )
    )
    assert settled(process).kafka.final()[BAD]["closed"]


# -- given-up runs


def test_an_absurd_usage_closes_or_is_given_up_and_others_go_on() -> None:
    """9,007,199,254,740,991 tokens, the largest whole number of a browser."""
    usage = {"input_tokens": 9_007_199_254_740_991, "output_tokens": 9_007_199_254_740_991}
    absurd = event(
        BAD,
        "a" * 16,
        "",
        "end",
        START_US,
        kind="llm_call",
        model="gpt-4o",
        provider="openai",
        usage=usage,
    )
    process = world()
    process.batch([record_of(0, absurd), *run_of(GOOD, 1)])
    settled(process)
    refuse(process, [record_of(0, absurd)])
    settled(process)
    assert process.kafka.final()[GOOD]["closed"]
    assert process.kafka.committed == 4


def test_sums_of_the_largest_counts_and_costs_fit_into_every_record() -> None:
    usage = dict.fromkeys(TOTALLED, MAX_USAGE_COUNT)
    events = [
        event(
            BAD,
            f"{number:016x}",
            "f" * 16,
            "end",
            START_US,
            kind="llm_call",
            usage=usage,
            cost_usd="1000000",
        )
        for number in range(1, 3_000)
    ]
    process = world()
    process.batch([record_of(number, item) for number, item in enumerate(events)])
    process.settle(START_US + 3_000 * 20_000)
    assert process.logic.counters.runs_given_up == 0
    final = process.kafka.final()[BAD]
    assert final["closed"]
    assert final["input_tokens"] == 2_999 * MAX_USAGE_COUNT
    assert float(final["cost_usd"]) == 2_999_000_000


@pytest.mark.parametrize(
    "what", ["encode_state", "trajectory", "usage_records", "run_summary", "close_at"]
)
def test_a_run_whose_bookkeeping_raises_goes_to_the_dead_letter(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = {"encode_state": checkpoint_writer, "close_at": run_closer}.get(what, publisher)
    monkeypatch.setattr(module, what, failing_for(BAD, getattr(module, what)))
    process = world()
    bad, good = run_of(BAD, 0), run_of(GOOD, 3)
    process.batch(bad[:2])
    process.batch([*bad[2:], *good])
    settled(process)
    assert process.kafka.final()[GOOD]["closed"]
    assert process.logic.counters.runs_given_up == 1
    assert process.kafka.committed == 0, "what is not dead-lettered yet must not be forgotten"
    refuse(process, bad + good)
    settled(process)
    letters = process.kafka.topics["deadletter"]
    assert [dict(letter.headers)["stepstream-offset"] for letter in letters] in (
        [b"0", b"1", b"2"],
        [b"2", b"0", b"1"],
    )
    assert all(b"OverflowError" in dict(letter.headers)["stepstream-detail"] for letter in letters)
    assert process.kafka.committed == 6
    assert len(findings(process.kafka, RUN_GIVEN_UP)) == 1
    process.batch([record_of(6, event(BAD, "c" * 16, "a" * 16, "end", START_US))])
    assert [output.key for output in process.kafka.topics["deadletter"][3:] or _sent(process)] == [
        BAD.encode()
    ]


def _sent(process: Process) -> list[Output]:
    return [output for _, output in process.flight if output.topic == "deadletter"]


def failing_for(trace_id: str, function: Hook) -> Hook:
    def failing(run: Run, *args: Any, **kwargs: Any) -> Any:
        if run.trace_id == trace_id:
            raise OverflowError("can't serialize ints < -2**63 or > 2**64 - 1")
        return function(run, *args, **kwargs)

    return failing


def refuse(process: Process, log: list[Rec]) -> None:
    """What the shell does: read the records of given-up runs again."""
    if unread := process.logic.given_up.take_unread():
        process.logic.refuse(log, unread)


def test_a_state_that_cannot_be_restored_is_left_out() -> None:
    process = world()
    process.batch(run_of(BAD, 0)[:1] + run_of(GOOD, 1)[:1])
    states = [_state_of(process.logic.runs[trace]) for trace in (BAD, GOOD)]
    states[0].rules = '[["p", true, {"rule": "loop", "repeats": "often"}]]'
    after = world()
    after.logic.restore(states, 2)
    assert set(after.logic.runs) == {GOOD}
    assert after.logic.counters.runs_given_up == 1
    # Its records are not read again: the finding must not claim that they are dead-lettered.
    (output,) = after.logic.take_outputs()
    value = output.value or b""
    assert b"its trajectory ends at the last published revision" in value
    assert b"dead letter" not in value


def test_a_rule_whose_detector_is_no_longer_installed_is_left_out_of_a_restored_run() -> None:
    """Its package may be removed while a run is open; the run goes on with its other rules."""
    process = world()
    process.batch(run_of(BAD, 0)[:1])
    state = _state_of(process.logic.runs[BAD])
    # State records have rules by name, so any name may be in one.
    state.rules = '[["p", true, {"rule": "of_a_removed_package"}], ["", false, {"rule": "loop"}]]'
    after = world()
    after.logic.restore([state], 2)
    assert [item.rule.rule for item in after.logic.runs[BAD].run.rules.applied] == ["loop"]


def _state_of(active: Any) -> Any:
    return decode_state(encode_state(active.run, active.checkpoint.merged_through))
