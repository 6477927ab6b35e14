"""The worker process: its stages bound to faust.

``run`` blocks until SIGTERM or SIGINT (exit code 0) or until something failed (exit code 1). After a failure nothing more is
committed: the supervisor starts the worker again, and it goes on from its floors.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Awaitable
from typing import Any, Final, TypeVar, cast

import uvloop
from confluent_kafka import KafkaException, Message
from faust.types import TP

from stepstream.common.kafka import Follower, KafkaUnreachable, consumer, partition_count
from stepstream.common.observe import Observer, serve
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from stepstream.stream.assemble.partition import AssemblePartition
from stepstream.stream.assemble.progress import ProgressReporter
from stepstream.stream.baselines.normal import Baselines
from stepstream.stream.baselines.records import apply_baselines
from stepstream.stream.core.counters import Counters
from stepstream.stream.core.poison import ProcessingFailed
from stepstream.stream.run.limits import AssembleLimits
from stepstream.stream.shell.app import make_app
from stepstream.stream.shell.broker_health import Trouble
from stepstream.stream.shell.config import ConfigTopic, Documents, follow, note_batch
from stepstream.stream.shell.gc_tuning import relax_collector
from stepstream.stream.shell.loader import is_missed, patiently, refuse_unreadable
from stepstream.stream.shell.observation import WorkerObservation
from stepstream.stream.shell.progress_marker import Traces, marks_folder
from stepstream.stream.shell.reread import Rereader
from stepstream.stream.shell.restoring import Restoring
from stepstream.stream.shell.sender import Sender
from stepstream.stream.shell.topic_stage import PartitionRunner, TopicStage
from stepstream.stream.shell.transport import BatchTransport
from stepstream.stream.shell.watchdog import Watchdog
from stepstream.stream.usage.partition import UsagePartition

log = logging.getLogger("stepstream.worker")

TICK_S: Final = 0.05
SWITCH_S: Final = 0.001
"""The thread that fetches waits so long for its turn while records are processed; a fetch takes several turns."""
DRAIN_S: Final = 10.0
COMMIT_S: Final = 5.0
STOP_S: Final = 5.0
LEAVE_S: Final = 22.0
"""The longest from the wish to stop to the end of the process; what is not committed then is read again."""

NOTE_S: Final = 10.0
SCRAPE_WAIT_S: Final = 5.0
"""The longest that an answer of `/metrics` waits for the loop."""

_Result = TypeVar("_Result")


def run(settings: Settings) -> int:
    """Work until told to stop. Returns the exit code."""
    for name in ("faust", "mode", "aiokafka"):
        logging.getLogger(name).setLevel(
            logging.CRITICAL
        )  # while brokers are away they log an error ten times a second
    sys.setswitchinterval(SWITCH_S)
    worker = Worker(settings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(worker.run())
    worker.guard.cancel()
    return code


class Worker:
    """One worker process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.counters = Counters()
        self.documents = Documents()
        self.baselines = Baselines()
        self.limits = AssembleLimits.from_settings(settings)
        self.group = f"{settings.topic_prefix}.{settings.worker_group}"
        self.observer = Observer()
        patience_s = settings.watchdog / 1e6
        self.observation = WorkerObservation(self.observer, self.counters, patience_s=patience_s)
        self.marks = marks_folder(settings)
        self.traces = Traces(self.marks)
        if self.traces.left:
            log.error(
                "a worker on this machine hung and was ended; where it stood:\n%s", self.traces.left
            )
        self.watchdog = Watchdog(patience_s, before=self._note_hang, trace=self.traces.file)
        self.steps_partitions = 0
        self._usage_partitions = 0
        self._failure: BaseException | None = None
        self.rereader = Rereader(settings, self._fail)
        self._stopping = asyncio.Event()
        self._abandoned = False
        self.guard = threading.Timer(LEAVE_S, self._leave)
        self.guard.daemon = True

    async def run(self) -> int:
        """Start, work, drain."""
        relax_collector()
        loop = self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop_soon)
        server = serve(self.observer, self.settings, log)
        self.watchdog.start()
        beating = asyncio.create_task(self._beat())
        try:
            return await self._work()
        finally:
            beating.cancel()
            self.watchdog.stop()
            self.traces.close()
            if server is not None:
                server.close()
            if self._abandoned:
                self._leave()

    async def _work(self) -> int:
        await self._prepare()
        if self._stopping.is_set():
            return 0
        try:
            await self._unless_stopped(self.app.start())
        except (
            Exception
        ) as error:  # brokers that go away in this moment; the supervisor starts us again
            self._fail(error)
        if self._stopping.is_set():
            return await self._stop()
        take_baselines = functools.partial(apply_baselines, self.baselines)
        followed = (
            follow(self.config, self._take_documents),
            follow(self.fleet_topic, take_baselines),
        )
        chores = [asyncio.create_task(chore) for chore in (self._tick(), self._watch(), *followed)]
        await self._stopping.wait()
        if self._failure is None:
            await self._drain()
        for chore in chores:
            chore.cancel()
        return await self._stop()

    # -- start and stop ----------------------------------------------------------------------------------------------

    async def _prepare(self) -> None:
        """Wait for Kafka and the topics, read the documents, make the app."""
        self.config = ConfigTopic(self.settings)
        self.fleet_topic = Follower(
            self.settings,
            self._name("fleet"),
            functools.partial(note_batch, self.settings, "fleet"),
        )
        self.steps_partitions = await self._wait_for_topics()
        if self._stopping.is_set():
            return
        self.documents.apply(
            await self._unless_stopped(patiently(self.config.read_all, "documents")) or ()
        )
        apply_baselines(
            self.baselines,
            await self._unless_stopped(patiently(self.fleet_topic.read_all, "baselines")) or (),
        )
        if self._stopping.is_set():
            return
        self._refuse_documents()
        self.rules, self.prices = self.documents.rule_book(), self.documents.price_book()
        self.sender = Sender(self.settings)
        self.app = make_app(self.settings, self.group)
        self.transport = BatchTransport(self.app.conf.broker_consumer, self.app)
        self.app.transport = self.transport
        floors = self.transport.floors
        troubled = Trouble(self.sender.stalled_s, self._leader_of).is_near
        beside = (self.observation, troubled, self._is_missed)
        restoring = self.restoring()
        self.assemble = TopicStage(
            self._name("steps"), self.sender, floors, restoring.assemble, *beside
        )
        self.fleet = TopicStage(
            self._name("findings"), self.sender, floors, restoring.fleet, *beside
        )
        self.usage = TopicStage(self._name("usage"), self.sender, floors, restoring.usage, *beside)
        self.stages = (self.assemble, self.fleet, self.usage)
        self.progress = ProgressReporter(self._usage_partitions, self.limits)
        self.observer.before_scrape(self._before_scrape)
        self.observer.readiness = self._not_ready
        self._bind()

    def restoring(self) -> Restoring:
        """What makes partitions as they were left."""
        return Restoring(self)

    async def _wait_for_topics(self) -> int:
        client = consumer(self.settings, self.group)
        wait_s = 0.2
        try:
            while not self._stopping.is_set():
                try:
                    count = await asyncio.to_thread(
                        partition_count, client, self._name("steps"), timeout=5
                    )
                    self._usage_partitions = await asyncio.to_thread(
                        partition_count, client, self._name("usage"), timeout=5
                    )
                except (KafkaUnreachable, KafkaException) as error:
                    log.warning("%s; trying again", error)
                    count = 0
                else:
                    if count and self._usage_partitions:
                        return count
                    missing = self._name("usage" if count else "steps")
                    log.warning("there is no topic %s yet: run `stepstream topics create`", missing)
                await asyncio.sleep(wait_s)
                wait_s = min(5.0, 2 * wait_s)
            return 0
        finally:
            client.close()

    def _bind(self) -> None:
        app, backlog = self.app, self.transport.backlog

        def bind(stage: TopicStage) -> None:
            async def agent(stream: Any) -> None:
                async for event in stream.events():
                    message = event.message
                    try:
                        await stage.handle(message.tp, message.value, message.generation_id)
                    except Exception as error:
                        self._fail(error)
                        await (
                            asyncio.Event().wait()
                        )  # the failing batch is neither acknowledged nor skipped
                    finally:
                        backlog.taken(message.tp.topic)

            raw = app.topic(stage.topic, key_serializer="raw", value_serializer="raw")
            app.agent(raw, name=stage.topic)(agent)

        for stage in self.stages:
            bind(stage)

        async def revoked(_app: Any, revoked: Any = (), **_: Any) -> None:
            self._drop_all()

        async def assigned(_app: Any, assigned: Any = (), **_: Any) -> None:
            self._drop_all()
            if self._stopping.is_set():
                return
            generation = app.consumer_generation_id
            for stage in self.stages:
                stage.assign(sorted(assigned), generation)

        app.on_partitions_revoked.connect(cast(Any, revoked), weak=False)
        app.on_partitions_assigned.connect(cast(Any, assigned), weak=False)
        app.finalize()

    def _drop_all(self) -> None:
        for stage in self.stages:
            stage.revoke()
        self.progress.forget()
        self.transport.floors.clear()
        self.transport.backlog.clear()

    async def _drain(self) -> None:
        """Take no more records, wait for what is under way, then commit the last floors."""
        for stage in self.stages:
            stage.hold()
        deadline = time.monotonic() + DRAIN_S
        try:
            while time.monotonic() < deadline:
                self.sender.poll()
                for shell in self._shells():
                    shell.pump()  # an acknowledged output may lead to a state record, and that to a floor
                if not self.sender.in_flight:
                    break
                await asyncio.sleep(0.005)
            await asyncio.wait(
                {asyncio.ensure_future(self.app.consumer.commit())}, timeout=COMMIT_S
            )
        except Exception as error:
            self._fail(error)

    async def _stop(self) -> int:
        if self._failure is not None:
            self.transport.floors.clear()
            await self._note_failure(self._failure)
            log.error(
                "the worker stops: %s", "".join(traceback.format_exception(self._failure)).strip()
            )
        stopping = asyncio.create_task(self.app.stop())
        await asyncio.wait({stopping}, timeout=STOP_S)  # not wait_for: faust swallows cancellation
        if not stopping.done():
            log.warning("faust did not stop within %.0f s: leaving by force", STOP_S)
            self._abandoned = True
        elif (error := stopping.exception()) is not None:
            log.info("stopping faust: %r", error)
        self.config.close()
        self.fleet_topic.close()
        log.info("counts: %s", self.counters.nonzero())
        return 0 if self._failure is None else 1

    async def _note_failure(self, error: BaseException) -> None:
        """A try at a record that failed must be known to the next worker."""
        if isinstance(error, ProcessingFailed):
            self.sender.send(error.note, lambda _output, _offset: None)
            if not await asyncio.to_thread(self.sender.flush, NOTE_S):
                log.warning("the failed try was not noted within %.0f s", NOTE_S)

    def _note_hang(self, reason: str) -> None:
        """Called in the watchdog's thread: the record that hangs must be known to the next worker."""
        shell = next(
            (stage.at_work for stage in getattr(self, "stages", ()) if stage.at_work is not None),
            None,
        )
        if shell is None:
            return
        stack = "".join(
            traceback.format_stack(sys._current_frames().get(threading.main_thread().ident or 0))
        )
        note = shell.hung(f"{reason} while it processed this record:\n{stack}")
        if note is not None:
            log.critical(
                "a try at a record of %s partition %d is noted", shell.tp.topic, shell.tp.partition
            )
            self.sender.send(note, lambda _output, _offset: None)
            self.sender.flush(NOTE_S)

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
            self._drop_all()
        self._stop_soon()

    def _stop_soon(self) -> None:
        if not self._stopping.is_set():
            self._stopping.set()
            self.guard.start()

    def _leave(self) -> None:
        """End the process by force: threads that wait for brokers would keep it for minutes."""
        os._exit(0 if self._failure is None else 1)

    async def _unless_stopped(self, work: Awaitable[_Result]) -> _Result | None:
        """The result of ``work``, or None when the worker is told to stop before it is there."""
        task = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        self._abandoned |= not task.done()
        return task.result() if task.done() else None

    # -- chores ------------------------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        """Say that the loop is alive."""
        while True:
            self.watchdog.beat()
            await asyncio.sleep(0.1)

    async def _tick(self) -> None:
        """Acknowledgements and the passing of time."""
        while True:
            try:
                self.sender.poll()
                for stage in self.stages:
                    stage.tick(self._caught_up_at)
                    if (error := stage.failures()) is not None:
                        raise error
                for shell in self.assemble.shells.values():
                    if isinstance(shell.logic, AssemblePartition) and not shell.halted:
                        for output in self.progress.due(shell.logic):
                            self.sender.send(output, lambda _output, _offset: None)
                        self.rereader.look(shell, shell.logic)
            except Exception as error:
                self._fail(error)
                return
            await asyncio.sleep(TICK_S)

    def _caught_up_at(self, tp: TP, position: int) -> int:
        """The wall time (us) of the last fetch, when it came back at the high watermark and all before is processed."""
        _, end, time_ms = cast(Any, self.app.consumer)._thread.position_and_end(tp)
        return time_ms * 1000 if end is not None and position >= end else 0

    async def _is_missed(self, tp: TP, start: int, end: int) -> bool:
        look = functools.partial(is_missed, self.settings, tp.topic, tp.partition, start, end)
        return await patiently(
            look, f"{tp.topic} partition {tp.partition} from offset {start} to {end} again"
        )

    def _leader_of(self, tp: TP) -> int | None:
        leader: int | None = cast(Any, self.app.consumer)._thread.leader(tp)
        return leader

    def _end_of(self, tp: TP) -> int | None:
        end: int | None = cast(Any, self.app.consumer)._thread.position_and_end(tp)[1]
        return end

    def _shells(self) -> list[PartitionRunner]:
        return [shell for stage in self.stages for shell in stage.shells.values()]

    def _before_scrape(self) -> None:
        """Called in a scrape's thread: what is shown changes as records are processed, so the loop's thread reads it."""
        shown = threading.Event()

        def show() -> None:
            try:
                self._refresh_metrics()
            finally:
                shown.set()

        try:
            self._loop.call_soon_threadsafe(show)
        except RuntimeError:  # the loop has ended: the last values stand
            return
        shown.wait(
            SCRAPE_WAIT_S
        )  # a loop that hangs is for the watchdog; its last values are shown

    def _refresh_metrics(self) -> None:
        self.observation.refresh(self._shells(), self._end_of, self.sender, self.transport.backlog)

    def _not_ready(self) -> str:
        loading = [shell.tp for shell in self._shells() if shell.logic is None]
        if loading:
            return f"reading the state of {len(loading)} partitions"
        return "" if self._shells() else "no partition is assigned"

    def _take_documents(self, messages: list[Message]) -> None:
        """Take over documents that came; those that cannot be read are dead-lettered meanwhile."""
        changed = self.documents.apply(messages)
        self._refuse_documents()
        if changed:
            self.rules, self.prices = self.documents.rule_book(), self.documents.price_book()
            window_rules = self.documents.window_rules()
            for shell in self._shells():
                if isinstance(shell.logic, AssemblePartition):
                    shell.logic.rules, shell.logic.prices = self.rules, self.prices
                elif isinstance(shell.logic, UsagePartition):
                    shell.logic.change_rules(window_rules)

    def _refuse_documents(self) -> None:
        unreadable = self.documents.take_unreadable()
        if unreadable:
            self.counters.rejected["unreadable"] += len(unreadable)
            refuse = functools.partial(refuse_unreadable, self.settings, unreadable)
            self.rereader.begin(patiently(refuse, "the dead letter, to note what cannot be read"))

    async def _watch(self) -> None:
        """Notice when faust has given up."""
        while True:
            await asyncio.sleep(0.25)
            reason = getattr(self.app, "_crash_reason", None) or getattr(
                self.app, "crash_reason", None
            )
            stuck = self.observation.stuck(self._shells(), self._end_of, time.monotonic())
            if stuck:
                self.observer.health = functools.partial(str, stuck)
                self._fail(RuntimeError(f"stuck: {stuck}"))
                return
            if reason is not None or (self.app.should_stop and not self._stopping.is_set()):
                self._fail(reason or RuntimeError("the Kafka consumer stopped by itself"))
                return

    def _name(self, name: str) -> str:
        return topic(self.settings.topic_prefix, name)


if __name__ == "__main__":
    from stepstream.common.settings import load

    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    sys.exit(run(load()))
