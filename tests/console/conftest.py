"""The browser and the installation that the console's tests share."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from stepstream.console import export
from stepstream.local import priority, supervisor
from stepstream.local.supervisor import Pipeline
from stepstream.schemas.settings import Settings
from tests.console import known_runs
from tests.console.known_runs import KnownRuns
from tests.console.world import Visit, World, signed_in, visiting, visiting_again

CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = None
    if CHROMIUM is None:
        missing = pytest.mark.skip(reason="no Chromium: apt-get install chromium")
    elif not (export.STATIC / "index.html").is_file():
        missing = pytest.mark.skip(
            reason="the console's pages are not built: make setup, with the npm registry"
        )
    for item in items:
        if item.path.parent != Path(__file__).parent:
            continue  # the hook gets the tests of all folders
        item.add_marker(pytest.mark.console)
        # The first one waits for the start of everything, minutes on a machine under load.
        item.add_marker(pytest.mark.timeout(600))
        if missing is not None:
            item.add_marker(missing)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # There is no graphics card: without the option a process of its own emulates one.
        found = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield found
        found.close()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Everything that ``stepstream up`` starts, with engines of its own."""
    folder = tmp_path_factory.mktemp("console")
    given = Settings(
        state_dir=str(folder / "state"),
        data_dir=str(folder / "data"),
        kafka_heap_mb=384,
        partitions=2,
        quiet=True,
        sink_batch_interval="200ms",
        console_query_timeout="60s",
    )
    with pytest.MonkeyPatch.context() as patch:
        # A loaded machine may take longer to start everything than a user would wait, and sink and
        # store would wait for every other program on it.
        patch.setattr(supervisor, "READY_S", 300.0)
        patch.setattr(priority, "NICENESS", 0)
        with Pipeline(given) as pipeline:
            yield World(pipeline, folder)


@pytest.fixture(scope="session")
def runs(world: World) -> Iterator[KnownRuns]:
    """Runs that the pages show: good ones, a failed one, and one that goes on with an alert."""
    with known_runs.made(world) as found:
        yield found


@pytest.fixture(scope="session")
def context(world: World, browser: Browser) -> Iterator[BrowserContext]:
    with signed_in(world, browser) as found:
        yield found


@pytest.fixture
def visit(world: World, context: BrowserContext) -> Iterator[Visit]:
    """A page of a signed-in browser; its end checks what the browser reported."""
    with visiting_again(world, context) as found:
        yield found


@pytest.fixture
def visits(world: World, browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Makes visits with a context and a session of their own."""
    with ExitStack() as stack:

        def make(**options: Any) -> Visit:
            return stack.enter_context(visiting(world, browser, **options))

        yield make
