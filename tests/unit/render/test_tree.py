"""One run as a picture of text."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from stepstream.render.glyphs import ASCII, UNICODE, glyphs_for
from stepstream.render.heading import View
from stepstream.render.rows import (
    RunRow,
    StepRow,
    caught_up,
    nanos,
    run_from_steps,
    run_row,
    step_row,
)
from stepstream.render.tree import render_trace
from stepstream.render.values import clean_lines, clip, folded
from stepstream.schemas.alert import Alert
from stepstream.schemas.times import us_of

T0 = 1_772_366_587_000_000
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def step(
    number: int, parent: int, kind: str, name: str, *times_ms: int | None, **more: Any
) -> StepRow:
    start_ms, end_ms = times_ms
    return StepRow(
        step_id=f"{number:016x}",
        parent_step_id=f"{parent:016x}" if parent else "",
        kind=kind,
        name=name,
        start_us=T0 + (start_ms or 0) * 1_000,
        end_us=None if end_ms is None else T0 + end_ms * 1_000,
        **({"status": "running"} if end_ms is None else {}) | more,
    )


PLAN = step(
    2, 1, "llm_call", "plan", 0, 400, model="gpt-4o", cost_nanos=12_300_000, input_tokens=1_234,
    output_tokens=210,
    cost_source="priced", input="refund order 7 please", output="find it",
)  # fmt: skip
FAILED = step(
    4, 1, "tool_call", "refund_order", 700, 800, tool="refund_order", status="error",
    error_type="ShopError",
    error_message="the payment service\n is away \x1b[31m",
)  # fmt: skip
STEPS = [
    step(1, 0, "agent", "refund", 0, None),
    PLAN,
    step(3, 1, "retrieval", "policies", 420, 650, documents=3, best_score=0.12),
    FAILED,
    step(5, 1, "tool_call", "refund_order", 900, 1_000, attempt=2, retry_of=f"{4:016x}"),
    step(6, 5, "tool_call", "ledger", 910, None),
    step(
        7,
        1,
        "llm_call",
        "answer",
        1_000,
        1_400,
        model="acorn-7b",
        cost_source="unpriced",
        input_tokens=90,
        output_tokens=10,
    ),
]
RUN = RunRow(
    trace_id=TRACE, status="running", start_us=T0, end_us=T0 + 1_400_000, project="shop",
    environment="demo", agent="support",
    agent_version="v12", task="refund", steps=7, open_steps=2, error_steps=1, unpriced_steps=1,
    cost_nanos=12_300_000,
    input_tokens=1_324, output_tokens=220,
)  # fmt: skip
ALERT = Alert(
    alert_id="a1", seq=1, state="firing", severity="error", alert="tool-error-ignored",
    rule="tool_error_ignored",
    project="shop", agent="support", task="refund", trace_id=TRACE, step_ids=[f"{4:016x}"],
    running=True,
    message="refund_order failed and the run went on", opened_at=T0 + 1_000_000,
    updated_at=T0 + 1_000_000,
)  # fmt: skip
VIEW = View(width=80, now_us=T0 + 2_000_000, zone=UTC)


def picture(
    view: View,
    *,
    alerts: list[Alert] | None = None,
    steps: list[StepRow] = STEPS,
    run: RunRow = RUN,
) -> str:
    plain = render_trace(steps, run, alerts or [], view).plain
    return "\n".join(line.rstrip() for line in plain.splitlines())


def test_a_trace_reads_without_colour() -> None:
    """The golden picture: bars by time, costs, tokens, failures with reason, open steps, the
    alert.
    """
    assert picture(VIEW, alerts=[ALERT]) == (
        """\
support/refund  running  run 4bf92f3577b34da6a3ce929d0e0e4736
2026-03-01 12:03:07 UTC · 2 s so far · 7 steps · $0.0123 + ? · 1.3k→220 tokens
project shop · environment demo · version v12
1 failed · 2 still open · 1 unpriced
                               0              2 s     time      cost      in→out
▸  refund                      ░░░░░░░░░░░░░░░░░░      2s+
   ├╴plan · gpt-4o             ████                 400 ms   $0.0123    1.2k→210
   ├╴policies · 3 documents,…     ███               230 ms
