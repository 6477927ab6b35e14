"""The blocks of the documents, run: Python and commands against a running pipeline, documents
applied to it.

What a page names by example (the id of a run, a reader's file) is replaced by what the test has.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import io
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import threading
import time
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
import yaml

import stepstream
from stepstream.cli import app
from stepstream.local.supervisor import Pipeline
from stepstream.schemas.settings import Settings
from stepstream.sinks.clickhouse import connect
from tests.support.document_blocks import Block, blocks
from tests.support.notifier import Publisher
from tests.support.otlp import json_request, span
from tests.support.paths import ROOT
from tests.support.processes import wait_until
from tests.support.sdk import own_tracer_provider

BLOCKS: Final = blocks()
# What a block expects to exist, as the text around it describes.
BEFORE: Final = {
    "README.md": """
query = "x"
def search(query): return [query]
def cached(query): return []
""",
    "docs/subscriptions.md": "def page(alert): return alert",
    "stepstream/queries/README.md": """
from stepstream.common.settings import load
from stepstream.sinks.clickhouse import connect
client = connect(load(), readonly=True)
""",
}
# Python that is not run here, by what it contains.
PYTHON_NOT_RUN: Final = {
    "TooManyQuestions": "tests/unit/project/test_document_blocks.py, in a process of its own",
    "stepstream.release(": "needs a published release; test_releases.py and test_release.py",
    "pytest.mark.suite": "a reader's test; tests/unit/suites/test_plugin.py",
    "sqlalchemy": "is not a dependency",
}
COMMANDS_NOT_RUN: Final = {
    "make ": "sets up an environment; tests/unit/project/test_makefile.py",
    "stepstream up": "runs until it is stopped; tests/integration/test_up.py",
    "stepstream worker": "runs until it is stopped; test_worker.py",
    "stepstream sink": "runs until it is stopped; test_sink_records.py",
    "stepstream notify": "runs until it is stopped; test_notify.py",
    "stepstream console": "runs until it is stopped; test_console.py",
    "stepstream task order-7": "needs a task; test_tasks_in_the_store.py",
    "stepstream executor ": "runs until it is stopped; test_executor.py",
    "stepstream submit": "waits for an executor; test_executor.py",
    "stepstream open": "opens a browser; tests/unit/console",
    "stepstream alerts --follow": "runs until it is stopped; test_views.py",
    "stepstream store backup": "writes to the server's disk or to S3; test_store_backup.py",
    "stepstream store restore": "needs stopped sinks; test_store_backup.py",
    "stepstream subscriptions test": "sends to PagerDuty; test_notify.py",
    "stepstream get policy costs@3": "needs three revisions; test_documents.py",
    "stepstream build agents/support": "stands for a reader's folder; test_releases.py",
    "stepstream promote": "needs a published release; test_releases.py",
    "stepstream rollback": "needs a published release; test_releases.py",
    "stepstream diff": "needs published releases; test_releases.py",
    "stepstream simulate scenario.yaml --speed": "takes minutes; tests/unit/simulate",
    "stepstream simulate scenario.yaml": "takes the scenario's 90 minutes; tests/unit/simulate",
    "stepstream eval shadow": "my_agent stands for a reader's agent; test_backtest.py",
    "stepstream eval gate --baseline shadow": "needs the files of eval shadow",
    "stepstream eval replay": "names a recording; tests/unit/suites/test_replay_command.py",
    "stepstream eval agreement": "needs a reader's graders; tests/unit/suites/test_graders.py",
    "pytest --stepstream": "runs a reader's tests; tests/unit/suites/test_plugin.py",
    "npm install ./dist/": "needs a package of the project's folder; tests/unit/clients",
    "docker": "needs Docker; make test-containers",
    "curl -": "needs a gateway or notifier on a fixed port; test_gateway.py, test_notify.py",
    "printf '%s\\t": "needs kcat; tests/unit/schemas/test_readme.py accepts the record",
    "kcat": "is not installed everywhere",
    ".venv/bin/python -m pytest": "runs tests",
}
# Exit codes other than 0 that the page describes for what the test has.
OTHER_CODES: Final = {
    "stepstream policy suggest": 1,
    "stepstream eval gate": 3,
    "stepstream eval pair": 3,
}
# What stands for a reader's run or alert.
RUN_PLACEHOLDERS: Final = re.compile(r"\b(?:4bf92f35|4bf92f|00f067aa)\b")
ALERT_PLACEHOLDERS: Final = re.compile(r"(?<=^stepstream alerts )(\w+) (?:ID|0f3a91c2)\b")
RUN_COMMANDS: Final = re.compile(r"^stepstream (?:stop|pause|resume|approve) ID\b")
# Lines with these are for a shell, and trials are forked, which a process with threads of Kafka's
# client must not do. Other lines are run in this process, which saves the imports.
SHELL: Final = re.compile(r"[|$<>;&`*]|^stepstream eval (?:run|pair|tool)\b")
# YAML that other programs read, or rules of packages that the pages teach to write.
YAML_NOT_APPLIED: Final = ("services:", "scrape_configs:", "too_many_questions")
# Files that a page names, where its block does not begin with the name.
FILES: Final = {
    ("docs/evaluation.md", "Criteria"): "criteria.yaml",
    ("docs/simulate.md", "Scenario"): "scenario.yaml",
}


def of(*languages: str) -> list[Any]:
    """The blocks of these languages that are run, as parameters."""
    return [
        pytest.param(block, id=block.id)
        for block in BLOCKS
        if block.language in languages
        and not (block.language == "python" and any(one in block.text for one in PYTHON_NOT_RUN))
    ]


@pytest.fixture(scope="module")
def settings(
    kafka_bootstrap: str,
    clickhouse_url: str,
    tmp_path_factory: pytest.TempPathFactory,
    worker_id: str,
) -> Iterator[Settings]:
    """A running pipeline with topics and a database of its own, found through its state folder."""
    name = f"documents_{os.getpid()}_{worker_id}"
    given = Settings(
        kafka_brokers=kafka_bootstrap,
        clickhouse_url=clickhouse_url,
        topic_prefix=name,
        clickhouse_database=name,
        state_dir=str(tmp_path_factory.mktemp("documents")),
        partitions=2,
        quiet=True,
    )
    with Pipeline(given) as pipeline, a_loop(pipeline.settings):
        store_a_run(pipeline.settings)
        yield pipeline.settings
        stepstream.close()


@contextlib.contextmanager
def a_loop(settings: Settings) -> Iterator[None]:
    """A run that has repeated itself and is still open, so that its alert is firing."""
    tracer = stepstream.Tracer(settings.model_copy(update={"project": "shop"}))
    # Not entered: it must not be the current step of the blocks.
    run = tracer.run(agent="looper")
    run.start()
    for _ in range(5):
        with run.tool("search", input={"page": 1}) as step:
            step.set_output("nothing found")
    yield
    run.end()
    tracer.close(20)


def store_a_run(settings: Settings) -> None:
    """Pages show the newest run, and commands are about an alert: there is one of each."""
    tracer = stepstream.Tracer(settings.model_copy(update={"project": "shop"}))
    with tracer.run(agent="support", task="refund", input="Please refund order 4711."):
        with tracer.tool("search_docs") as step:
            step.set_error("the index is away")  # nothing is done about it: tool_error_ignored
        with tracer.llm("answer", model="gpt-4o", provider="openai") as step:
            step.set_output("It is done.")
            step.set_usage(input_tokens=900, output_tokens=40)
    assert tracer.close(20)
    with connect(settings) as client:

        def stored() -> bool:
            query = (
                "SELECT (SELECT count() FROM runs WHERE status = 'ok'), "
                "countIf(alert = 'tool-error-ignored'), countIf(alert = 'loop') FROM alerts"
            )
            return all(client.query(query).result_rows[0])

        wait_until(stored, 60, "a stored run and its alert")


class OpenRun:
    """A run that goes on until it is stopped or the test ends, for commands to running agents."""

    def __init__(self, settings: Settings) -> None:
        self.tracer = stepstream.Tracer(settings.model_copy(update={"project": "shop"}))
        self._ended, self._started = threading.Event(), threading.Event()
        self.trace_id = ""
        self._thread = threading.Thread(target=self._work)
        self._thread.start()
        assert self._started.wait(30)
        assert self.tracer.flush(20)

    def _work(self) -> None:
        with self.tracer.run(agent="buyer", task="order") as run:
            self.trace_id = str(run.trace_id)
            while not self._ended.is_set():
                # A stopped run goes on: the next command of the page resumes it.
                with contextlib.suppress(stepstream.RunStopped), run.tool("buy"):
                    self._started.set()
                # Each step acknowledges commands, which the command line waits for.
                self._ended.wait(0.1)

    def close(self) -> None:
        self._ended.set()
        self._thread.join(30)
        self.tracer.close(20)


@pytest.fixture
def environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Nothing set but where the pipeline keeps its state, and what documents may name."""
    for name in [name for name in os.environ if name.startswith("STEPSTREAM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("STEPSTREAM_STATE_DIR", settings.state_dir)
    monkeypatch.setenv("STEPSTREAM_TOPIC_PREFIX", settings.topic_prefix)
    monkeypatch.setenv("STEPSTREAM_CLICKHOUSE_DATABASE", settings.clickhouse_database)
    monkeypatch.setenv(
        "STEPSTREAM_CLICKHOUSE_PASSWORD", settings.clickhouse_password.get_secret_value()
    )
    # `stepstream store url` prints the reading user's; here both are the same.
    user = urlsplit(settings.clickhouse_url)
    monkeypatch.setenv(
        "STEPSTREAM_CLICKHOUSE_READER_USER", user.username or settings.clickhouse_user
    )
    password = user.password or settings.clickhouse_password.get_secret_value()
    monkeypatch.setenv("STEPSTREAM_CLICKHOUSE_READER_PASSWORD", password)
    monkeypatch.setenv("STEPSTREAM_QUIET", "true")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return dict(os.environ)


class FirstAlerts(types.ModuleType):
    """``stepstream``, whose subscriptions end after one alert: the real ones never end."""

    def __getattr__(self, name: str) -> Any:
        return getattr(stepstream, name)

    @staticmethod
    def subscribe(*given: Any, **options: Any) -> Iterator[Any]:
        return itertools.islice(stepstream.subscribe(*given, **options), 1)

    @staticmethod
    async def asubscribe(*given: Any, **options: Any) -> Any:
        async for alert in stepstream.asubscribe(*given, **options):
            yield alert
            return


def run_block(block: Block, module: types.ModuleType, database: str) -> dict[str, Any]:
    """Run a block, with ``await`` at the top where it has some; returns its names."""
    names: dict[str, Any] = {"__name__": "block", "stepstream": module}
    exec(BEFORE.get(block.page, ""), names)
    text = block.text.replace("import stepstream\n", "").replace(
        "{url}/stepstream", f"{{url}}/{database}"
    )
    code = compile(text, block.id, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, names)
    if asyncio.iscoroutine(result):
        asyncio.run(result)
    return names


@pytest.mark.parametrize("block", of("python"))
def test_python_runs(block: Block, settings: Settings, environment: dict[str, str]) -> None:
    """As it stands, against a running pipeline; alerts are published while it runs."""
    publisher, stop = Publisher(settings), threading.Event()

    def publish() -> None:
        for number in itertools.count():
            if stop.wait(0.3):
                return
            publisher.send(f"{block.line}-{number}", severity="critical", agent="support-1")
            publisher.flush()

    alerts = threading.Thread(target=publish)
    alerts.start()
    try:
        with own_tracer_provider():
            names = run_block(block, FirstAlerts("stepstream"), settings.clickhouse_database)
    finally:
        stepstream.uninstrument()
        stop.set()
        alerts.join()
        publisher.close()
    listener = names.get("listener")
    if listener is not None:
        listener.close()
    assert stepstream.flush(20)


@dataclass(frozen=True)
class Ids:
    """What stands for the ids that pages give as examples."""

    settings: Settings
    run: str
    alert: str

    def placed_in(self, line: str) -> str:
        """The command with the ids of this test, and with one trial a case."""
        line = RUN_PLACEHOLDERS.sub(self.run, line)
        line = ALERT_PLACEHOLDERS.sub(rf"\1 {self.alert}", line)
        database = f"?database={self.settings.clickhouse_database}"
        return line.replace("?database=stepstream", database).replace(" -n 8 ", " -n 1 ")


@pytest.fixture(scope="module")
def ids(settings: Settings) -> Ids:
    with connect(settings) as client:
        (run,) = client.query("SELECT trace_id FROM steps WHERE name = 'search_docs'").result_rows[
            0
        ]
        query = "SELECT alert_id FROM alerts WHERE agent = 'looper' AND alert = 'loop'"
        (alert,) = client.query(query).result_rows[0]
    return Ids(settings, run, alert)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's folder with the files that pages name."""
    folder = tmp_path_factory.mktemp("reader")
    for name in ("policies", "saved", "scenarios", "examples", "results", "shadow"):
        (folder / name).mkdir()
    for block in BLOCKS:
        if block.language == "yaml":
            for name in _names_of(block):
                (folder / name).write_text(block.text)
    first = next(b for b in BLOCKS if b.page == "README.md" and b.language == "python")
    (folder / "agent.py").write_text(first.text)
    now = time.time_ns()
    spans = [span(1, start_ns=now - 1_000, end_ns=now)]
    (folder / "export.json").write_text(json.dumps(json_request(spans)))
    # One case, because each trial is a process.
    case = (ROOT / "examples" / "refunds.jsonl").read_text().partition("\n")[0]
    (folder / "examples" / "refunds.jsonl").write_text(f"{case}\n")
    calls = (ROOT / "examples" / "find_order.jsonl").read_text()
    (folder / "examples" / "find_order.jsonl").write_text(calls)
    trial = {"trial": 0, "success": True, "cost_usd": 0.01}
    results = "".join(f"{json.dumps({'case': f'case-{n}', **trial})}\n" for n in range(20))
    for name in ("results/v12", "results/v13", "shadow/production", "shadow/candidate"):
        (folder / f"{name}.jsonl").write_text(results)
    # Cases as other tools write them.
    (folder / "dataset.jsonl").write_text('{"id": "a", "input": "q", "target": "Paris"}\n')
    contains = {"type": "contains", "value": "Paris"}
    promptfoo = {"prompts": ["{{q}}"], "tests": [{"vars": {"q": "b"}, "assert": [contains]}]}
    (folder / "promptfooconfig.yaml").write_text(yaml.safe_dump(promptfoo))
    _write_client(folder / "clickhouse-client")
    return folder


def _names_of(block: Block) -> Iterator[str]:
    """The files of a reader that have this block's document."""
    document = next(iter(yaml.safe_load_all(block.text)))
    if named := re.match(r"# (\S+\.ya?ml)\n", block.text):
        yield named[1]
    if name := FILES.get((block.page, document.get("kind", ""))):
        yield name
        if document["kind"] == "Scenario":
            yield f"scenarios/{name}"
    if block.page == "docs/policies.md" and document.get("kind") == "Policy":
        yield f"policies/{document['name']}.yaml"


def _write_client(path: Path) -> None:
    """ClickHouse's command-line client, which is not installed: runs SETs of parameters and one
    query.
    """
    path.write_text(
        f"#!{sys.executable}\n"
        "import sys\n"
        "from stepstream.common.settings import load\n"
        "from stepstream.sinks.clickhouse import connect\n"
        "with connect(load()) as client:\n"
        "    *parameters, query = sys.stdin.read().strip().rstrip(';').split(';\\n')\n"
        "    given = dict(one.removeprefix('SET param_').split(' = ', 1) for one in parameters)\n"
        "    values = {name: value.strip(chr(39)) for name, value in given.items()}\n"
        "    client.query(query, parameters=values)\n"
    )
    path.chmod(0o700)


def run_line(line: str, environment: dict[str, str], folder: Path) -> tuple[int, str]:
    """Exit code and output of a command, in this process where it needs no shell."""
    if line.startswith("stepstream ") and not SHELL.search(line.partition('"')[0]):
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            try:
                code = app.run(shlex.split(line)[1:])
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
        return code, out.getvalue()
    done = subprocess.run(
        ["bash", "-c", line],
        env=environment | {"PATH": f"{folder}{os.pathsep}{environment['PATH']}"},
        # The examples are named from the project's folder, other files from a reader's.
        cwd=ROOT if line.startswith("python examples/") else folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, f"{done.stdout}{done.stderr}"


@pytest.mark.parametrize("block", of("shell", "sh", "console"))
def test_commands_run(
    block: Block,
    ids: Ids,
    environment: dict[str, str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each command of a page that can run here exits as the page states; the rest are listed with
    a reason.
    """
    monkeypatch.chdir(folder)
    lines = [one for one in block.commands if not one.startswith(tuple(COMMANDS_NOT_RUN))]
    run = OpenRun(ids.settings) if any(map(RUN_COMMANDS.match, lines)) else None
    try:
        for line in map(ids.placed_in, lines):
            if run is not None and RUN_COMMANDS.match(line):
                code, printed = run_line(line.replace("ID", run.trace_id), environment, folder)
            else:
                code, printed = run_line(line, environment, folder)
            other = next((c for start, c in OTHER_CODES.items() if line.startswith(start)), 0)
            assert code in (0, other), f"{line}\n{printed}"
    finally:
        if run is not None:
            run.close()


@pytest.mark.parametrize("block", of("yaml"))
def test_documents_are_applied(
    block: Block,
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    """``stepstream apply`` takes each document, and ``delete`` withdraws it."""
    if any(one in block.text for one in YAML_NOT_APPLIED):
        pytest.skip("for another program, or with a rule that is not installed here")
    document = next(iter(yaml.safe_load_all(block.text)))
    if document.get("kind", "Part") in ("Part", "Gate", "Scenario"):
        pytest.skip("no document of the config topic; tests/unit/project/test_document_blocks.py")
    file = tmp_path / "document.yaml"
    file.write_text(block.text)
    code, printed = run_line(f"stepstream apply -f {file}", environment, tmp_path)
    assert code == 0, printed
    kind, name = document["kind"].lower(), document["name"]
    code, printed = run_line(f"stepstream delete {kind} {name}", environment, tmp_path)
    assert code == 0, printed


def test_the_run_of_the_readme_is_stored(settings: Settings, environment: dict[str, str]) -> None:
    """The first block of the README makes a run that the next block shows."""
    first = next(b for b in BLOCKS if b.page == "README.md" and b.language == "python")
    run_block(first, stepstream, settings.clickhouse_database)
    assert stepstream.flush(20)

    def shown() -> str:
        done = subprocess.run(
            ["stepstream", "runs"], env=environment, capture_output=True, text=True, check=False
        )
        return done.stdout if "support" in done.stdout else ""

    wait_until(shown, 60, "the run of the README")


def test_exceptions_are_needed() -> None:
    """No exception outlives the command or page it stands for."""
    languages = ("shell", "sh", "console")
    lines = [line for block in BLOCKS if block.language in languages for line in block.commands]
    starts = (*COMMANDS_NOT_RUN, *OTHER_CODES)
    unused = [one for one in starts if not any(line.startswith(one) for line in lines)]
    texts = [block.text for block in BLOCKS if block.language in ("python", "yaml")]
    contained = (*PYTHON_NOT_RUN, *YAML_NOT_APPLIED)
    absent = [one for one in contained if not any(one in text for text in texts)]
    assert (unused, absent) == ([], [])
