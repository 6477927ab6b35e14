"""The tree of commands: quick to show, each command in its module, every error one line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stepstream.cli import table_generator
from stepstream.cli.app import build
from stepstream.cli.table import COMMANDS


def run(
    *arguments: str, cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, with no settings but those given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STEPSTREAM_")}
    environment = {
        **kept,
        "STEPSTREAM_SETTINGS": os.devnull,
        "COLUMNS": "200",
        "NO_COLOR": "1",
        **variables,
    }
    command = [sys.executable, "-m", "stepstream", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd=cwd, timeout=60
    )


def test_the_overview_names_every_command_and_loads_none_of_them() -> None:
    """`stepstream --help` is quick: no client, no command's module comes with it."""
    done = run("--help")
    assert done.returncode == 0
    for name, entry in COMMANDS.items():
        assert re.search(rf"\b{name}\b +{re.escape(entry.help)}", done.stdout), name
    program = (
        "import sys\n"
        "from stepstream.cli.app import run\n"
        "run(['--help'])\n"
        "loaded = [name for name in sys.modules if name.startswith('stepstream.cli.')]\n"
        "names = ('app', 'entry', 'errors', 'help_tables', 'table')\n"
        "own = {'stepstream.cli.' + name for name in names}\n"
        "assert set(loaded) <= own, loaded\n"
        "assert not {'faust', 'clickhouse_connect', 'chdb', 'yaml'} & set(sys.modules)\n"
    )
    # A process of its own: in this one other tests have loaded everything.
    checked = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


def test_the_table_is_current() -> None:
    """After a change of a command: python -m stepstream.cli.table_generator."""
    assert table_generator.TABLE.read_text(encoding="utf-8") == table_generator.source()


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself(command: str) -> None:
    """Its module registers it in the group of the overview, with a help text that begins like its
    line.
    """
    from typer.main import get_command

    entry = COMMANDS[command]
    tree = get_command(build(command))
    found = tree.commands[command]  # type: ignore[attr-defined]
    first = " ".join((found.help or "").strip().split("\n\n")[0].split())
    assert first.startswith(entry.help.rstrip("."))
    assert found.rich_help_panel == entry.panel


def test_everything_can_be_registered_at_once() -> None:
    """Shell completion needs the whole tree; no two commands share a name."""
    from typer.main import get_command

    tree = get_command(build(everything=True))
    assert set(tree.commands) == set(COMMANDS)  # type: ignore[attr-defined]


