"""Whatever agents, models and tools write: no command lets it steer a terminal, read it as markup,
or make a formula of it."""

from __future__ import annotations

import ast
import csv
import io
import json
import logging
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepstream import doctor as examination
from stepstream.admin import deadletter, documents
from stepstream.admin import fleet as fleet_topic
from stepstream.admin import topics as topic_tools
from stepstream.admin.deadletter import Letter
from stepstream.admin.documents import StoredDocument
from stepstream.admin.topics import TopicReport
from stepstream.cli import printing, queries
from stepstream.cli.app import run
from stepstream.cli.options import Format
from stepstream.cli.table import COMMANDS
from stepstream.common import logs, terminal
from stepstream.doctor.check import Check
from stepstream.producers.sdk_log import RateLimitedLog
from stepstream.queries import QUESTIONS
from stepstream.releases import topic as release_topic
from stepstream.render.alerts import alert_lines
from stepstream.render.heading import View
from stepstream.render.listing import below_one_another, listing
from stepstream.render.rows import RunRow, StepRow
from stepstream.render.tables import (
    csv_text,
    fields_text,
    records_cells,
    records_csv,
    records_json,
    runs_cells,
)
from stepstream.render.tree import render_trace
from stepstream.schemas.alert import Alert
from stepstream.schemas.delivery import DeliveryStruct
from stepstream.schemas.fleet import FleetBaselineStruct, FleetBudgetStruct, FleetWindowStruct
from stepstream.schemas.printable import escaped_json, printable
from stepstream.schemas.promotion import Decision, Promotion
from stepstream.schemas.release import ReleaseContent, Source, encode_release, new_release
from stepstream.schemas.release_log import ReleaseLog, decision_key, release_key
from stepstream.schemas.settings import Settings
from stepstream.schemas.times import time_of
from stepstream.sinks.notify import latest_records
from tests.support.paths import ROOT

TRACE: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
NOW_US: Final = 1_772_366_587_000_000
HOSTILE: Final = (
    "\x1b[2J\x1b[H", "\x1b]0;title\x07", "\x1b]52;c;Y2xpcA==\x1b\\", "\x9b31m", "\x9d0;t\x9c",
    "\x08\x08\x7f", "a\rb", "\x00",
    "\u202egpj.exe", "\u2066x\u2069", "\u200b\u200d\ufeff", "\u2028x\u2029", "\U000e0041\U000e007f",
    "\ud83d",
    "[/b]", "[link=http://evil.example]click[/link]", "[red]x", "[/]", ":smile:", "[bold", "\\[x]",
    "[@click=app.bell]x[/]",
    '=cmd|"/C calc"!A0', "+1+1", "-1+1", "@SUM(1)", "\t=1+1", "\n=1+1", " =1+1", "\uff1d1+1",
    "\x1b=1+1",
)  # fmt: skip
ALL: Final = "".join(HOSTILE)
# What rich writes for styles that are ours.
COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
LINKS: Final = "\x1b]8"


def steering(text: str) -> list[str]:
    """Characters of the text that control a terminal, except newlines and tabs."""
    return [
        c
        for c in text
        if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    ]


def planted(kind: type[Any], text: str, **known: Any) -> Any:
    """A row with the text in every field that holds text and is not given."""
    names = {one.name: str(one.type) for one in fields(kind)}
    return kind(**{name: text for name, field_type in names.items() if field_type == "str"} | known)


def run_row(text: str) -> RunRow:
    return planted(  # type: ignore[no-any-return]
        RunRow, text, trace_id=TRACE, start_us=NOW_US, end_us=NOW_US + 5, steps=2, error_steps=1
    )


def step_rows(text: str) -> list[StepRow]:
    known = {
        "start_us": NOW_US,
        "end_us": NOW_US + 5,
        "parent_step_id": "",
        "documents": 2,
        "attempt": 2,
    }
    made = [
        planted(StepRow, text, step_id=f"{n:016x}", **known, status=("error", "ok")[n % 2])
        for n in range(3)
    ]
    return [*made, planted(StepRow, text, step_id="f" * 16, **known | {"end_us": None})]


