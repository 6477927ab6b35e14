"""The story of a task: what was requested, each change and its reason, its runs, its result."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any, Final

from rich.text import Text

from stepstream.render.glyphs import UNICODE, Glyphs
from stepstream.render.values import clip, format_clock, format_time, one_line, short_id
from stepstream.schemas.formatting import format_dollars, format_duration, format_number_of
from stepstream.schemas.task_state import FINAL
from stepstream.schemas.times import us_of

Row = Mapping[str, Any]

WAITS: Final = {
    "delay": "its delay",
    "retry": "the pause before the next attempt",
    "slot": "a free slot",
    "executor": "an executor that offers its agent",
    "limit": "a limit",
    "budget": "budget",
    "after": "the tasks that it comes after",
    "key": "an earlier task with its key",
}
"""What a task waits for, by ``waiting_for``."""

STYLES: Final = {
    "ok": "green",
    "failed": "red",
    "dead": "red",
    "expired": "red",
    "cancelled": "yellow",
    "refused": "yellow",
    "running": "cyan",
    "bound": "cyan",
}
_LABEL_CELLS: Final = 11
_PREVIEW_CHARS: Final = 500
_EVENT_CELLS: Final = 14
# Two spaces, the time of day, two spaces, the name of the event: where continuations begin.
HANGING_CELLS: Final = 2 + 8 + 2 + _EVENT_CELLS


_SUBMITTED: Final = {"event": "submitted", "state": "", "reason": "", "detail": "", "by": ""}


def waits_for(waiting_for: str, waiting_until: Any = None, zone: tzinfo | None = None) -> str:
    """Why a task waits, and until when where that is known: ``a free slot``."""
    what = WAITS.get(waiting_for, one_line(waiting_for) or "its turn")
    until = f" until {format_clock(us_of(waiting_until), zone)}" if waiting_until else ""
    return f"{what}{until}"


def waited(events: Sequence[Row], now_us: int) -> dict[str, int]:
    """Microseconds that a task has waited, by what for, in the sequence of the first time."""
    found: dict[str, int] = {}
    for number, event in enumerate(events):
        if event["state"] != "waiting":
            continue
        last = number + 1 == len(events)
        end_us = now_us if last else us_of(events[number + 1]["changed_at"])
        took = max(0, end_us - us_of(event["changed_at"]))
        found[event["waiting_for"]] = found.get(event["waiting_for"], 0) + took
    return found


@dataclass(frozen=True)
class Story:
    """What the store knows of a task: its row, its changes, its runs, what was found in them, and
    the submits and commands that were refused.
    """

    task: Row
    events: Sequence[Row]
    runs: Sequence[Row] = ()
    findings: Sequence[Row] = ()
    refusals: Sequence[Row] = ()


def story_text(
    story: Story,
    *,
    now_us: int,
    glyphs: Glyphs = UNICODE,
    zone: tzinfo | None = None,
    full: bool = False,
) -> Text:
    """The whole story of a task, over all of its attempts. ``full``: input and result uncut."""
    task = story.task
    lines = [_title(task, glyphs)]
    lines += _facts(story, now_us, zone, full=full)
    lines.append(Text())
    attempts = deque(one for one in task["attempts"] if one["ended_at"])
    by_run = {run["trace_id"]: run for run in story.runs}
    day = ""
    events = story.events
    # A task that found a free slot at once has no record of its own about its submit.
    if not events or events[0]["event"] != "submitted":
        events = [{**_SUBMITTED, "changed_at": task["submitted_at"]}, *events]
    for event in events:
        at_us = us_of(event["changed_at"])
        date = format_time(at_us, zone)[:10]
        if date != day:
            day = date
            lines.append(Text(date, style="bold"))
        # The record of a change has the attempt that the change ends.
        while attempts and us_of(attempts[0]["ended_at"]) <= at_us:
            attempt = attempts.popleft()
            lines.append(_attempt(attempt, zone))
            lines += _run(by_run.pop(attempt["trace_id"], None), story.findings, glyphs)
        lines.append(_event(event, zone))
    for run in by_run.values():
        lines += _run(run, story.findings, glyphs)
    for refusal in story.refusals:
        lines.append(_refusal(refusal, zone))
    return Text("\n").join(lines)


def _title(task: Row, glyphs: Glyphs) -> Text:
    agent = "@".join(filter(None, (task["agent"], task["version"])))
    text = Text("task ", style="dim").append(one_line(task["task_id"]), style="bold")
    parts = [one_line(agent), one_line(task["project"]), one_line(task["environment"])]
    return text.append(f"  {f' {glyphs.dot} '.join(filter(None, parts))}")


def _facts(story: Story, now_us: int, zone: tzinfo | None, *, full: bool) -> Iterator[Text]:
    task, runs = story.task, story.runs
    yield _fact("state", _state(task, zone), STYLES.get(task["state"], ""))
    yield _fact("submitted", _submitted(task, zone))
    requested = _requested(task, zone)
    if requested:
        yield _fact("requested", requested)
    if waits := waited(story.events, now_us):
        total = format_duration(sum(waits.values()))
        parts = (f"{format_duration(us)} for {waits_for(what)}" for what, us in waits.items())
        yield _fact("waited", f"{total}: {', '.join(parts)}")
    if runs:
        cost = format_dollars(sum(run["cost_usd"] for run in runs))
        unpriced = sum(run["unpriced_steps"] for run in runs)
        more = f", {format_number_of(unpriced, 'step')} of unknown cost" if unpriced else ""
        yield _fact("cost", f"{cost} in {format_number_of(len(runs), 'run')}{more}")
    if task["fallbacks"]:
        yield _fact("given up", ", ".join(map(one_line, task["fallbacks"])))
    if task["once"]:
        yield _fact("kept", f"by task.once: {', '.join(map(one_line, task['once']))}")
    for name in ("input", "input_ref", "result"):
        if task[name]:
            text = one_line(task[name])
            label = "input" if name == "input_ref" else name
            yield _fact(label, text if full else clip(text, _PREVIEW_CHARS))
    if task["error_type"] or task["error_message"]:
        error = _joined(task["error_type"], task["error_message"])
        yield _fact("error", error, "red" if task["state"] != "ok" else "")


def _fact(label: str, text: str, style: str = "") -> Text:
    return Text(f"  {label:<{_LABEL_CELLS}}", style="dim").append(text, style=style or "not dim")


def _state(task: Row, zone: tzinfo | None) -> str:
    state = str(task["state"])
    if state == "waiting":
        state += f" for {waits_for(task['waiting_for'], task['waiting_until'], zone)}"
    elif state in ("bound", "running"):
        state += f" on {one_line(task['executor_id'])}, attempt {task['attempt']}"
        state += f", asked to stop ({one_line(task['stopping'])})" if task["stopping"] else ""
    reason = _joined(*(word for word in (task["reason"], task["detail"]) if word != state))
    if task["ended_at"] and state in FINAL:
        took = us_of(task["ended_at"]) - us_of(task["submitted_at"])
        state += f" after {format_duration(took)}"
        state += f", {format_number_of(task['attempt'], 'attempt')}" if task["attempt"] else ""
    return f"{state} ({reason})" if reason else state


def _submitted(task: Row, zone: tzinfo | None) -> str:
    parts = [format_time(us_of(task["submitted_at"]), zone)]
    for name, field in (
        ("by", "submitted_by"),
        ("for user", "user_id"),
        ("session", "session_id"),
        ("of task", "parent_task_id"),
    ):
        if task[field]:
            parts.append(f"{name} {one_line(task[field])}")
    return ", ".join(parts)


def _requested(task: Row, zone: tzinfo | None) -> str:
    parts = []
    if task["priority"]:
        parts.append(f"priority {task['priority']}")
    if task["key"]:
        parts.append(f"key {one_line(task['key'])}")
    if task["after"]:
        parts.append(f"after {', '.join(map(one_line, task['after']))}")
    # Later it is the end of the pause before a repetition.
    if task["not_before"] and not task["attempt"]:
        parts.append(f"not before {format_time(us_of(task['not_before']), zone)}")
    if task["deadline_at"]:
        parts.append(f"deadline {format_time(us_of(task['deadline_at']), zone)}")
    if task["max_attempts"]:
        parts.append(f"{format_number_of(task['max_attempts'], 'attempt')} at most")
    if task["timeout_us"]:
        parts.append(f"time-out {format_duration(task['timeout_us'])}")
    if task["budget_usd"]:
        parts.append(f"budget ${one_line(task['budget_usd'])}")
    return ", ".join(parts)


def _line(at: Any, name: str, words: Iterable[str], zone: tzinfo | None, style: str = "") -> Text:
    text = Text(f"  {format_clock(us_of(at), zone)}  ", style="dim")
    text.append(f"{one_line(name):<{_EVENT_CELLS}}", style=style or "not dim")
    return text.append("; ".join(words), style="not dim")


def _event(event: Row, zone: tzinfo | None) -> Text:
    style = STYLES.get(event["state"], "") if event["state"] in FINAL else ""
    name = event["event"] or event["state"]
    return _line(event["changed_at"], name, _words(event, zone), zone, style)


def _words(event: Row, zone: tzinfo | None) -> Iterator[str]:
    """What a change was, in parts."""
    name, state = event["event"], event["state"]
    if name == "bound":
        who = "@".join(filter(None, (event["run_agent"], event["run_version"])))
        yield f"attempt {event['attempt']} of {one_line(who)} to {one_line(event['executor_id'])}"
    elif name == "started":
        yield f"attempt {event['attempt']}, run {short_id(event['trace_id'])}"
    elif name == "fallback":
        yield f"to {one_line(event['target'])}"
    elif state in FINAL:
        yield one_line(state)
    # While a task waits, the detail is about what it waits for.
    if state == "waiting":
        yield _joined(
            f"waits for {waits_for(event['waiting_for'], event['waiting_until'], zone)}",
            event["detail"],
        )
    elif name not in ("bound", "started"):
        words = (word for word in (event["reason"], event["detail"]) if word != state)
        yield from filter(None, [_joined(*words)])
    if event["by"]:
        yield f"by {one_line(event['by'])}"


def _attempt(attempt: Row, zone: tzinfo | None) -> Text:
    ended = attempt["status"]
    words = [f"{one_line(ended).replace('_', ' ')} on {one_line(attempt['executor_id'])}"]
    if attempt["started_at"]:
        took = us_of(attempt["ended_at"]) - us_of(attempt["started_at"])
        words[0] += f" after {format_duration(took)}"
    else:
        words[0] += " before it started"
    words += filter(None, (one_line(attempt["reason"]),))
    words += filter(None, (_joined(attempt["error_type"], attempt["error_message"]),))
    style = "green" if ended == "ok" else "red"
    return _line(attempt["ended_at"], f"attempt {attempt['attempt']}", words, zone, style)


def _refusal(refusal: Row, zone: tzinfo | None) -> Text:
    words = [f"{one_line(refusal['refused'])} ({format_time(us_of(refusal['refused_at']), zone)})"]
    words.append(_joined(refusal["reason"], refusal["detail"]))
    return _line(refusal["refused_at"], "refused", words, zone, "yellow")


def _joined(*words: str) -> str:
    # The word for programs and the sentence may be the same.
    return ": ".join(dict.fromkeys(filter(None, map(one_line, words))))


def _run(run: Row | None, findings: Sequence[Row], glyphs: Glyphs) -> Iterator[Text]:
    if run is None:
        return  # the store does not have it (yet, or no longer)
    indent = " " * HANGING_CELLS
    success = f", success {run['success']}" if run["success"] else ""
    facts = (
        f"run {short_id(run['trace_id'])} {run['status']}{success}",
        format_number_of(run["steps"], "step"),
        format_duration(run["duration_us"]),
        format_dollars(run["cost_usd"]),
        f"stepstream trace {short_id(run['trace_id'])}",
    )
    yield Text(indent + f" {glyphs.dot} ".join(facts), style="dim")
    for finding in findings:
        if finding["trace_id"] == run["trace_id"]:
            style = "dim" if finding["severity"] in ("note", "info") else ""
            words = f"{finding['severity']} {one_line(finding['alert'])}"
            yield Text(f"{indent}{words}: {one_line(finding['message'])}", style=style)
