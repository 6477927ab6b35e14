"""The demo from start to end: pipeline, fleet, comparisons, answers, the worst run."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from examples.demo import answers, check
from examples.demo.alertlog import AlertLog
from examples.demo.articles import ARTICLES
from examples.demo.closing import answer, print_comparison, show_worst
from examples.demo.context import DemoContext, Options
from examples.demo.fleet import Fleet
from examples.demo.foreign import Foreign
from examples.demo.ledger import Ledger
from examples.demo.scenarios import ENVIRONMENT, POLICIES, PROJECT, plan
from examples.demo.screen import Figures, Screen, make_console
from stepstream.cli.errors import describe
from stepstream.cli.queries import records, store
from stepstream.local.supervisor import Pipeline
from stepstream.render.glyphs import glyphs_for
from stepstream.schemas.settings import Settings

FOREIGN_AT_S: Final = 2.0
OVERTIME_S: Final = 20.0
SETTLE_S: Final = 25.0


def run(options: Options) -> int:
    """Run the demo. Returns 0 if what was sent is stored, 1 if not or if the pipeline failed."""
    began = time.monotonic()
    console = make_console()
    # A folder of its own: the demo can run next to a `stepstream up`.
    folder = Path(tempfile.mkdtemp(prefix="stepstream-demo-"))
    good: bool | None = None
    try:
        _introduce(console, options)
        good = _run_in(folder, options, console)
    except KeyboardInterrupt:
        console.print("\nstopped")
        return 130
    except Exception as error:
        message, _code = describe(error)
        console.print(Text(f"error: {message}", style="bold red"))
    finally:
        if options.keep:
            _print_where(console, folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)
            console.print(
                "\n(the data is deleted; with --keep it stays for every command shown here)"
            )
    verdict = {
        True: "the number of stored events and the sum of their costs equal what was sent",
        False: "what was sent is NOT what is stored",
        None: "the demo could not be run",
    }[good]
    took = f"{time.monotonic() - began:.0f} s in all"
    console.print(Text(f"\n{verdict}; {took}", style="bold green" if good else "bold red"))
    return 0 if good else 1


def _run_in(folder: Path, options: Options, console: Console) -> bool:
    """Everything between the first and the last line. The pipeline is stopped at the end."""
    with ExitStack() as stack:
        began = time.monotonic()
        pipeline = stack.enter_context(Pipeline(_settings(folder), report=_printer(console)))
        console.print(
            f"the pipeline is up ({time.monotonic() - began:.1f} s): "
            "Kafka, worker, sink, ClickHouse\n"
        )
        demo = stack.enter_context(_demo_context(options, console, pipeline.settings))
        _work(demo)
        verdicts = _settle(demo)
        print_comparison(demo, verdicts)
        answer(demo)
        show_worst(demo)
        good = all(verdict.good for verdict in verdicts)
        _show_console(console, pipeline.console_url, folder, options)
        return good


def _show_console(console: Console, url: str, folder: Path, options: Options) -> None:
    """Print where the console is; with ``--keep`` leave it running until Ctrl-C."""
    if not url:
        return
    console.print(Text(f"\nthe console: {url}", style="bold"))
    if not options.keep:
        console.print("(it ends with the demo; make demo KEEP=1 leaves it running)")
        return
    console.print(
        f"sign in with: stepstream open --state-dir {folder}; Ctrl-C ends it", soft_wrap=True
    )
    with suppress(KeyboardInterrupt):
        threading.Event().wait()


def _settings(folder: Path) -> Settings:
    """Settings with folders of the demo's own, so that a running ``up`` is not affected."""
    documents = folder / "policies"
    documents.mkdir()
    (documents / "policies.yaml").write_text(POLICIES)
    return Settings(
        project=PROJECT,
        environment=ENVIRONMENT,
        state_dir=str(folder),
        data_dir=str(folder / "data"),
        documents_dir=str(documents),
        kafka_jars_dir=os.environ.get("STEPSTREAM_KAFKA_JARS_DIR", ""),
        quiet=True,
    )


@contextmanager
def _demo_context(options: Options, console: Console, settings: Settings) -> Iterator[DemoContext]:
    ledger = Ledger()
    folder = Path(settings.state_dir) / "executors"
    folder.mkdir()
    fleet = Fleet(settings, folder, options.seed, ledger, plan(options.seed, options.seconds))
    alerts = AlertLog(settings, ledger)
    try:
        with store(settings) as client:
            foreign = Foreign(settings, ledger)
            glyphs = glyphs_for(console.encoding)
            yield DemoContext(
                options, console, glyphs, settings, ledger, fleet, foreign, alerts, client
            )
    finally:
        fleet.stop()
        alerts.close()