def alert(text: str, **fields: Any) -> Alert:
    texts = {name: text for name, info in Alert.model_fields.items() if info.annotation is str}
    known = {
        "seq": 1,
        "severity": "error",
        "opened_at": NOW_US,
        "updated_at": NOW_US,
        "resolved_at": NOW_US,
        "unit": "usd",
    }
    lists = {"step_ids": [text], "trace_ids": [text], "finding_ids": [text]}
    return Alert.model_validate(
        texts | known | lists | {"change": "acknowledged", "state": "firing"} | fields
    )


def run_record(text: str) -> dict[str, Any]:
    """A row of the view runs."""
    row = run_row(text)
    record = {
        one.name: getattr(row, one.name)
        for one in fields(RunRow)
        if one.name not in ("start_us", "end_us", "cost_nanos")
    }
    return record | {
        "start_time": NOW_US,
        "end_time": NOW_US + 5,
        "cost_usd": 1,
        "trace_id": TRACE,
        "path": [text],
        "learnt": 3,
    }


def step_record(text: str) -> dict[str, Any]:
    """A row of the view trace."""
    row = step_rows(text)[0]
    record = {
        one.name: getattr(row, one.name)
        for one in fields(StepRow)
        if one.name not in ("start_us", "end_us", "cost_nanos")
    }
    documents = [{"id": text, "score": 0.5}]
    return record | {
        "start_time": NOW_US,
        "end_time": NOW_US + 5,
        "cost_usd": 1,
        "documents": documents,
        "attributes": {text: text},
    }


def alert_record(text: str) -> dict[str, Any]:
    return {**alert(text).model_dump(), "alerts": 3}


# -- every command --


TASK_QUESTIONS: Final = ("tasks", "task", "task-events", "task-runs", "task-findings",
                         "task-refusals", "executors",
                         "queues")  # fmt: skip
_TIMES: Final = ("_at", "_beat", "_until", "_before", "_by", "_time", "first_seen", "oldest")
_NUMBERS: Final = (
    "priority", "attempt", "max_attempts", "timeout_us", "revision", "steps", "duration_us",
    "cost_usd", "unpriced_steps", "slots", "used", "waiting", "running", "executors", "ok_1h",
)  # fmt: skip


def task_row(question: str, text: str) -> dict[str, Any]:
    """A row of a question about tasks, with the text wherever there is one."""
    # The id goes back to the store in the next query, so it is UTF-8 as everything there.
    text = text.encode("utf-8", "replace").decode()
    row: dict[str, Any] = {}
    for name in QUESTIONS[question].columns:
        if name in ("by", "submitted_by"):
            row[name] = text
        elif name.endswith(_TIMES):
            row[name] = time_of(NOW_US)
        elif name in _NUMBERS:
            row[name] = 1
        elif name in ("waiting_for", "versions") and question == "queues":
            row[name] = [text]
        elif name == "agents":
            row[name] = [(text, text)]
        elif name in ("after", "fallbacks"):
            row[name] = [text]
        elif name == "attempts":
            texts = ("trace_id", "executor_id", "agent", "status", "reason", "error_type",
                     "error_message")  # fmt: skip
            times = dict.fromkeys(("started_at", "ended_at"), time_of(NOW_US))
            row[name] = [{"attempt": 1, **dict.fromkeys(texts, text), **times}]
        else:
            row[name] = {text: text} if name == "once" else text
    return row


class _Answer:
    def __init__(self, text: str, sql: str = "") -> None:
        self._text = text
        self._sql = sql
        self.column_names = ("a", text)
        self.result_rows = [
            (text, [text]),
            (1.5, {text: text}),
            (None, text.encode("utf-8", "replace")),
        ]

    def named_results(self) -> list[dict[str, Any]]:
        for question in TASK_QUESTIONS:
            asked = QUESTIONS[question]
            if isinstance(asked.sql, str) and asked.sql.strip() == self._sql:
                return [task_row(question, self._text)]
        if "FROM tasks AS t" in self._sql:
            return [task_row("tasks", self._text)]
        return [run_record(self._text)]


