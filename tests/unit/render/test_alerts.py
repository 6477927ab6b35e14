"""Alerts as people read them."""

from __future__ import annotations

from datetime import UTC

from stepstream.render.alerts import Note, alert_lines, gathered, note_line
from stepstream.render.glyphs import ASCII
from stepstream.schemas.alert import Alert

ALERT = Alert(
    alert_id="a1",
    seq=1,
    state="firing",
    severity="critical",
    alert="cost-spike",
    rule="run_cost_spike",
    project="shop",
    agent="support",
    task="refund",
    trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
    message="$1.84 so far, p99 is $0.31 (412 runs)",
    detail="62 % of it is 11 x search_docs with the same query",
    running=True,
    opened_at=1_772_366_587_000_000,
    updated_at=1_772_366_587_000_000,
)


def test_an_alert_is_two_lines() -> None:
    """Time, severity, alert, agent, message, whether it runs; below it the cause and commands."""
    assert alert_lines(ALERT, zone=UTC).plain.splitlines() == [
        "12:03:07 CRITICAL cost-spike support/refund: $1.84 so far, p99 is $0.31 (412 runs); "
        "still running",
        "         62 % of it is 11 x search_docs with the same query · stepstream trace 4bf92f35 · "
        "stepstream stop 4bf92f35",
    ]


def test_a_narrow_terminal_keeps_the_command_whole() -> None:
    """Where there is no room the sentence is cut, never the command that shows the run."""
    lines = alert_lines(ALERT, zone=UTC, width=60, glyphs=ASCII).plain.splitlines()
    assert all(len(line) <= 60 for line in lines)
    assert lines[1].endswith("- stepstream trace 4bf92f35")
    assert all(line.isascii() for line in lines)


def test_a_resolved_alert_is_marked_and_no_longer_runs() -> None:
    """Resolved is written as a word, not only as a colour."""
    resolved = ALERT.model_copy(
        update={"state": "resolved", "message": "cost $2 so far", "run_steps": 9}
    )
    line = alert_lines(resolved, zone=UTC).plain.splitlines()[0]
    assert line.endswith("RESOLVED cost-spike support/refund: cost $2 so far")
    assert "still running" not in line


def test_history_shows_what_people_did_and_the_id() -> None:
    """Acknowledged and silenced alerts are marked; the id is complete at any width."""
    handled = {
        "alert_id": "7f3a1b2c-0000",
        "acknowledged_by": "ada",
        "silenced_until": ALERT.opened_at + 3_600_000_000,
    }
    # None is a pipe, which has no width.
    for width in (60, 80, 120, None):
        below = alert_lines(
            ALERT.model_copy(update=handled), zone=UTC, width=width, history=True
        ).plain.splitlines()[1]
        assert "alert 7f3a1b2c" in below
        assert "stepstream trace 4bf92f35" in below
    assert "acknowledged by ada · silenced until 2026-03-01 13:03:07" in below
    over = ALERT.model_copy(
        update=handled | {"state": "resolved", "resolved_at": ALERT.opened_at + 1}
    )
    assert "acknowledged" not in alert_lines(over, zone=UTC, history=True).plain


def test_history_shows_when_it_was_raised_and_its_severity() -> None:
    """An alert that is over keeps its severity in a history, and shows how long it lasted."""
    late = {
        "state": "resolved",
        "resolved_at": ALERT.opened_at + 2_300_000,
        "updated_at": ALERT.opened_at + 2_300_000,
    }
    lines = alert_lines(ALERT.model_copy(update=late), zone=UTC, history=True).plain.splitlines()
    assert lines[0].startswith("12:03:07 CRITICAL cost-spike")
    assert lines[1].startswith("         resolved after 2.3 s · 62 % of it")


def test_an_alert_about_no_run_names_its_project() -> None:
    """Without an agent and a run the project is shown, and no command that would fail."""
    bare = ALERT.model_copy(update={"agent": "", "task": "", "trace_id": "", "detail": ""})
    assert alert_lines(bare, zone=UTC).plain.splitlines() == [
        "12:03:07 CRITICAL cost-spike shop: $1.84 so far, p99 is $0.31 (412 runs); still running"
    ]


def test_an_incident_names_no_run_but_itself() -> None:
    """Many runs are behind it: the command shows the incident, its count and its samples."""
    incident = ALERT.model_copy(
        update={
            "trace_id": "",
            # An incident has a number of runs and no trace id.
            "runs": 12,
            "running": False,
            "detail": "",
            "message": "12 runs: it failed",
        }
    )
    lines = alert_lines(incident, zone=UTC).plain.splitlines()
    assert lines[0].endswith("cost-spike support/refund: 12 runs: it failed")
    assert lines[1].strip() == "stepstream alerts show a1"


def test_equal_notes_are_one_line() -> None:
    """Where the first of them stands, with how many they are."""
    notes = [
        Note(
            ALERT.opened_at + n,
            "hidden-tool-error",
            ("find failed", "find failed", "search failed")[n % 3],
        )
        for n in range(6)
    ]
    assert [note_line(note, zone=UTC).plain for note in gathered(notes)] == [
        "12:03:07 note hidden-tool-error (4 times): find failed",
        "12:03:07 note hidden-tool-error (2 times): search failed",
    ]
