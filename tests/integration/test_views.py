"""Reading runs from the command line, with everything between an agent and the terminal real."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import pytest

import stepstream
from stepstream.cli.app import run as command
from stepstream.local.supervisor import Pipeline
from stepstream.schemas.settings import Settings
from tests.support.processes import wait_until

View = Callable[..., str]
PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def settings(
    kafka_bootstrap: str, clickhouse_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    """A worker and a sink of this module's own, on the engines that all tests share."""
    name = f"view_{uuid.uuid4().hex[:8]}"
    folder = tmp_path_factory.mktemp("view")
    given = Settings(
        kafka_brokers=kafka_bootstrap,
        clickhouse_url=clickhouse_url,
        topic_prefix=name,
        clickhouse_database=name,
        state_dir=str(folder),
        partitions=2,
        quiet=True,
    )
    with Pipeline(given) as pipeline:
        yield pipeline.settings


@pytest.fixture(scope="module")
def runs(settings: Settings) -> Iterator[dict[str, str]]:
    """Three runs, by name: one that went well, one that ignored an error, one with an open step."""
    tracer = stepstream.Tracer(
        settings.model_copy(update={"project": "shop", "environment": "test"})
    )
    ids = {"well": refund(tracer), "ignored": refund(tracer, fails=True)}
    waiting = tracer.run(agent="buyer", task="restock").start()
    waiting.tool("ask_supplier", input={"sku": "beans"}).start()
    ids["waiting"] = waiting.trace_id
    assert tracer.flush(20)
    yield ids
    tracer.close()


def refund(tracer: stepstream.Tracer, *, fails: bool = False) -> str:
    with tracer.run(agent="support", task="refund", user_id="u-9", input="refund order 7") as run:
        with run.llm("plan", model="gpt-4o", provider="openai", input="what to do?") as step:
            step.set_output("view it up")
            step.set_usage(input_tokens=1_000, output_tokens=100)
        with run.tool("refund_order", input={"order": 7}) as step:
            if fails:
                step.set_error("the payment service\nis away", "PaymentError")
        with run.step("output", "answer") as step:
            step.set_output("done, 東京")
        run.set_output("done")
    return run.trace_id


@pytest.fixture
def view(settings: Settings, capsys: pytest.CaptureFixture[str]) -> View:
    """Run a command and return what it printed; ``fails`` is the exit code that is expected."""
    flags = [
        f"--clickhouse-url={settings.clickhouse_url}",
        f"--clickhouse-password={settings.clickhouse_password.get_secret_value()}",
        f"--clickhouse-database={settings.clickhouse_database}",
        f"--state-dir={settings.state_dir}",
    ]

    def run(*arguments: str, fails: int = 0) -> str:
        code = command([*arguments, *flags])
        printed = capsys.readouterr()
        assert code == fails, printed.err
        return printed.err if fails else printed.out

    return run


def shown(view: View, *arguments: str, until: Callable[[str], bool]) -> str:
    """The output of the command once ``until`` accepts it."""
    seen = [""]

    def accepted() -> bool:
        seen.append(view(*arguments))
        return until(seen[-1])

    wait_until(accepted, PATIENCE_S, f"stepstream {' '.join(arguments)}", instead=lambda: seen[-1])
    return seen[-1]


def test_runs_are_listed_newest_first(runs: dict[str, str], view: View) -> None:
    """Within moments every run is listed with status, steps and cost; filters and formats apply."""
    text = shown(
        view,
        "runs",
        until=lambda text: text.count(" ok ") == 2 and text.count("running") == 1,
    )
    lines = text.splitlines()
    assert lines[0].split()[0] == "started"
    assert [
        runs[name][:8] in line
        for name, line in zip(("waiting", "ignored", "well"), lines[1:], strict=True)
    ] == [True] * 3
    # Four digits of small amounts: $0.00 would be no answer.
    assert "$0.0035" in lines[3]
    listed = json.loads(view("runs", "--agent", "supp*", "--status", "ok", "--format", "json"))
    assert {run["trace_id"] for run in listed} == {runs["well"], runs["ignored"]}
    assert all(
        Decimal(run["cost_usd"]) == Decimal("0.0035") and run["environment"] == "test"
        for run in listed
    )
    assert view("runs", "--format", "csv", "--limit", "1").count("\n") == 2
    assert view("runs", "--project", "other") == ""
    assert view("runs", "--since", "2000-01-01", "--limit", "1").count("\n") == 2
    assert "write how long ago" in view("runs", "--since", "yesterday", fails=2)