class _Client:
    """A store in which every text is hostile."""

    def __init__(self, text: str) -> None:
        self._text = text

    def query(self, sql: str, **_more: Any) -> _Answer:
        return _Answer(self._text, sql)

    def raw_query(self, *_args: Any, **_more: Any) -> bytes:
        return self._text.encode("utf-8", "replace")


def _fleet(text: str) -> Callable[[Settings, str], list[bytes]]:
    kinds: dict[str, Any] = {
        "budget": FleetBudgetStruct,
        "window": FleetWindowStruct,
        "baseline": FleetBaselineStruct,
    }

    def read(_settings: Settings, kind: str) -> list[bytes]:
        struct = kinds[kind]
        given: dict[str, Any] = {}
        for one in msgspec.structs.fields(struct):
            if one.type is str and not one.name.endswith(
                ("_usd", "window", "timezone", "limits", "cost")
            ):
                given[one.name] = text.encode("utf-8", "replace").decode()
        known = {
            "start": NOW_US,
            "end": 4 * NOW_US,
            "window": "day",
            "timezone": "UTC",
            "spent_usd": "1",
            "limit_usd": "2",
            "as_of": NOW_US,
            "through": 3,
        }
        names = {one.name for one in msgspec.structs.fields(struct)}
        return [
            msgspec.json.encode(
                struct(**given | {name: value for name, value in known.items() if name in names})
            )
        ]

    return read


def release_log(text: str) -> ReleaseLog:
    """Two releases and a decision with the text wherever it may be."""
    utf8 = text.encode("utf-8", "replace").decode()[:2_000]
    log = ReleaseLog()
    for version in ("v1", "v2"):
        content = {
            "kind": "Release",
            "agent": "support",
            "version": version,
            "prompts": {"plan": {"template": f"{version} {utf8}", "variables": [utf8]}},
            "model": {utf8: version},
            "tools": [
                {"name": "t", "description": utf8 + version, "parameters": {"type": "object"}}
            ],
            "criteria": [{utf8: utf8}],
        }
        source = Source(revision=utf8, changed=True)
        release = new_release(ReleaseContent.model_validate(content), source)
        log.apply(release_key(release), encode_release(release), 1)
    promotion = Promotion.model_validate(
        {"id": "0" * 32, "action": "promote", "agent": "support", "label": "production",
         "release": "", "version": utf8, "expected": 0, "by": utf8, "at": NOW_US, "reason": utf8,
         "verdicts": [{"gate": utf8, "outcome": "fail", "detail": utf8}], "override": utf8}
    )  # fmt: skip
    decision = Decision(promotion=promotion, outcome="refused", why=utf8, decided_at=NOW_US)
    log.apply(decision_key(promotion), decision.model_dump_json().encode(), 2)
    return log