✗! ├╴refund_order                    ██             100 ms
       ShopError: the payment service is away \N{REPLACEMENT CHARACTER}[31m
   ├╴refund_order · try 2              █            100 ms
▸  │ └╴ledger                          ░░░░░░░░░░   1.09s+
   └╴answer · acorn-7b                  ████        400 ms  unpriced       90→10

critical path  refund 770 ms → plan 400 ms → policies 230 ms → refund_order 100
               ms → refund_order 10 ms → ledger 90 ms → answer 400 ms
after failure  refund_order 00000000: then refund_order (ok); tried again once
               and went well

12:03:08 ERROR tool-error-ignored support/refund: refund_order failed and the
         run went on; still running
         alert a1"""
    )


def test_plain_ascii_and_contents() -> None:
    """An ASCII-only output gets ASCII only; contents follow their step."""
    text = picture(View(width=80, now_us=T0 + 2_000_000, zone=UTC, contents=True, glyphs=ASCII))
    assert "       in refund order 7 please\n       out find it\n" in text
    assert "x  |-refund_order" in text
    assert ">  | `-ledger" in text
    # The arrow as well has a form in ASCII.
    assert "1.2k>210" in text
    assert text.replace("\N{REPLACEMENT CHARACTER}", "").isascii()


def test_contents_in_full_are_folded_and_nothing_is_left_out() -> None:
    """A long prompt with lines, tabs and control characters is shown whole; so is each document."""
    prompt = "line one\n\tline two " + "word " * 60 + "the end\x1b[31m"
    texts = ("policy-7 (0.82): Orders are refunded " + "within days " * 20 + "as a rule.",)
    steps = [step(1, 0, "llm_call", "plan", 0, 400, input=prompt, texts=texts, documents=1)]
    for width in (40, 80, 120):
        view = View(width=width, now_us=T0 + 2_000_000, zone=UTC, contents=True, full=True)
        lines = picture(view, steps=steps, run=run_from_steps(TRACE, steps)).splitlines()
        assert max(map(len, lines)) <= width
        text = " ".join(line.strip() for line in lines)
        assert "in line one line two word word" in text
        assert text.count("word") == 60
        assert (
            "the end\N{REPLACEMENT CHARACTER}[31m doc policy-7 (0.82): Orders are refunded" in text
        )
        assert text.endswith("as a rule.")
    short = picture(
        View(width=80, now_us=T0 + 2_000_000, contents=True),
        steps=steps,
        run=run_from_steps(TRACE, steps),
    )
    assert "doc policy-7 (0.82): Orders" in short
    assert "…" in short


EMOJI = st.text(st.sampled_from("ab 世\u0301\u200d\ufe0f\U0001f469\U0001f3fd"), max_size=40)


@given(st.text(max_size=200) | EMOJI, st.integers(2, 60))
def test_folded_text_is_whole_and_narrow(text: str, cells: int) -> None:
    """No piece is wider than it may be, and only single spaces at folds are left out."""
    for line in clean_lines(text):
        pieces = folded(line, cells)
        assert max(map(cell_len, pieces)) <= cells
        assert "".join(pieces).replace(" ", "") == line.replace(" ", "")
        assert cell_len(clip(line, cells)) <= cells


def test_a_run_whose_own_row_is_behind_has_the_totals_of_its_steps() -> None:
    """The end is shown at once, from the steps if they arrived; a newer row is left as it is."""
    ended = [
        step(1, 0, "agent", "refund", 0, 900),
        step(2, 1, "llm_call", "plan", 10, 400, cost_nanos=5, input_tokens=7),
    ]
    # The sink stores steps before the run's next revision arrives.
    behind = replace(RUN, steps=2, open_steps=2, cost_nanos=0, input_tokens=0)
    now = caught_up(behind, ended)
    assert (now.status, now.steps, now.open_steps, now.cost_nanos, now.input_tokens) == (
        "ok",
        2,
        0,
        5,
        7,
    )
    assert (now.end_us, now.project, now.user_id) == (T0 + 900_000, "shop", RUN.user_id)
    assert caught_up(behind, [replace(ended[0], status="error"), ended[1]]).status == "error"
    assert caught_up(RUN, ended) == RUN, "the row knows of more steps"
    closed = replace(behind, status="ok")
    assert caught_up(closed, STEPS) == closed
    assert run_from_steps(TRACE, ended).status == "ok"
    assert run_from_steps(TRACE, ended[1:]).status == "running", "its root has not arrived"


@given(st.integers(1, 200), st.booleans(), st.sampled_from([ASCII, UNICODE]))
def test_no_line_is_wider_than_the_terminal(width: int, contents: bool, glyphs: Any) -> None:
    """At any width from 40 cells on the picture keeps to it; below that it is drawn for 40."""
    view = View(width=width, now_us=T0 + 2_000_000, zone=UTC, contents=contents, glyphs=glyphs)
    text = render_trace(STEPS, RUN, [ALERT], view).plain
    # In cells: a Chinese character takes two of them.
    assert max(map(cell_len, text.splitlines())) <= max(40, width)


def test_thousands_of_steps_are_summed_up() -> None:
    """A run of 3,000 steps is a screen of the ones that matter and counts of the others."""
    steps = [
        STEPS[0],
        *(
            step(n, 1, "tool_call", "search", n, n + 1, cost_nanos=1_000_000)
            for n in range(10, 3_010)
        ),
        FAILED,
    ]
    text = picture(View(width=100, now_us=T0, zone=UTC, limit=30), steps=steps)
    assert len(text.splitlines()) < 45
    assert "more: " in text
    assert "x search · $" in text
    assert "ShopError" in text


def test_a_closed_run_with_an_open_step_ends_when_the_run_ended() -> None:
    """What never ended is drawn to the end of its run, not to today."""
    run = RunRow(
        trace_id=TRACE,
        status="incomplete",
        start_us=T0,
        end_us=T0 + 1_400_000,
        agent="support",
        open_steps=1,
    )
    text = picture(View(width=80, now_us=T0 + 10**12, zone=UTC), steps=[STEPS[5]], run=run)
    assert "1.4 s" in text
    assert "ledger" in text
    assert "490ms+" in text


def test_colour_is_only_decoration() -> None:
    """On a colour terminal the same text is printed, with styles."""
    out = io.StringIO()
    Console(file=out, force_terminal=True, color_system="truecolor", width=80).print(
        render_trace(STEPS, RUN, [], VIEW)
    )
    assert "\x1b[1;31m✗" in out.getvalue()


def test_rows_are_read_from_the_views_columns() -> None:
    """Times with or without a zone, decimals, unknown costs and documents are read.

    Others ignored.
    """
    from datetime import datetime
    from decimal import Decimal

    record = {
        "step_id": "a" * 16,
        "kind": "retrieval",
        "name": "policies",
        "start_time": datetime(2026, 3, 1, 12, 3, 7, 5, tzinfo=UTC),
        "end_time": datetime(2026, 3, 1, 12, 3, 8),  # noqa: DTZ001 without a zone
        "cost_usd": Decimal("0.000000005"),
        "status": "ok",
        "tool": None,
        "documents": [{"id": "a", "score": 0.5}, {"id": "b", "score": None}],
        "kafka_offset": 9,
    }
    read = step_row(record)
    assert (read.start_us, read.end_us, read.cost_nanos) == (T0 + 5, T0 + 1_000_000, 5)
    assert (read.documents, read.best_score, read.tool) == (2, 0.5, "")
    opened = step_row({**record, "end_time": None, "cost_usd": None})
    assert (opened.open, opened.cost_nanos, opened.status) == (True, None, "running")
    run = run_row(
        {
            "trace_id": TRACE,
            "status": "ok",
            "start_time": T0,
            "end_time": T0,
            "cost_usd": Decimal("1.5"),
        }
    )
    assert run.cost_nanos == 1_500_000_000
    assert (us_of(T0), nanos(None), nanos("0.1")) == (T0, None, 100_000_000)


def test_a_run_without_its_row_is_summed_up_from_its_steps() -> None:
    """Steps may be found before their run's row: the picture does not wait for it."""
    run = run_from_steps(TRACE, STEPS)
    assert (run.status, run.steps, run.open_steps, run.cost_nanos, run.unpriced_steps) == (
        "running",
        7,
        2,
        12_300_000,
        1,
    )
    assert (run.start_us, run.end_us) == (T0, T0 + 1_400_000)


@pytest.mark.parametrize(
    ("encoding", "glyphs"),
    [("utf-8", UNICODE), ("ascii", ASCII), ("latin-1", ASCII), (None, ASCII)],
)
def test_signs_are_those_that_the_output_can_encode(encoding: str | None, glyphs: Any) -> None:
    """A log in ASCII never meets an encoding error."""
    assert glyphs_for(encoding) is glyphs
