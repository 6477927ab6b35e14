"""The checkpoint protocol for every order of growth, sending, acknowledgement, close and crash."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from stepstream.stream.assemble.checkpoint import CheckpointState, RunCheckpoint
from stepstream.stream.core.offsets import OffsetTracker
from stepstream.stream.core.outputs import Output


@dataclass(frozen=True)
class State:
    """A state record: what a worker that restarts from it knows."""

    through: int
    is_closed: bool
    found_by_time: frozenset[str]
    deferred: tuple[str, ...]


@dataclass
class Kafka:
    """What survives a crash."""

    # The run's records; True where a record leads to a finding.
    log: list[bool] = field(default_factory=list)
    delivered: set[str] = field(default_factory=set)
    states: list[State] = field(default_factory=list)
    committed: int = 0

    @property
    def newest(self) -> State | None:
        """Of two that contain the same records the later one, as in ``load_assemble``."""
        latest_first = reversed(self.states)
        return max(latest_first, key=lambda state: (state.through, state.is_closed), default=None)


class Worker:
    """A worker with one run, between two crashes, as the stage behaves, with named outputs."""

    def __init__(self, kafka: Kafka, kind: type[RunCheckpoint]) -> None:
        self.kafka = kafka
        state = kafka.newest
        self.offsets = OffsetTracker(kafka.committed)
        self.checkpoint = kind(-1 if state is None else state.through)
        self.is_closed = state is not None and state.is_closed
        self.found_by_time = set(state.found_by_time) if state is not None else set()
        self.merged_through = self.checkpoint.merged_through
        self.outputs_under_way: list[str] = []
        self.states_under_way: list[State] = []
        # An open run is published again after a restart. A closed one is not: its state stays.
        self.unpublished = set() if self.is_closed else self.everything()
        for name in state.deferred if state is not None else ():
            self.send(name)

    def everything(self) -> set[str]:
        """Names of the trajectories of what is merged so far."""
        return {f"trajectory {offset}" for offset in range(self.merged_through + 1)}

    def send(self, name: str) -> None:
        self.checkpoint.output_sent()
        self.outputs_under_way.append(name)

    def read(self) -> None:
        """Process the next record of the log."""
        offset = self.offsets.position
        self.offsets.position += 1
        # Its outputs were delivered before the state record was written.
        if offset <= self.checkpoint.checkpointed_through:
            return
        self.checkpoint.record_merged(offset, self.offsets)
        self.merged_through = max(self.merged_through, offset)
        self.unpublished.add(f"trajectory {offset}")
        if self.is_closed:
            self.checkpoint.request_state()
        if self.kafka.log[offset]:
            self.find(f"finding {offset}")

    def find(self, name: str) -> None:
        """Outputs keep their order: a finding follows those that wait for a state record."""
        if self.checkpoint.deferred:
            self.found_by_time.add(name)
            self.checkpoint.defer_output(Output("findings", name.encode(), b""))
        else:
            self.send(name)

    def find_by_time(self) -> None:
        """Time shows something that a replay of the log would not."""
        name = f"by time {len(self.found_by_time)}"
        self.found_by_time.add(name)
        self.checkpoint.defer_output(Output("findings", name.encode(), b""))

    def publish(self) -> None:
        for name in sorted(self.unpublished):
            self.send(name)
        self.unpublished.clear()

    def close(self) -> None:
        self.is_closed = True
        self.unpublished.add("end")
        self.checkpoint.request_state()

    def write(self) -> None:
        """Send the state record, where the protocol allows it."""
        checkpoint = self.checkpoint
        if not checkpoint.may_write or (self.is_closed and self.unpublished):
            return
        deferred = tuple((output.key or b"").decode() for output in checkpoint.deferred)
        through = checkpoint.start_writing()
        self.states_under_way.append(
            State(through, self.is_closed, frozenset(self.found_by_time), deferred)
        )

    def acknowledge_output(self) -> None:
        self.kafka.delivered.add(self.outputs_under_way.pop(0))
        self.checkpoint.output_acknowledged()

    def acknowledge_state(self) -> None:
        self.kafka.states.append(self.states_under_way.pop(0))
        for output in self.checkpoint.state_acknowledged(self.offsets):
            self.send((output.key or b"").decode())
        if self.is_closed and self.checkpoint.state is CheckpointState.DIRTY:
            self.checkpoint.request_state()

    def commit(self) -> None:
        self.kafka.committed = self.offsets.safe


class CheckpointMachine(RuleBasedStateMachine):
    """One run, its workers and what Kafka holds."""

    kind: type[RunCheckpoint] = RunCheckpoint

    def __init__(self) -> None:
        super().__init__()
        self.kafka = Kafka()
        self.worker = Worker(self.kafka, self.kind)

    @rule(finds=st.booleans())
    def grow(self, finds: bool) -> None:
        """A record is appended and processed."""
        self.kafka.log.append(finds)
        while self.worker.offsets.position < len(self.kafka.log):
            self.worker.read()

    @rule()
    def publish(self) -> None:
        self.worker.publish()

    # Bounded, so that examples do not consist of this rule alone.
    @precondition(lambda self: not self.worker.is_closed and len(self.worker.found_by_time) < 6)
    @rule()
    def find_by_time(self) -> None:
        self.worker.find_by_time()

    @rule()
    def request(self) -> None:
        """The run has needed its records for long."""
        self.worker.checkpoint.request_state()

    @precondition(lambda self: not self.worker.is_closed and not self.worker.checkpoint.deferred)
    @rule()
    def close(self) -> None:
        self.worker.close()

    @rule()
    def write(self) -> None:
        self.worker.write()

    @precondition(lambda self: self.worker.outputs_under_way)
    @rule()
    def acknowledge_output(self) -> None:
        self.worker.acknowledge_output()

    @precondition(lambda self: self.worker.states_under_way)
    @rule()
    def acknowledge_state(self) -> None:
        self.worker.acknowledge_state()

    @rule()
    def commit(self) -> None:
        self.worker.commit()

    @rule(outputs=st.integers(0, 8), states=st.integers(0, 2))
    def crash(self, outputs: int, states: int) -> None:
        """The worker crashes; Kafka has some of what was in flight. Another one takes over."""
        # Any beginning of what was in flight: the broker has it, and the worker does not know.
        self.kafka.delivered.update(self.worker.outputs_under_way[:outputs])
        self.kafka.states += self.worker.states_under_way[:states]
        self.worker = Worker(self.kafka, self.kind)
        while self.worker.offsets.position < len(self.kafka.log):
            self.worker.read()

    @invariant()
    def what_was_committed_is_in_a_state_record(self) -> None:
        newest = self.kafka.newest
        assert self.kafka.committed <= (0 if newest is None else newest.through + 1)

    @invariant()
    def what_a_state_record_contains_was_delivered(self) -> None:
        """A restart republishes an open run's trajectory, not a closed one's, and no findings."""
        newest = self.kafka.newest
        if newest is None:
            return
        contained = range(newest.through + 1)
        expected = {f"finding {offset}" for offset in contained if self.kafka.log[offset]}
        if newest.is_closed:
            expected |= {f"trajectory {offset}" for offset in contained} | {"end"}
        assert expected - newest.found_by_time <= self.kafka.delivered

    @invariant()
    def what_time_has_found_is_in_a_state_record_before_it_is_sent(self) -> None:
        newest = self.kafka.newest
        known = frozenset() if newest is None else newest.found_by_time
        assert {name for name in self.kafka.delivered if name.startswith("by time")} <= known

    def teardown(self) -> None:
        """Without another crash everything is delivered, checkpointed and committed in the end."""
        worker = self.worker
        if not worker.is_closed:
            self._settle()
            assert not worker.checkpoint.deferred
            worker.close()
        self._settle()
        log = self.kafka.log
        expected = {f"trajectory {offset}" for offset in range(len(log))} | {"end"}
        expected |= {f"finding {offset}" for offset, finds in enumerate(log) if finds}
        assert expected | worker.found_by_time <= self.kafka.delivered
        assert worker.checkpoint.state is CheckpointState.CLEAN
        assert self.kafka.committed == len(log)

    def _settle(self) -> None:
        worker = self.worker
        for _ in range(5):
            worker.publish()
            while worker.outputs_under_way:
                worker.acknowledge_output()
            worker.write()
            while worker.states_under_way:
                worker.acknowledge_state()
        worker.commit()


FEW = settings(
    max_examples=300,
    # The same examples in every run: a failure is one of the change, not of chance.
    derandomize=True,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def test_the_protocol_holds_under_every_interleaving() -> None:
    run_state_machine_as_test(CheckpointMachine, settings=FEW)


class WritesTooEarly(RunCheckpoint):
    """Rule 1 broken: the state record is sent while outputs are under way."""

    @property
    def may_write(self) -> bool:
        return self.state is CheckpointState.WAITING


class ReleasesTooEarly(RunCheckpoint):
    """Rule 2 broken: the records are given up as the state record is sent."""

    offsets: OffsetTracker | None = None

    def record_merged(self, offset: int, offsets: OffsetTracker) -> bool:
        self.offsets = offsets
        return super().record_merged(offset, offsets)

    def start_writing(self) -> int:
        through = super().start_writing()
        if self.offsets is not None:
            self.offsets.release(self)
        return through


class ForgetsGrowth(RunCheckpoint):
    """Rule 2 broken: what was merged while the state record was under way passes for contained."""

    def state_acknowledged(self, offsets: OffsetTracker) -> tuple[Output, ...]:
        self._writing_through = self.merged_through
        return super().state_acknowledged(offsets)


class SendsUnnamed(RunCheckpoint):
    """Rule 3 broken: findings made while the state record was in flight are sent with it."""

    def state_acknowledged(self, offsets: OffsetTracker) -> tuple[Output, ...]:
        self._in_state = len(self.deferred)
        return super().state_acknowledged(offsets)


class ForgetsRequests(RunCheckpoint):
    """What is requested while a state record is under way is never written."""

    def request_state(self) -> None:
        if self.state is not CheckpointState.WRITING:
            super().request_state()


@pytest.mark.parametrize(
    "broken",
    [WritesTooEarly, ReleasesTooEarly, ForgetsGrowth, SendsUnnamed, ForgetsRequests],
    ids=lambda kind: kind.__name__,
)
def test_the_property_finds_each_way_to_break_the_protocol(broken: type[RunCheckpoint]) -> None:
    machine = type("Broken", (CheckpointMachine,), {"kind": broken})
    # Not shrunk: that there is a counterexample is enough, and shrinking takes minutes.
    many = settings(FEW, max_examples=3_000, phases=[Phase.generate])
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine, settings=many)


def test_a_failed_run_needs_no_offset_and_takes_no_request() -> None:
    offsets = OffsetTracker(1)
    checkpoint = RunCheckpoint()
    checkpoint.record_merged(0, offsets)
    checkpoint.fail(offsets)
    checkpoint.request_state()
    assert checkpoint.has_failed
    assert not checkpoint.may_write
    assert offsets.safe == 1