@contextmanager
def hostile(text: str, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything that commands read from Kafka and the store holds the text wherever it can."""
    utf8 = text.encode("utf-8", "replace").decode()

    @contextmanager
    def store(_settings: Settings) -> Iterator[Any]:
        yield _Client(text)

    def records(_client: Any, sql: str, _parameters: Any = None) -> list[dict[str, Any]]:
        if "AS size" in sql:
            return [{"size": len(text)}]
        if "FROM trace(" in sql:
            return [step_record(text)]
        if "FROM findings" in sql:
            return [{"at": NOW_US, "name": text, "text": text}]
        if "FROM alert_marks" in sql:
            alert_id = alert_record(text)["alert_id"]
            return [{"alert_id": alert_id, "verdict": text, "marked_by": text, "note": text,
                     "marked_at": NOW_US}]  # fmt: skip
        if "FROM alerts" in sql or "FROM alert_events" in sql:
            return [alert_record(text)]
        return [run_record(text)]

    letter = Letter(
        3,
        1_000,
        text,
        0,
        7,
        text,
        text,
        text,
        utf8.encode(),
        utf8.encode(),
        ((text, utf8.encode()),),
    )
    report = TopicReport(text, "differs", 1, 1, (text,))
    delivery = planted_struct(DeliveryStruct, text)
    policy = StoredDocument(
        f"policy/{text}", json.dumps({"name": text, "x": text}).encode(), text, 1_000, 3
    )
    subscription = {
        "name": "s",
        "to": {"slack": {"url": "env:STEPSTREAM_NOTIFY_SECRET_X"}},
        "match": {"agent": utf8 or "x"},
    }
    sub = StoredDocument(
        "subscription/s",
        json.dumps({"kind": "Subscription", **subscription}).encode(),
        text,
        1_000,
        4,
    )
    with patch.context() as at:
        at.setattr(queries, "store", store)
        at.setattr(queries, "records", records)
        at.setattr(deadletter, "read", lambda *_a, **_k: iter([letter]))
        at.setattr(topic_tools, "require_topic", lambda *_a, **_k: 1)
        at.setattr(topic_tools, "list_topics", lambda *_a, **_k: [report])
        at.setattr(fleet_topic, "read_fleet", _fleet(text))
        at.setattr(latest_records, "list_deliveries", lambda *_a, **_k: [delivery])
        at.setattr(latest_records, "list_alerts", lambda *_a, **_k: [alert(text, rule="spend")])
        at.setattr(release_topic, "read_log", lambda *_a, **_k: release_log(text))
        at.setattr(documents, "in_force", lambda *_a, **_k: {policy.key: policy, sub.key: sub})
        at.setattr(
            examination,
            "examine",
            lambda _resolved: iter([Check("fail", text, text, text), Check("ok", text, text)]),
        )
        yield


def planted_struct(kind: Any, text: str) -> Any:
    given: dict[str, Any] = {}
    for one in msgspec.structs.fields(kind):
        if one.type is str:
            given[one.name] = text
        elif one.required:
            given[one.name] = 1
    return kind(**given | {name: "delivered" for name in ("state",) if name in given})


# Commands that show data of others. `test_every_command_is_tested_or_shows_no_data_of_others`
# lists the rest.
SHOWING: Final = (
    ["runs"], ["trace", TRACE], ["trace", "--last", "--contents", "--width", "100"], ["sql",
    "SELECT 1"],
    ["sql", "SELECT 1 FORMAT TSV"],
    ["alerts"], ["alerts", "list"], ["alerts", "show", "abcd"], ["fleet", "budgets"], ["fleet",
    "hours", "--since", "90d"],
    ["fleet", "baselines"], ["topics", "list"], ["doctor"], ["deadletter", "list"], ["deadletter",
    "show", "3"],
    ["subscriptions", "list"], ["subscriptions", "deliveries"], ["get"], ["get", "policy"],
    ["releases"], ["releases", "--history"], ["tasks"], ["task", "x"], ["executors"], ["queues"],
)  # fmt: skip


def ran(
    arguments: list[str], capfd: pytest.CaptureFixture[str], form: str = "table"
) -> tuple[int, str]:
    more = [] if form == "table" else ["--format", form]
    code = run([*arguments, *more])
    shown = capfd.readouterr()
    return code, shown.out + shown.err


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that do not depend on the machine."""
    monkeypatch.chdir(tmp_path)
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("STEPSTREAM_KAFKA_BROKERS", "h:1")
    monkeypatch.setenv("STEPSTREAM_CLICKHOUSE_URL", "http://h:1")


@pytest.mark.parametrize("terminal_kind", ["", "dumb", "xterm-256color"])
@pytest.mark.parametrize("arguments", SHOWING, ids=" ".join)
@pytest.mark.usefixtures("alone")
def test_no_command_lets_data_steer(
    arguments: list[str],
    terminal_kind: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """As a table on a terminal, coloured or not, and in a pipe; as JSON and as CSV."""
    if terminal_kind:
        monkeypatch.setenv("TERM", terminal_kind)
        monkeypatch.setenv("COLUMNS", "200")
        # Colours and widths are chosen by this; pytest's capture is no terminal.
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    formats = (
        ["table"]
        if arguments[:2] in (["deadletter", "show"], ["sql", "SELECT 1 FORMAT TSV"])
        else ["table", "json", "csv"]
    )
    # All control characters, rich's markup closed and left open, and a formula.
    for text in (ALL, "[/b]", "[/]x[bold", "=1+1"):
        with hostile(text, monkeypatch):
            for form in formats:
                code, shown = ran(arguments, capfd, form)
                if arguments[-1] == "SELECT 1 FORMAT TSV" and not terminal_kind:
                    continue  # what a pipe gets in a format of ClickHouse is ClickHouse's
                assert code in (0, 1), shown
                # The word of the message for an exception that no command expects.
                assert "unexpected" not in shown, shown
                assert not steering(COLOUR.sub("", shown)), (form, shown)
                assert LINKS not in shown
                if form == "json":
                    json.loads(shown)


def test_every_command_is_tested_or_shows_no_data_of_others() -> None:
    """A command that is added is added here."""
    own_words = {
        "up",
        "executor",
        "submit",
        "cancel",
        "retry",
        "drain",
        "worker",
        "sink",
        "notify",
        "ready",
        "store",
        "settings",
        "version",
        "stop",
        "pause",
        "resume",
        "approve",
    }
    own_words |= {"apply", "delete", "replay", "validate", "schema", "credentials"}
    own_words |= {
        "build",
        "promote",
        "rollback",
        "diff",
        "gateway",
        "keys",
        "import",
        "console",
        "open",
        "spool",
        "simulate",
    }
    # Below: their answers need a store, their printing is tested with rows and files.
    own_words |= {"ask", "policy", "incident", "backtest", "eval"}
    assert {arguments[0] for arguments in SHOWING} | own_words == set(COMMANDS)


@pytest.mark.usefixtures("alone")
def test_releases_in_full_and_compared_steer_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Prompts, variables, descriptions of tools and the source, as text and as JSON."""
    monkeypatch.delenv("STEPSTREAM_CLICKHOUSE_URL")
    for text in (ALL, "[/b]", "=1+1"):
        with hostile(text, monkeypatch):
            for arguments in (["releases", "support@v1"], ["diff", "support@v1", "support@v2"]):
                for form in ("table", "json"):
                    code, shown = ran(arguments, capfd, form)
                    assert code == 0, shown
                    assert not steering(shown), (form, shown)
                    assert LINKS not in shown


@pytest.mark.parametrize("form", list(Format))
def test_answers_to_questions_steer_nothing(
    form: Format, capfd: pytest.CaptureFixture[str]
) -> None:
    """Columns, rows and the sentence."""
    for text in HOSTILE:
        printing.print_answer(["run", "name"], [(text, text), (ALL, text)], text, form)
        shown = capfd.readouterr()
        assert not steering(shown.out + shown.err), (form, text)


@pytest.mark.usefixtures("alone")
def test_alerts_about_saved_runs_steer_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Names of tools in the events of an incident file, in the table and in JSON."""
    shared = {"trace_id": TRACE, "agent": "a", "phase": "end", "start_time": NOW_US}
    root = {**shared, "step_id": f"{1:016x}", "kind": "agent", "name": "run"}
    calls = [
        {**shared, "step_id": f"{n:016x}", "parent_step_id": f"{1:016x}", "kind": "tool_call",
         "name": "call", "tool": ALL.replace("\ud83d", ""), "input": "q", "output": "same",
         "start_time": NOW_US + n, "end_time": NOW_US + n + 1}
        for n in range(2, 8)
    ]  # fmt: skip
    events = [{**root, "end_time": NOW_US + 9}, *calls]
    file = tmp_path / "incident.json"
    file.write_text(json.dumps({"kind": "Incident", "name": "x", "events": events}))
    for form in ("table", "json"):
        assert run(["policy", "test", str(file), "--format", form]) == 1
        shown = capfd.readouterr()
        assert "loop" in shown.out
        assert not steering(shown.out + shown.err), form


@pytest.mark.usefixtures("alone")
def test_verdicts_steer_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Names of cases that moved, in every format."""
    for name, success in (("a", True), ("b", False)):
        lines = [
            json.dumps({"case": f"{n}{ALL}".replace("\ud83d", ""), "trial": 0, "success": success})
            for n in range(12)
        ]
        (tmp_path / name).write_text("\n".join(lines))
    sides = ["--baseline", str(tmp_path / "a"), "--candidate", str(tmp_path / "b")]
    for form in ("text", "json", "markdown", "github"):
        assert run(["eval", "gate", *sides, "--format", form]) == 1
        shown = capfd.readouterr()
        assert not steering(shown.out + shown.err), form


@pytest.mark.usefixtures("alone")
def test_files_and_errors_steer_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Names and contents of files, and arguments, are printable in messages."""
    events = tmp_path / "events.jsonl"
    events.write_text(
        "".join(
            json.dumps({"trace_id": text, text: text, "kind": text}) + "\n" + text + "\n"
            for text in HOSTILE
        ),
        "utf-8",
        "replace",
    )
    document = tmp_path / "doc.yaml"
    for arguments in (
        ["validate", str(events)], ["validate", str(events), "--format", "csv"],
        ["trace", "\x1b[2J"],
        ["alerts", "show", "\x1b]0;x\x07"],
        ["apply", "-f", "\x1b[2Jnot-there"], ["\x1b[2J"], ["runs", "--since", "\x9b2J[/b]"],
        ["schema", "\x1b[31m[/b]"], ["--settings", "\x1b[2J.toml", "runs"],
    ):  # fmt: skip
        run(arguments)
        shown = capfd.readouterr()
        assert not steering(shown.out + shown.err), arguments
    for text in HOSTILE[:-1]:
        document.write_text(
            f"kind: Policy\nname: {json.dumps(text)}\nrules: [{json.dumps(text)}]\n", "utf-8"
        )
        assert run(["apply", "-f", str(document)]) != 0
        shown = capfd.readouterr()
        assert not steering(shown.out + shown.err), text


# -- the parts below --

TEXTS: Final = st.lists(st.sampled_from(HOSTILE) | st.text(max_size=5), max_size=6).map("".join)


@settings(max_examples=60)
@given(text=TEXTS, width=st.integers(40, 200), name=st.sampled_from(["dumb", "xterm"]))
def test_pictures_and_tables_are_printable(text: str, width: int, name: str) -> None:
    """Runs, traces, alerts and any listing, in consoles of any width."""
    out = io.StringIO()
    console = terminal.console(
        file=out, width=width, force_terminal=True, color_system=None if name == "dumb" else "256"
    )
    console.print(listing(*runs_cells([run_row(text)], {TRACE: 2}, now_us=NOW_US), width)[0])
    console.print(
        render_trace(
            step_rows(text),
            run_row(text),
            [alert(text)],
            View(width=width, now_us=NOW_US, contents=True),
        )
    )
    full = View(width=width, now_us=NOW_US, contents=True, full=True)
    console.print(render_trace(step_rows(text), run_row(text), [alert(text)], full))
    for one in (
        alert(text),
        alert(text, trace_id=""),
        alert(text, state="resolved"),
        alert(text, runs=3),
    ):
        console.print(alert_lines(one, width=width, remark=text, history=True))
        console.print(alert_lines(one))
    columns, cells = records_cells([text, "b"], [(text, [text]), ({text: 1}, None)])
    console.print(listing(columns, cells, None)[0])
    console.print(below_one_another([column.name for column in columns], cells))
    console.print(fields_text(text, {text: text}))
    console.print(text, soft_wrap=True)
    assert not steering(COLOUR.sub("", out.getvalue()))
    assert LINKS not in out.getvalue()


@settings(max_examples=200)
@given(text=TEXTS)
def test_json_has_the_same_values_and_steers_nothing(text: str) -> None:
    """Escapes are JSON's own."""
    shown = escaped_json(records_json(["a"], [(text,), ([text],), ({text: text},)]))
    assert not steering(shown)
    assert [row["a"] for row in json.loads(shown)] == [text, [text], {text: text}]


@settings(max_examples=200)
@given(text=TEXTS)
def test_a_cell_of_csv_is_no_formula(text: str) -> None:
    """Of texts, also nested ones and headings; numbers stay numbers, and so do texts that are
    numbers."""
    rows = list(
        csv.reader(
            io.StringIO(records_csv([text, "n"], [(text, -1.5), ([text], -2), (text, None)]))
        )
    )
    for row in rows:
        cell = row[0].lstrip(" ")
        assert not steering(cell)
        assert cell[:1] not in ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d") or re.fullmatch(
            r"[+-]?[0-9.eE+-]+", cell
        ), cell
    assert [row[1] for row in rows[1:]] == ["-1.5", "-2", ""]
    assert [csv_text(one) for one in ("-5", "+1.5e3", "a=b", "-", "")] == [
        "-5",
        "+1.5e3",
        "a=b",
        "'-",
        "",
    ]


def test_what_is_replaced_is_what_unicode_calls_control_and_format() -> None:
    """And separators of lines and paragraphs, and halves of surrogate pairs; tabs, newlines
    and all letters stay."""
    # All 1,114,112 code points: a list of bad ones would lack those of the next Unicode.
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    assert not steering(printable(everything))
    assert (
        printable("tab\tline\nGröße ☃ 𝄞 日本 العربية e\u0301 👍🏽")
        == "tab\tline\nGröße ☃ 𝄞 日本 العربية e\u0301 👍🏽"
    )
    assert printable("a\r\nb\rc") == "a\nb\nc"


def test_log_lines_are_one_record_each_and_steer_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In messages, fields and tracebacks; a newline in a name does not begin another log record."""
    for form in (logs.TextLines(), logs.JsonLines()):
        for text in (*HOSTILE, "x\n2026-01-01T00:00:00.000Z error stepstream.worker: forged"):
            try:
                raise ValueError(text)
            except ValueError:
                error = sys.exc_info()
            record = logging.LogRecord(
                "stepstream.worker", logging.ERROR, "", 0, "run of %s", (text,), error
            )
            record.__dict__["agent"] = text
            line = form.format(record)
            assert not steering(line)
            assert all(more.startswith("    ") for more in line.split("\n")[1:])


def test_log_messages_of_the_sdk_steer_nothing() -> None:
    """Its sdk_log and the tracebacks with them, in whatever format the program logs."""
    heard: list[str] = []
    logger = logging.Logger("x")
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(logging.Formatter("%(message)s").format(record))  # type: ignore[method-assign]
    logger.addHandler(handler)
    sdk_log = RateLimitedLog(logger)
    for n, text in enumerate(HOSTILE):
        sdk_log.log(str(n), f"field {text}", error=ValueError(text))
    assert len(heard) == len(HOSTILE)
    assert not [line for line in heard if steering(line)]


def test_text_goes_to_a_terminal_in_one_way() -> None:
    """No other module writes to standard output or makes a console of its own; strings are never
    read as markup."""
    root = ROOT
    allowed = {
        "stepstream/common/terminal.py", "stepstream/common/console.py", "producers/tracer.py",
        "stepstream/admin/settings_table.py",
        "stepstream/local/processes/launcher.py", "stepstream/local/embedded/jars.py",
        "sinks/clickhouse/dictionary.py",
        "schemas/metrics.py", "schemas/rules.py", "stream/detectors/expression/variables.py",
        "stepstream/admin/channels_table.py",
        "stepstream/cli/reference.py",
    }  # fmt: skip
    found = []
    listed = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=root, capture_output=True, text=True, check=True
    ).stdout.split()
    for name in listed:
        if (
            name.split("/")[0]
            not in ("stepstream", "schemas", "producers", "stream", "sinks", "evals")
            or name in allowed
        ):
            continue
        if name.startswith("stepstream/local/clickhouse_server/"):
            continue  # a process whose output goes to a file
        found += [f"{name}:{line}" for line in _direct(ast.parse((root / name).read_text()))]
    assert found == []


def _direct(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called in (
            "print",
            "Console",
            "typer.echo",
            "typer.secho",
            "Text.from_markup",
            "Text.from_ansi",
        ):
            yield node.lineno
        if re.fullmatch(r"sys\.std(out|err)(\.buffer)?\.write", called):
            yield node.lineno
        if called == "TextColumn" and not any(one.arg == "markup" for one in node.keywords):
            yield node.lineno