def test_a_run_is_shown_as_a_tree(runs: dict[str, str], view: View) -> None:
    """By a unique prefix, with time, cost and tokens; contents only when asked for."""
    text = shown(
        view,
        "trace",
        runs["well"][:10],
        until=lambda text: "4 steps" in text and "support/refund  ok" in text,
    )
    plan = next(line for line in text.splitlines() if "plan" in line)
    assert all(part in plan for part in ("├╴plan · gpt-4o", "$0.0035", "1.0k→100"))
    # A text of wide characters, so that widths are counted in cells, not in characters.
    assert "東京" not in text
    assert "東京" in view("trace", runs["well"][:10], "--contents")
    narrow = view("trace", runs["well"], "--width", "50")
    assert max(map(len, narrow.splitlines())) <= 50


def test_failures_and_their_alerts_are_marked(runs: dict[str, str], view: View) -> None:
    """The failed step has its sign and its reason, and the alert about it stands below the tree."""
    text = shown(view, "trace", runs["ignored"], until=lambda text: "tool-error-ignored" in text)
    assert "✗!" in text
    assert "PaymentError: the payment service is away" in text
    assert "1 failed" in text


def test_what_is_still_running_is_shown_as_such(runs: dict[str, str], view: View) -> None:
    """A step without an end is drawn up to now; the newest run needs no id."""
    text = shown(view, "trace", "--last", until=lambda text: "2 still open" in text)
    assert runs["waiting"][:8] in text
    assert next(line for line in text.splitlines() if "ask_supplier" in line).startswith("▸")
    whole = json.loads(view("trace", runs["waiting"], "--format", "json"))[0]
    assert {step["status"] for step in whole["steps"]} == {"running"}
    assert whole["run"]["open_steps"] == 2
    assert view("trace", runs["waiting"], "--format", "csv").count("\n") == 3


def test_an_unknown_or_ambiguous_run_is_reported(runs: dict[str, str], view: View) -> None:
    """Unknown, ambiguous and impossible ids: what is wrong and what to do."""
    assert "no run has an id that begins with ffffffffffffffff" in view("trace", "f" * 16, fails=1)
    assert "is not a run id" in view("trace", "nonsense!", fails=2)
    assert "name one run" in view("trace", fails=2)
    first = {trace_id[0] for trace_id in runs.values()}
    # Ids are random: three of them have different first digits most of the time.
    if len(first) < len(runs):
        ambiguous = next(
            c for c in first if sum(trace_id[0] == c for trace_id in runs.values()) > 1
        )
        assert "several runs" in view("trace", ambiguous, fails=2)


def test_two_runs_are_shown_next_to_each_other_as_a_table_alone(
    runs: dict[str, str], view: View, tmp_path: Path
) -> None:
    both = (runs["well"], runs["ignored"])
    text = shown(view, "trace", *both, until=lambda text: "in both runs" in text)
    assert all(trace_id[:8] in text for trace_id in both)
    for more in (("--format", "json"), ("--step", "plan"), ("--html", str(tmp_path / "page.html"))):
        assert "two runs are printed as a table" in view("trace", *both, *more, fails=2)
    assert not (tmp_path / "page.html").exists()