def _work(demo: DemoContext) -> None:
    """Show the fleet until the time is over and every task has ended."""
    foreign_sent, shown = False, 0
    demo.fleet.start()
    began = time.monotonic()
    with Screen(demo.console, demo.options.seconds, demo.glyphs) as screen:
        while True:
            seconds = time.monotonic() - began
            if not foreign_sent and seconds >= FOREIGN_AT_S:
                demo.foreign.send_run()
                foreign_sent = True
            received = demo.alerts.received
            screen.show(_figures(demo, seconds), received[shown:])
            shown = len(received)
            over = seconds >= demo.options.seconds
            if (over and demo.fleet.done) or seconds >= demo.options.seconds + OVERTIME_S:
                break
            time.sleep(0.25)
    demo.foreign.send_late()
    demo.fleet.stop()


def _figures(demo: DemoContext, seconds: float) -> Figures:
    journal = demo.ledger.journal
    row = records(demo.client, answers.FIGURES)[0]
    return Figures(
        seconds=seconds,
        sent=len(journal.events_us),
        ended=len(journal.ends_us),
        runs=row["runs"],
        open_runs=row["open_runs"],
        merged=row["events"],
        stored=row["steps"],
        usd=row["usd"],
        worker_seconds=_waiting_seconds(journal.events_us, row["events"]),
        sink_seconds=_waiting_seconds(journal.ends_us, row["steps"]),
    )


def _waiting_seconds(made_us: list[int], done: int) -> float:
    """The age of the first event that is not done, if they are done in the order of creation."""
    return max(0, time.time_ns() // 1_000 - made_us[done]) / 1e6 if done < len(made_us) else 0


def _settle(demo: DemoContext) -> list[check.Verdict]:
    """Compare until everything agrees or ``SETTLE_S`` is over:

    runs close two seconds after their end.
    """
    deadline = time.monotonic() + SETTLE_S
    while True:
        verdicts = check.compare(_sent(demo), check.read_stored(demo.client, demo.settings))
        if all(verdict.good for verdict in verdicts) and _closed(demo):
            return verdicts
        # The last comparison is shown as it is, with what differs.
        if time.monotonic() > deadline:
            return verdicts
        time.sleep(0.5)


def _closed(demo: DemoContext) -> bool:
    """True if all runs but the open ones are closed: until then alerts may still change."""
    wanted = sum(account.status != "running" for account in demo.ledger.accounts)
    return bool(
        records(demo.client, "SELECT count() AS n FROM runs WHERE closed")[0]["n"] == wanted
    )


def _sent(demo: DemoContext) -> check.Sent:
    counts = demo.fleet.counts()
    return check.Sent(
        accounts=demo.ledger.accounts,
        delivered=counts["delivered"],
        lost=counts["lost"],
        killed=demo.fleet.killed,
        tasks=demo.fleet.submitted,
        repeated=demo.fleet.repeated,
        repeats=demo.foreign.repeats,
        malformed=demo.foreign.malformed,
        late=1,
        received=frozenset((one.alert.alert_id, one.alert.seq) for one in demo.alerts.received),
        crashes=tuple(demo.fleet.crashes),
    )


def _introduce(console: Console, options: Options) -> None:
    console.print(Text("Stepstream: a fleet of agents, watched while it works", style="bold"))
    console.print(
        "Kafka and ClickHouse on this machine, in a folder of their own. The agents' tools are "
        f"real (a SQLite shop, a search over {len(ARTICLES)} articles); their language model is a "
        f"stand-in that follows fixed rules (seed {options.seed}), with the prices of the real "
        "models. "
        f"For {options.seconds:.0f} s some agents will fail, loop, overspend, hang, and "
        "ignore errors. Each run is a task; one of the executors is killed while it runs one.\n"
    )


def _printer(console: Console) -> Callable[[str, str], None]:
    return lambda process, line: console.print(Text(f"  {process}: {line}", style="dim"))


def _print_where(console: Console, folder: Path) -> None:
    console.print(
        f"\nkept: stepstream up --state-dir {folder}, then stepstream runs --state-dir {folder}",
        soft_wrap=True,
    )
