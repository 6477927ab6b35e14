"""The demo from beginning to end: start the pipeline, let the fleet work, compare, answer, show the worst run."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.text import Text

import stepstream
from examples.demo import answers, check
from examples.demo.agents import Desk
from examples.demo.alertlog import AlertLog
from examples.demo.articles import ARTICLES
from examples.demo.closing import answer, show_worst, tell
from examples.demo.fleet import Fleet
from examples.demo.foreign import Foreign
from examples.demo.language_model import StandIn
from examples.demo.ledger import Ledger
from examples.demo.scenarios import ENVIRONMENT, POLICIES, PROJECT, plan
from examples.demo.screen import Figures, Screen, make_console
from examples.demo.search import Search
from examples.demo.shop import Shop
from examples.demo.stage import Options, Stage
from stepstream.cli.errors import describe
from stepstream.cli.queries import records, store
from stepstream.local.supervisor import Pipeline
from stepstream.render.glyphs import glyphs_for
from stepstream.schemas.settings import Settings

if TYPE_CHECKING:
    pass

FOREIGN_AT_S: Final = 2.0
OVERTIME_S: Final = 20.0
SETTLE_S: Final = 25.0
FLUSH_S: Final = 15.0


def run(options: Options) -> int:
    """Run the demo; 0 when what was sent is what is stored, 1 when not, or when the pipeline could not be run."""
    began = time.monotonic()
    console = make_console()
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
            _say_where(console, folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)
            console.print(
                "\n(the data is gone; with --keep it stays, and every command shown here works on it)"
            )
    verdict = {
        True: "what was sent is what is stored, to the event and to the cent",
        False: "what was sent is NOT what is stored",
        None: "the demo could not be carried out",
    }[good]
    took = f"{time.monotonic() - began:.0f} s in all"
    console.print(Text(f"\n{verdict}; {took}", style="bold green" if good else "bold red"))
    return 0 if good else 1


def _run_in(folder: Path, options: Options, console: Console) -> bool:
    """Everything between the first and the last line; the pipeline is stopped on the way out."""
    with ExitStack() as stack:
        began = time.monotonic()
        pipeline = stack.enter_context(Pipeline(_settings(folder), report=_sayer(console)))
        console.print(
            f"the pipeline is up ({time.monotonic() - began:.1f} s): Kafka, worker, sink, ClickHouse\n"
        )
        stage = stack.enter_context(_staged(options, console, pipeline.settings))
        _work(stage)
        verdicts = _settle(stage)
        tell(stage, verdicts)
        answer(stage)
        show_worst(stage)
        return all(verdict.good for verdict in verdicts)


def _settings(folder: Path) -> Settings:
    """Folders of the demo's own, and nothing from outside but where Kafka's jars are: a running ``up`` is not touched."""
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
def _staged(options: Options, console: Console, settings: Settings) -> Iterator[Stage]:
    ledger = Ledger()
    tracer = stepstream.Tracer(settings)
    desk = Desk(
        tracer,
        ledger,
        Shop(options.seed),
        Search(ARTICLES),
        StandIn(options.seed),
        threading.Event(),
    )
    fleet = Fleet(desk, plan(options.seed, options.seconds))
    alerts = AlertLog(settings, ledger)
    try:
        with store(settings) as client:
            foreign = Foreign(settings, ledger)
            glyphs = glyphs_for(console.encoding)
            yield Stage(
                options, console, glyphs, settings, ledger, tracer, fleet, foreign, alerts, client
            )
    finally:
        fleet.stop()
        alerts.close()
        tracer.close()


def _work(stage: Stage) -> None:
    """Let the fleet work, and show it, until the time is over and every run has ended but the one that hangs."""
    began = time.monotonic()
    foreign_sent, told = False, 0
    stage.fleet.start()
    with Screen(stage.console, stage.options.seconds, stage.glyphs) as screen:
        while True:
            seconds = time.monotonic() - began
            if not foreign_sent and seconds >= FOREIGN_AT_S:
                stage.foreign.send_run()
                foreign_sent = True
            heard = stage.alerts.heard
            screen.show(_figures(stage, seconds), heard[told:])
            told = len(heard)
            over = seconds >= stage.options.seconds
            if (over and stage.fleet.done) or seconds >= stage.options.seconds + OVERTIME_S:
                break
            time.sleep(0.25)
    stage.foreign.send_late()
    stage.tracer.flush(FLUSH_S)


def _figures(stage: Stage, seconds: float) -> Figures:
    foreign = stage.ledger.account(stage.foreign.trace_id)
    sent = stage.tracer.counts.delivered + (foreign.events if foreign else 0)
    journal = stage.ledger.journal
    row = records(stage.client, answers.FIGURES)[0]
    return Figures(
        seconds=seconds,
        sent=sent,
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
    """How long the first event that is not done yet has been waiting, taking them to be done in the order they were made."""
    return max(0, time.time_ns() // 1_000 - made_us[done]) / 1e6 if done < len(made_us) else 0


def _settle(stage: Stage) -> list[check.Verdict]:
    """Compare until everything agrees, or the time for that is over: the last runs close two seconds after their end."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        verdicts = check.compare(_sent(stage), check.read_stored(stage.client, stage.settings))
        if all(verdict.good for verdict in verdicts) and _closed(stage):
            return verdicts
        if time.monotonic() > deadline:
            return verdicts
        time.sleep(0.5)


def _closed(stage: Stage) -> bool:
    """Whether all runs but the open ones are closed: until then alerts may still change."""
    wanted = sum(account.status != "running" for account in stage.ledger.accounts)
    return bool(
        records(stage.client, "SELECT count() AS n FROM runs WHERE closed")[0]["n"] == wanted
    )


def _sent(stage: Stage) -> check.Sent:
    counts = stage.tracer.counts
    return check.Sent(
        accounts=stage.ledger.accounts,
        delivered=counts.delivered,
        lost=counts.dropped + counts.failed + counts.pending,
        repeats=stage.foreign.repeats,
        malformed=stage.foreign.malformed,
        late=1,
        heard=frozenset((one.alert.alert_id, one.alert.seq) for one in stage.alerts.heard),
        crashes=tuple(stage.fleet.crashes),
    )


def _introduce(console: Console, options: Options) -> None:
    console.print(Text("Stepstream: a fleet of agents, watched while it works", style="bold"))
    console.print(
        f"Kafka and ClickHouse on this machine, in a folder of their own. The agents' tools are real (a SQLite shop, a search "
        f"over {len(ARTICLES)} articles); their language model is a seeded stand-in with a playbook (seed {options.seed}), "
        f"priced as the models it stands for. For {options.seconds:.0f} s some agents will fail, loop, overspend, hang, and "
        f"ignore errors.\n"
    )


def _sayer(console: Console) -> Callable[[str, str], None]:
    return lambda who, line: console.print(Text(f"  {who}: {line}", style="dim"))


def _say_where(console: Console, folder: Path) -> None:
    console.print(
        f"\nkept: stepstream up --state-dir {folder}, then stepstream runs --state-dir {folder}",
        soft_wrap=True,
    )
