"""The worker process: its stages on top of faust.

``run`` blocks until SIGTERM or SIGINT (exit code 0) or until something failed (exit code 1). After
a failure nothing more is committed: the supervisor starts the worker again, and it continues from
the committed offsets.
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
from collections.abc import Awaitable, Sequence
from typing import Any, Final, TypeVar, cast

import uvloop
from confluent_kafka import KafkaException, Message
from faust.types import TP

from stepstream.common.kafka import Follower, KafkaUnreachable, consumer, partition_count
from stepstream.common.letters import Unreadable
from stepstream.common.observe import Observer, serve
from stepstream.common.retry import DEFAULT_BACKOFF
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic
from stepstream.stream.assemble.partition import AssemblePartition
from stepstream.stream.assemble.progress import ProgressReporter
from stepstream.stream.baselines.normal import Baselines
from stepstream.stream.baselines.records import apply_baselines
from stepstream.stream.core.counters import Counters
from stepstream.stream.core.outputs import Output
from stepstream.stream.core.poison import ProcessingFailed
from stepstream.stream.run.limits import AssembleLimits
from stepstream.stream.shell.app import make_app
from stepstream.stream.shell.broker_health import BrokerHealth
from stepstream.stream.shell.config import ConfigTopic, Documents, follow, note_batch
from stepstream.stream.shell.faust_binding import bind_stages
from stepstream.stream.shell.gc_tuning import relax_collector
from stepstream.stream.shell.given_up_run_reader import GivenUpRunReader
from stepstream.stream.shell.loader import has_records, load_with_retries, refuse_unreadable
from stepstream.stream.shell.observation import WorkerObservation
from stepstream.stream.shell.partition_loader import PartitionLoader
from stepstream.stream.shell.partition_runner import PartitionRunner
from stepstream.stream.shell.progress_marker import HangTraces, marker_folder
from stepstream.stream.shell.release_decider import ReleaseDecider
from stepstream.stream.shell.schedules import ScheduleRunner
from stepstream.stream.shell.sender import Sender
from stepstream.stream.shell.topic_stage import TopicStage
from stepstream.stream.shell.transport import BatchTransport
from stepstream.stream.shell.watchdog import Watchdog
from stepstream.stream.tasks.partition import TasksPartition
from stepstream.stream.usage.partition import WindowPartition

log = logging.getLogger("stepstream.worker")

TICK_S: Final = 0.05
"""Time between two calls of the stages' timers: short against the limits that detectors watch."""
TASKS_POLL_S: Final = 0.001
"""Time between two checks for acknowledgements while bindings wait for them."""
MEMBERSHIP_S: Final = 8.0
"""Longer than two heartbeats of the group, which report a lost membership."""
_READ: Final = ("steps", "usage", "tasks")
SWITCH_S: Final = 0.001
"""Python's thread switch interval. The thread that fetches needs several turns for a fetch; with
the default of 5 ms each of them waits that long while records are processed.
"""

FINISH_S: Final = 10.0
"""Longest wait for the acknowledgements of what was sent before the request to stop."""
COMMIT_S: Final = 5.0
"""Longest wait for the last commit."""
STOP_S: Final = 5.0
"""Longest wait for faust to stop."""
LEAVE_S: Final = 22.0
"""The longest time from the request to stop to the end of the process; what is not committed then
is read again. More than FINISH_S, COMMIT_S and STOP_S together.
"""

ATTEMPT_S: Final = 10.0
"""Longest wait until Kafka has the record of a failed attempt."""
SCRAPE_WAIT_S: Final = 5.0
"""The longest time that an answer of `/metrics` waits for the event loop."""

_Result = TypeVar("_Result")