def test_no_command_is_the_overview_and_exit_code_2() -> None:
    """Someone who types the bare name is shown what there is."""
    done = run()
    assert (done.returncode, done.stderr) == (2, "")
    assert "Usage: stepstream" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("settigns",),
            "No such command 'settigns'. Did you mean 'settings'? (stepstream --help explains)",
        ),
        (("settings", "--formt", "json"), "No such option: --formt"),
        (
            ("topics", "list", "--partitions", "many"),
            "partitions from --partitions must be a whole number, not 'many'",
        ),
        (
            ("--settings", "/nowhere.toml", "settings"),
            "settings file /nowhere.toml (from --settings) does not exist",
        ),
        (
            ("runs", "--limit", "lots"),
            "Invalid value for '--limit': must be a whole number (stepstream runs --help explains)",
        ),
        (("runs", "--limit", "0"), "Invalid value for '--limit': must be at least 1"),
        (("runs", "--format", "xml"), "Invalid value for '--format': xml: one of table, json, csv"),
        (("runs", "--format", "jsn"), "Invalid value for '--format': jsn: did you mean json?"),
        (("fleet", "budget"), "budget: did you mean budgets?"),
        (("runs", "--status", "runing"), "--status runing: did you mean running?"),
        (("alerts", "--severity", "crit"), "--severity crit: did you mean critical?"),
        (("apply", "x.yaml"), "give files with -f: stepstream apply -f x.yaml"),
        (("schema", "Alrt"), "there is no contract Alrt; did you mean Alert?"),
        (("get", "policy", "x", "--endpoint", "y"), "No such option: --endpoint"),
        (("ready", "bread", "--kafka-brokers", "x:1"), "PART bread: one of worker, sink, notify"),
        (
            ("deadletter", "replay", "--kafka-brokers", "x:1"),
            "give offsets, --reason, --since, or --all",
        ),
    ],
)
def test_a_wrong_question_is_one_line_and_exit_code_2(
    arguments: tuple[str, ...], words: str
) -> None:
    """What is wrong and what to do, on stderr; no traceback, nothing on stdout."""
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("topics", "list"), "no Kafka is known: start `stepstream up`"),
        (("worker",), "no Kafka is known"),
        (("sink", "--kafka-brokers", "x:1"), "no ClickHouse is known"),
        (("store", "status"), "no ClickHouse is known"),
    ],
)
def test_without_addresses_a_command_explains_how_to_get_them(
    arguments: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    """Neither set nor written by a running ``up``: the two ways out are named."""
    done = run(*arguments, STEPSTREAM_STATE_DIR=str(tmp_path))
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr


def test_brokers_that_do_not_answer_are_reported_in_one_line() -> None:
    """One line with the address, not a page of the client's log."""
    done = run("topics", "list", "--kafka-brokers", "127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no Kafka broker answered at 127.0.0.1:1")
    assert len(done.stderr.splitlines()) == 1


def test_a_missing_extra_is_reported_with_the_command_that_installs_it(tmp_path: Path) -> None:
    """The base install is the SDK: a command that needs more names the extra."""
    # Stands in front of the installed package, as if that were not there.
    (tmp_path / "faust.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'faust'\", name='faust')"
    )
    done = run("worker", "--kafka-brokers", "x:1", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert (
        done.stderr.strip()
        == "error: the package faust is not installed: pip install 'stepstream[worker]'"
    )


def test_an_unexpected_error_shows_its_origin_only_when_asked(tmp_path: Path) -> None:
    """No traceback by default; --debug shows it."""
    (tmp_path / "yaml.py").write_text("raise RuntimeError('broken')")
    (tmp_path / "p.yaml").write_text("kind: Policy")
    quiet = run("apply", "-f", str(tmp_path / "p.yaml"), PYTHONPATH=str(tmp_path))
    assert (
        quiet.stderr.strip()
        == "error: unexpected RuntimeError: broken (stepstream --debug ... prints the traceback)"
    )
    assert (
        "Traceback"
        in run("--debug", "apply", "-f", str(tmp_path / "p.yaml"), PYTHONPATH=str(tmp_path)).stderr
    )


@pytest.mark.skipif(os.name != "posix", reason="pipes of a POSIX shell")
def test_a_reader_that_leaves_early_is_no_error() -> None:
    """stepstream settings | head -1: what is not wanted is not complained about."""
    # `true` reads nothing, so that the pipe is closed when the output comes.
    script = f"'{sys.executable}' -m stepstream schema StepEvent | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_without_a_terminal_to_confirm_nothing_is_sent() -> None:
    """A script that stops many runs gets an error that names --yes, not the exit code of Ctrl-C."""
    command = [
        sys.executable,
        "-m",
        "stepstream",
        "stop",
        "--agent",
        "support",
        "--project",
        "shop",
    ]
    environment = {**os.environ, "STEPSTREAM_SETTINGS": os.devnull}
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stdout == "stop all runs of agent support in project shop? [y/N]: \n"
    assert done.stderr == "error: nothing was sent; --yes sends without asking\n"


def test_a_document_is_named_by_kind_and_name() -> None:
    """A kind alone deletes nothing, and the error shows the form."""
    done = run("delete", "policy", "--kafka-brokers", "127.0.0.1:1")
    assert (done.returncode, done.stderr) == (
        2,
        "error: name the document: stepstream delete KIND NAME\n",
    )


def test_the_help_of_sql_names_every_view() -> None:
    """As the data dictionary has them."""
    views = re.findall(r"^## (\w+)", Path("docs/data-dictionary.md").read_text(), re.MULTILINE)
    text = run("sql", "--help").stdout
    assert len(views) > 8
    assert [view for view in views if not re.search(rf"\b{view}\b", text)] == []


@pytest.mark.parametrize("command", ["up", "sink", "notify"])
def test_help_prints_names_of_options_in_full(command: str) -> None:
    """In 80 columns as well; a switch has one name for on and off."""
    done = run(command, "--help", COLUMNS="80")
    assert not re.findall(r"--[\w\[\]-]*…", done.stdout)
    assert "--[no-]" in done.stdout or command == "sink"