def test_sql_answers_and_cannot_write(
    runs: dict[str, str], view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any query in any format, from arguments or standard input; no changes; one-line errors."""
    shown(
        view,
        "sql",
        "SELECT count() FROM runs",
        "--format",
        "csv",
        until=lambda text: text.endswith("3\n"),
    )
    question = (
        "SELECT agent, count() AS runs, sum(cost_usd) AS usd "
        "FROM runs GROUP BY agent ORDER BY agent;"
    )
    assert json.loads(view("sql", question, "--format", "json")) == [
        {"agent": "buyer", "runs": 1, "usd": "0"},
        {"agent": "support", "runs": 2, "usd": "0.007"},
    ]
    assert view("sql", question).split()[:3] == ["agent", "runs", "usd"]
    assert view("sql", "SELECT 1 AS one FORMAT JSONEachRow").strip() == '{"one":1}'
    assert "runs" in view("sql", "SHOW TABLES")
    for statement in (
        "DROP TABLE runs_raw",
        "INSERT INTO runs_raw (trace_id) VALUES ('a')",
        # Reading is refused as well where it is not of the store.
        "SELECT * FROM file('/etc/passwd')",
    ):
        assert "ClickHouse" in view("sql", statement, fails=1)
    error = view("sql", "SELECT nothing FROM runs", fails=1)
    assert "nothing" in error
    assert "Stack trace" not in error
    assert "version" not in error
    assert error.count("\n") == 1
    monkeypatch.setattr("sys.stdin", _Input("SELECT 2 AS two"))
    assert view("sql", "-", "--format", "csv") == "two\n2\n"


class _Input:
    def __init__(self, text: str) -> None:
        self._text = text

    def read(self) -> str:
        return self._text


def test_alerts_are_listed_as_two_lines_each(runs: dict[str, str], view: View) -> None:
    """What happened, to whom, and the command that shows it; filters and formats hold."""
    text = shown(
        view,
        "alerts",
        until=lambda text: "tool-error-ignored support/refund: refund_order failed" in text,
    )
    assert f"stepstream trace {runs['ignored'][:8]}" in text
    listed = json.loads(
        view("alerts", "--format", "json", "--severity", "error", "--agent", "support")
    )
    assert [alert["rule"] for alert in listed] == ["tool_error_ignored"]
    assert view("alerts", "--alert", "loop") == ""
    assert "one of info" in view("alerts", "--severity", "serious", fails=2)


def test_an_alert_is_shown_with_its_history(runs: dict[str, str], view: View) -> None:
    """Every change of it is a line: when, what, by whom."""
    shown(view, "alerts", until=lambda text: "tool-error-ignored" in text)
    alert_id = json.loads(
        view("alerts", "--format", "json", "--alert", "tool-error-ignored", "--limit", "1")
    )[0]["alert_id"]
    text = shown(view, "alerts", "show", alert_id[:12], until=lambda text: "resolved: " in text)
    assert alert_id in text
    assert "opened: " in text
    assert "no alert has an id" in view("alerts", "show", "ffffffff", fails=1)


def test_alerts_are_followed_as_they_come(
    settings: Settings, runs: dict[str, str], tmp_path: Path
) -> None:
    """Alerts since a moment come first, new ones soon after; each once, also through a pipe."""
    flags = [
        f"--kafka-brokers={settings.kafka_brokers}",
        f"--clickhouse-url={settings.clickhouse_url}",
        f"--clickhouse-password={settings.clickhouse_password.get_secret_value()}",
        f"--clickhouse-database={settings.clickhouse_database}",
        f"--topic-prefix={settings.topic_prefix}",
        f"--state-dir={tmp_path}",
    ]
    arguments = [
        sys.executable,
        "-m",
        "stepstream",
        "alerts",
        "--follow",
        "--since",
        "1h",
        "--format",
        "json",
        *flags,
    ]
    lines: list[dict[str, str]] = []
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        reader = threading.Thread(
            target=lambda: lines.extend(map(json.loads, follower.stdout or ())), daemon=True
        )
        reader.start()
        try:
            wait_until(
                lambda: any(line["trace_id"] == runs["ignored"] for line in lines),
                PATIENCE_S,
                "the known alert",
            )
            tracer = stepstream.Tracer(settings)
            fresh = refund(tracer, fails=True)
            assert tracer.flush(20)
            wait_until(
                lambda: any(line["trace_id"] == fresh for line in lines),
                PATIENCE_S,
                "the new alert",
            )
            tracer.close()
        finally:
            follower.terminate()
            reader.join(10)
    seen = [(line["alert_id"], line["seq"]) for line in lines]
    assert len(seen) == len(set(seen))