def run(settings: Settings) -> int:
    """Work until asked to stop. Returns the exit code."""
    for name in ("faust", "mode", "aiokafka"):
        # These loggers write an error ten times a second while no broker answers. What ends faust
        # is reported by ``Worker._watch_faust``.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    sys.setswitchinterval(SWITCH_S)
    worker = Worker(settings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(worker.run())
    worker.force_exit.cancel()
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
        hang_limit_s = settings.watchdog / 1e6
        self.observation = WorkerObservation(
            self.observer, self.counters, hang_limit_s=hang_limit_s
        )
        # Files in which the watchdog leaves the stack of a worker that hangs; the next one logs it.
        self.markers = marker_folder(settings)
        self.hang_traces = HangTraces(self.markers)
        if self.hang_traces.found:
            log.error(
                "a worker on this machine hung and was ended; its stack was:\n%s",
                self.hang_traces.found,
            )
        self.watchdog = Watchdog(
            hang_limit_s, before=self._record_hang, trace=self.hang_traces.file
        )
        self.steps_partitions = 0
        self.stages: tuple[TopicStage, ...] = ()
        self._usage_partitions = 0
        self._failure: BaseException | None = None
        self.given_up_run_reader = GivenUpRunReader(settings, self._fail)
        self._stopping = asyncio.Event()
        self._tasks_sent = asyncio.Event()
        self._turn_at = time.monotonic()
        self._tasks_wait_until_s = 0.0
        self._has_threads_left = False
        # Threads that wait for brokers would keep the process running for minutes after the request
        # to stop.
        self.force_exit = threading.Timer(LEAVE_S, self._exit_now)
        self.force_exit.daemon = True

    async def run(self) -> int:
        """Start, work until asked to stop, finish what is in flight. Returns the exit code."""
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
            self.hang_traces.close()
            if server is not None:
                server.close()
            if self._has_threads_left:
                self._exit_now()

    async def _work(self) -> int:
        """Start faust, run the loops until asked to stop, finish what is in flight, stop. Returns
        the exit code.
        """
        await self._prepare()
        if self._stopping.is_set():
            return 0
        try:
            await self._unless_stopped(self.app.start())
        # Whatever keeps faust from starting ends the worker, and the supervisor starts a new one:
        # usually a broker stopped after it had answered for the topics.
        except Exception as error:
            self._fail(error)
        if self._stopping.is_set():
            return await self._stop()
        take_baselines = functools.partial(apply_baselines, self.baselines)
        work = (
            self._tick(),
            self._pass_on_tasks(),
            self._watch_faust(),
            follow(self.config, self._apply_documents),
            follow(self.fleet_topic, take_baselines),
            self.releases.run(),
            self.schedules.run(),
        )
        tasks = [asyncio.create_task(item) for item in work]
        await self._stopping.wait()
        if self._failure is None:
            await self._finish_in_flight()
        for task in tasks:
            task.cancel()
        return await self._stop()

    # -- start -------------------------------------------------------------------------------------

    async def _prepare(self) -> None:
        """Wait for Kafka and the topics, read the documents and baselines, make the app and its
        stages. Returns early, without app and stages, when asked to stop.
        """
        self.config = ConfigTopic(self.settings)
        self.fleet_topic = Follower(
            self.settings,
            self._name("fleet"),
            functools.partial(note_batch, self.settings, "fleet"),
        )
        self.releases = ReleaseDecider(
            self.settings,
            policies=lambda: self.policies,
            is_owner=self._decides_releases,
            unreadable=self._refuse_releases,
            passed=functools.partial(note_batch, self.settings, "releases"),
        )
        self.schedules = ScheduleRunner(
            self.settings,
            schedules=lambda: self.documents.schedules,
            is_owner=self._decides_releases,
        )
        self.steps_partitions = await self._wait_for_topics()
        if self._stopping.is_set():
            return
        documents = load_with_retries(self.config.read_all, "documents")
        self.documents.apply(await self._unless_stopped(documents) or ())
        baselines = load_with_retries(self.fleet_topic.read_all, "baselines")
        apply_baselines(self.baselines, await self._unless_stopped(baselines) or ())
        await self._unless_stopped(load_with_retries(self.releases.read_all, "releases"))
        if self._stopping.is_set():
            return
        self._refuse_documents()
        self.rules, self.prices = self.documents.rule_book(), self.documents.price_book()
        self.policies = self.documents.policies()
        self.sender = Sender(self.settings)
        self.app = make_app(self.settings, self.group)
        self.transport = BatchTransport(self.app.conf.broker_consumer, self.app)
        self.app.transport = self.transport
        self.progress = ProgressReporter(self._usage_partitions, self.limits)
        self._make_stages()
        self.observer.before_scrape(self._before_scrape)
        self.observer.readiness = self._not_ready
        bind_stages(
            self.app,
            self.stages,
            self.transport.backlog,
            on_error=self._fail,
            on_revoked=self._drop_all,
            on_assigned=self._assign,
        )

    def _make_stages(self) -> None:
        health = BrokerHealth(self.sender.stalled_s, self._leader_of)
        loader = PartitionLoader(self)

        def stage(name: str, load: Any, **more: Any) -> TopicStage:
            return TopicStage(
                self._name(name),
                self.sender,
                self.transport.safe_offsets,
                load,
                self.observation,
                brokers_failed=health.has_failed,
                has_records=self._has_records,
                **more,
            )

        self.assemble = stage("steps", loader.assemble)
        self.alerts = stage("findings", loader.alerts)
        self.tasks = stage("tasks", loader.tasks, on_sent=self._tasks_sent.set)
        self.tasks.may_send = self._may_send_tasks
        self.stages = (self.assemble, self.alerts, stage("usage", loader.usage), self.tasks)

    async def _wait_for_topics(self) -> int:
        """The number of partitions of the steps topic, once the topics that the worker reads exist;
        0 when asked to stop.
        """
        client = consumer(self.settings, self.group)
        attempts = 0
        try:
            while not self._stopping.is_set():
                try:
                    counts = [
                        await asyncio.to_thread(
                            partition_count, client, self._name(name), timeout=5
                        )
                        for name in _READ
                    ]
                except (KafkaUnreachable, KafkaException) as error:
                    log.warning("%s; trying again", error)
                else:
                    if all(counts):
                        count, self._usage_partitions, _ = counts
                        return count
                    missing = self._name(_READ[counts.index(0)])
                    log.warning("there is no topic %s yet: run `stepstream topics create`", missing)
                attempts += 1
                await asyncio.sleep(DEFAULT_BACKOFF.pause_s(attempts))
            return 0
        finally:
            client.close()

    def _assign(self, tps: list[TP]) -> None:
        """Called with all assigned partitions after a rebalance.

        faust reads each of them from its committed offset again, so all state is dropped first.
        """
        self._drop_all()
        if self._stopping.is_set():
            return
        generation = self.app.consumer_generation_id
        for stage in self.stages:
            stage.assign(tps, generation)

    def _drop_all(self) -> None:
        # The worker failed before the stages were made.
        if not self.stages:
            return
        for stage in self.stages:
            stage.revoke()
        self.progress.forget()
        self.transport.safe_offsets.clear()
        self.transport.backlog.clear()

    # -- stop --------------------------------------------------------------------------------------

    async def _finish_in_flight(self) -> None:
        """Process no more records, wait for acknowledgements, then commit the last safe offsets.

        Takes at most FINISH_S + COMMIT_S. An error is recorded by ``_fail``, not raised.
        """
        for stage in self.stages:
            stage.stop_reading()
        deadline = time.monotonic() + FINISH_S
        try:
            while time.monotonic() < deadline:
                self.sender.poll()
                for runner in self._runners():
                    # An acknowledged output may lead to a state record, and that to a higher safe
                    # offset.
                    runner.send_outputs()
                if not self.sender.in_flight:
                    break
                await asyncio.sleep(0.005)
            commit = asyncio.ensure_future(self.app.consumer.commit())
            await asyncio.wait({commit}, timeout=COMMIT_S)
        except Exception as error:
            self._fail(error)

    async def _stop(self) -> int:
        if self._failure is not None:
            self.transport.safe_offsets.clear()
            await self._record_failure(self._failure)
            log.error(
                "the worker stops: %s", "".join(traceback.format_exception(self._failure)).strip()
            )
        stopping = asyncio.create_task(self.app.stop())
        # Not wait_for, which cancels and then waits: faust suppresses cancellation.
        await asyncio.wait({stopping}, timeout=STOP_S)
        if not stopping.done():
            log.warning("faust did not stop within %.0f s: exiting without it", STOP_S)
            self._has_threads_left = True
        elif (error := stopping.exception()) is not None:
            log.info("stopping faust: %r", error)
        self.config.close()
        self.fleet_topic.close()
        self.releases.close()
        log.info("counts: %s", self.counters.nonzero())
        return 0 if self._failure is None else 1

    async def _record_failure(self, error: BaseException) -> None:
        """Write to Kafka that an attempt at a record failed, so that the next worker counts it."""
        if isinstance(error, ProcessingFailed):
            self.sender.send(error.note, _ignore)
            if not await asyncio.to_thread(self.sender.flush, ATTEMPT_S):
                log.warning("the failed attempt was not recorded within %.0f s", ATTEMPT_S)

    def _record_hang(self, reason: str) -> None:
        """Write to Kafka that an attempt at a record hangs, so that the next worker counts it.

        Called in the watchdog's thread.
        """
        runner = next(
            (stage.in_progress for stage in self.stages if stage.in_progress is not None), None
        )
        if runner is None:
            return
        main_thread = threading.main_thread().ident or 0
        stack = "".join(traceback.format_stack(sys._current_frames().get(main_thread)))
        note = runner.hung(f"{reason} while it processed this record:\n{stack}")
        if note is not None:
            log.critical(
                "recorded a failed attempt at a record of %s partition %d",
                runner.tp.topic,
                runner.tp.partition,
            )
            self.sender.send(note, _ignore)
            self.sender.flush(ATTEMPT_S)

    def _fail(self, error: BaseException) -> None:
        """Stop because of an error; nothing is committed any more. Only the first error counts."""
        if self._failure is None:
            self._failure = error
            self._drop_all()
        self._stop_soon()

    def _stop_soon(self) -> None:
        if not self._stopping.is_set():
            self._stopping.set()
            self.force_exit.start()

    def _exit_now(self) -> None:
        os._exit(0 if self._failure is None else 1)

    async def _unless_stopped(self, work: Awaitable[_Result]) -> _Result | None:
        """The result of ``work``, or None when the worker is asked to stop first."""
        task = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        # Work in a thread cannot be cancelled: ``_exit_now`` has to end the process.
        self._has_threads_left |= not task.done()
        return task.result() if task.done() else None

    # -- while it works ----------------------------------------------------------------------------

    async def _beat(self) -> None:
        """Send the watchdog a heartbeat ten times a second, as long as the event loop runs."""
        while True:
            self._check_turn()
            self.watchdog.beat()
            await asyncio.sleep(0.1)

    def _check_turn(self) -> None:
        """Notice when the worker stood still (SIGSTOP, a paused machine) for so long that its
        partitions may have another owner, which binds the same tasks: it then sends no bindings
        until its next heartbeats would have reported that.

        Called before acknowledgements are handled: they lead to bindings. What the other stages
        publish changes nothing in such a case.
        """
        now_s = time.monotonic()
        stood_s, self._turn_at = now_s - self._turn_at, now_s
        if stood_s * 1e6 > self.settings.session_timeout:
            log.warning("the worker stood still for %.0f s", stood_s)
            self._tasks_wait_until_s = now_s + MEMBERSHIP_S

    def _may_send_tasks(self) -> bool:
        return time.monotonic() >= self._tasks_wait_until_s

    async def _tick(self) -> None:
        """Every TICK_S: handle acknowledgements, call each stage's timers, report progress.

        The first error of a stage stops the worker.
        """
        while True:
            try:
                self._check_turn()
                self.sender.poll()
                for stage in self.stages:
                    stage.tick(self._caught_up_at)
                    if (error := stage.failures()) is not None:
                        raise error
                for runner in self.assemble.runners.values():
                    self._report_progress(runner)
            except Exception as error:
                self._fail(error)
                return
            await asyncio.sleep(TICK_S)

    async def _pass_on_tasks(self) -> None:
        """Send bindings as soon as the states that they follow from are acknowledged: the next tick
        would be up to TICK_S later.
        """
        while True:
            await self._tasks_sent.wait()
            self._tasks_sent.clear()
            try:
                while any(map(_is_waiting, self.tasks.runners.values())):
                    self._check_turn()
                    self.sender.poll()
                    self.tasks.send_outputs()
                    await asyncio.sleep(TASKS_POLL_S)
            except Exception as error:
                self._fail(error)
                return

    def _report_progress(self, runner: PartitionRunner) -> None:
        if isinstance(runner.processor, AssemblePartition) and not runner.halted:
            for output in self.progress.due(runner.processor):
                self.sender.send(output, _ignore)
            self.given_up_run_reader.read_new(runner, runner.processor)

    def _caught_up_at(self, tp: TP, position: int) -> int:
        """The wall time (us) of the last fetch, if it reached the end offset and every record
        before that is processed; else 0.
        """
        _, end, time_ms = cast(Any, self.app.consumer)._thread.position_and_end(tp)
        return time_ms * 1000 if end is not None and position >= end else 0

    async def _has_records(self, tp: TP, start: int, end: int) -> bool:
        """Whether [start, end) still contains records. Waits until Kafka answers."""
        check = functools.partial(has_records, self.settings, tp.topic, tp.partition, start, end)
        return await load_with_retries(
            check, f"{tp.topic} partition {tp.partition} from offset {start} to {end}"
        )

    def _leader_of(self, tp: TP) -> int | None:
        leader: int | None = cast(Any, self.app.consumer)._thread.leader(tp)
        return leader

    def _end_of(self, tp: TP) -> int | None:
        end: int | None = cast(Any, self.app.consumer)._thread.position_and_end(tp)[1]
        return end

    def _runners(self) -> list[PartitionRunner]:
        return [runner for stage in self.stages for runner in stage.runners.values()]

    def _apply_documents(self, messages: list[Message]) -> None:
        """Apply new documents. Those that cannot be read are sent to the dead letter, in the
        background.
        """
        changed = self.documents.apply(messages)
        self._refuse_documents()
        if changed:
            self.policies = self.documents.policies()
            self.rules, self.prices = self.documents.rule_book(), self.documents.price_book()
            window_rules, queues = self.documents.window_rules(), self.documents.queues()
            for runner in self._runners():
                if isinstance(runner.processor, AssemblePartition):
                    runner.processor.rules = self.rules
                    runner.processor.prices = self.prices
                elif isinstance(runner.processor, WindowPartition):
                    runner.processor.change_rules(window_rules)
                elif isinstance(runner.processor, TasksPartition):
                    runner.processor.change_queues(queues)

    def _refuse_documents(self) -> None:
        unreadable = self.documents.take_unreadable()
        if unreadable:
            self.counters.rejected["unreadable"] += len(unreadable)
            refuse = functools.partial(refuse_unreadable, self.settings, unreadable)
            self.given_up_run_reader.begin(
                load_with_retries(refuse, "the dead letter, to add unreadable documents")
            )

    def _decides_releases(self) -> bool:
        """Whether this worker decides about releases.

        That is the worker with partition 0 of findings, so that exactly one decides.
        """
        return not self._stopping.is_set() and 0 in self.alerts.runners

    def _refuse_releases(self, records: Sequence[Unreadable]) -> None:
        """Dead-letter records of the topic of releases. Called in another thread."""
        refuse_unreadable(self.settings, records)

    async def _watch_faust(self) -> None:
        """Fail when faust has stopped or a partition makes no progress."""
        while True:
            await asyncio.sleep(0.25)
            reason = getattr(self.app, "_crash_reason", None) or getattr(
                self.app, "crash_reason", None
            )
            stuck = self.observation.stuck(self._runners(), self._end_of, time.monotonic())
            if stuck:
                # From now on /healthz answers with this text.
                self.observer.health = functools.partial(str, stuck)
                self._fail(RuntimeError(f"stuck: {stuck}"))
                return
            if reason is not None or (self.app.should_stop and not self._stopping.is_set()):
                self._fail(reason or RuntimeError("the Kafka consumer stopped by itself"))
                return

    # -- metrics -----------------------------------------------------------------------------------

    def _before_scrape(self) -> None:
        """Refresh the metrics in the event loop's thread, the only one that may use the objects
        they are computed from. Called in the thread of a scrape.
        """
        refreshed = threading.Event()

        def refresh() -> None:
            try:
                self._refresh_metrics()
            finally:
                refreshed.set()

        try:
            self._loop.call_soon_threadsafe(refresh)
        except RuntimeError:  # the loop has ended: the last values stay
            return
        # The watchdog ends a loop that hangs; until then its last values are returned.
        refreshed.wait(SCRAPE_WAIT_S)

    def _refresh_metrics(self) -> None:
        self.observation.refresh(self._runners(), self._end_of, self.sender, self.transport.backlog)

    def _not_ready(self) -> str:
        """Why the worker is not ready; empty when it is."""
        loading = [runner.tp for runner in self._runners() if runner.processor is None]
        if loading:
            return f"reading the state of {len(loading)} partitions"
        return "" if self._runners() else "no partition is assigned"

    def _name(self, name: str) -> str:
        return topic(self.settings.topic_prefix, name)


def _is_waiting(runner: PartitionRunner) -> bool:
    processor = runner.processor
    return isinstance(processor, TasksPartition) and processor.pending > 0 and runner.alive


def _ignore(_output: Output, _offset: int) -> None:
    """Nothing waits for this output."""


if __name__ == "__main__":
    from stepstream.common.settings import load

    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    sys.exit(run(load()))
