"""The blocks of the documents, run: Python against a running pipeline, commands in a shell."""

from __future__ import annotations

import ast
import asyncio
import itertools
import os
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import stepstream
from stepstream.local.supervisor import Pipeline
from stepstream.schemas.settings import Settings
from stepstream.sinks.clickhouse import connect
from tests.support.document_blocks import Block, blocks
from tests.support.notifier import Publisher
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
    "docs/control.md": "",
    "docs/sdk.md": "",
}
NOT_RUN: Final = {
    "docs/detection.md": "CatDetector stands for a reader's class; "
    "tests/unit/testing runs such a one",
    "docs/releases.md": "needs a published release; test_releases.py and test_release.py",
    "docs/store.md": "needs pandas and sqlalchemy, which are not dependencies; "
    "the first query is run by "
    "tests/integration/test_embedded_clickhouse_clients.py",
}
COMMANDS_NOT_RUN: Final = {
    "make ": "sets up an environment; tests/unit/project/test_makefile.py",
    "stepstream up": "runs until it is stopped; tests/integration/test_up.py",
    "stepstream worker": "runs until it is stopped; test_worker.py",
    "stepstream sink": "runs until it is stopped; test_sink_records.py",
    "stepstream notify": "runs until it is stopped; test_notify.py",
    "stepstream console": "runs until it is stopped; test_console.py",
    "stepstream open": "opens a browser; tests/unit/console",
    "stepstream trace 4bf92f": "4bf92f stands for a run's id; tests/unit/console/test_export.py",
    "stepstream alerts --follow": "runs until it is stopped; test_views.py",
    "stepstream alerts show ID": "ID stands for an alert's id; test_views.py",
    "stepstream alerts ack ID": "ID stands for an alert's id; test_views.py",
    "stepstream import": "export.json stands for a reader's file; test_import.py",
    "stepstream stop ID": "ID stands for a run's id; test_control.py",
    "stepstream pause ID": "ID stands for a run's id; test_control.py",
    "stepstream resume ID": "ID stands for a run's id; test_control.py",
    "stepstream approve ID": "ID stands for a run's id; test_control.py",
    "python examples/": "from the project's folder; test_examples.py",
    "stepstream store backup": "needs stopped sinks; test_store_backup.py",
    "stepstream store restore": "needs stopped sinks; test_store_backup.py",
    "stepstream store reconcile": "test_store_reconcile.py",
    "stepstream subscriptions test": "sends to PagerDuty; test_notify.py",
    "npm install ./dist/": "needs a package of the project's folder; tests/unit/clients",
    "stepstream get policy costs@3": "needs three revisions; test_documents.py",
    "docker": "needs Docker; make test-containers",
    "curl": "the server-sent events end only when stopped; test_notify.py",
    "stepstream build": "agents/support stands for a reader's folder; test_releases.py",
    "stepstream promote": "needs a published release; test_releases.py",
    "stepstream rollback": "needs a published release; test_releases.py",
    "stepstream diff": "needs published releases; test_releases.py",
    "printf": "writes .env for Docker, or needs kcat",
    "kcat": "is not installed everywhere; tests/unit/schemas/test_readme.py accepts the record",
    "chmod": "a part of the setup for Docker",
    "set -a": "a part of the setup for Docker",
    "export STEPSTREAM": "a part of the setup for Docker",
    "python agent.py": "stands for a reader's program",
    ".venv/bin/python -m pytest": "runs tests",
    "python -m stepstream.local.clickhouse_server": "test_embedded_clickhouse.py",
    "stepstream: set_usage": "is a line of a log",
}


def of(*languages: str) -> list[Any]:
    """The blocks of these languages that are run, as parameters."""
    return [
        pytest.param(block, id=block.id)
        for block in BLOCKS
        if block.language in languages and (block.language != "python" or block.page not in NOT_RUN)
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
    with Pipeline(given) as pipeline:
        store_a_run(pipeline.settings)
        yield pipeline.settings


def store_a_run(settings: Settings) -> None:
    """Pages show the newest run: there is one."""
    tracer = stepstream.Tracer(settings.model_copy(update={"project": "shop"}))
    with tracer.run(agent="support", task="refund") as run, run.tool("lookup_order"):
        pass
    assert tracer.close(20)
    with connect(settings) as client:
        query = "SELECT count() FROM runs WHERE status = 'ok'"
        wait_until(lambda: client.query(query).result_rows[0][0], 60, "a stored run")


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


def run_block(block: Block, module: types.ModuleType) -> dict[str, Any]:
    """Run a block, with ``await`` at the top where it has some; returns its names."""
    names: dict[str, Any] = {"__name__": "block", "stepstream": module}
    exec(BEFORE.get(block.page, ""), names)
    text = block.text.replace("import stepstream\n", "")
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
            names = run_block(block, FirstAlerts("stepstream"))
    finally:
        stepstream.uninstrument()
        stop.set()
        alerts.join()
        publisher.close()
    listener = names.get("listener")
    if listener is not None:
        listener.close()
    assert stepstream.flush(20)


@pytest.mark.parametrize("block", of("shell", "sh"))
def test_commands_run(block: Block, environment: dict[str, str], tmp_path: Path) -> None:
    """Each command of a page that can run here exits with 0; the rest are listed with a reason."""
    for line in block.commands:
        if line.startswith(tuple(COMMANDS_NOT_RUN)):
            continue
        done = subprocess.run(
            ["bash", "-c", line],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


def test_the_run_of_the_readme_is_stored(settings: Settings, environment: dict[str, str]) -> None:
    """The first block of the README makes a run that the next block shows."""
    first = next(b for b in BLOCKS if b.page == "README.md" and b.language == "python")
    run_block(first, stepstream)
    assert stepstream.flush(20)

    def shown() -> str:
        done = subprocess.run(
            ["stepstream", "runs"], env=environment, capture_output=True, text=True, check=False
        )
        return done.stdout if "support" in done.stdout else ""

    wait_until(shown, 60, "the run of the README")


def test_exceptions_are_needed() -> None:
    """No exception outlives the command or page it stands for."""
    lines = [
        line for block in BLOCKS if block.language in ("shell", "sh") for line in block.commands
    ]
    unused = [
        start for start in COMMANDS_NOT_RUN if not any(line.startswith(start) for line in lines)
    ]
    pages = {block.page for block in BLOCKS if block.language == "python"}
    assert (unused, [page for page in NOT_RUN if page not in pages]) == ([], [])
