"""The shell around the logic: stages stop at a rebalance, and process nothing before ready."""

from __future__ import annotations

import asyncio

import pytest
from faust.types import TP

from stepstream.stream.shell.topic_stage import RecordsMissed
from tests.support.stage_world import STEPS, World, records


async def test_outputs_are_sent_and_the_safe_offset_follows_their_acknowledgements() -> None:
    """Nothing is offered for a commit before Kafka has what depends on it."""
    world = World()
    await world.assigned()
    await world.stage.handle(STEPS, records(0, 3), 1)
    assert (len(world.sent), world.safe_offsets) == (3, {})
    world.acknowledge(2)
    world.stage.tick(lambda _tp, _position: 0)
    assert world.safe_offsets == {STEPS: (2, "")}
    world.acknowledge(1)
    world.stage.tick(lambda _tp, _position: 0)
    assert world.safe_offsets == {STEPS: (3, "")}


async def test_outputs_stay_while_the_worker_may_have_lost_its_partitions() -> None:
    """They are sent when it still has them, and dropped with the assignment."""
    world, may = World(), [False]
    world.stage.may_send = lambda: may[0]
    await world.assigned()
    await world.stage.handle(STEPS, records(0, 3), 1)
    world.stage.tick(lambda _tp, _position: 0)
    assert (world.sent, world.safe_offsets) == ([], {})
    may[0] = True
    world.stage.send_outputs()
    assert len(world.sent) == 3


async def test_records_wait_until_the_state_is_read() -> None:
    """Fed too early they would look like runs of their own."""
    world = World()
    world.gate.clear()
    world.stage.assign([STEPS], 1)
    handling = asyncio.create_task(world.stage.handle(STEPS, records(0, 3), 1))
    await asyncio.sleep(0.01)
    assert (world.logics, handling.done()) == ([], False)
    world.gate.set()
    await handling
    assert world.logics[0].fed == [0, 1, 2]


async def test_records_of_another_generation_are_left_alone() -> None:
    """They are read again under the new one."""
    world = World()
    logic = await world.assigned(generation=2)
    await world.stage.handle(STEPS, records(50, 3), 1)
    await world.stage.handle(TP("steps", 7), records(0, 3), 2)
    assert logic.fed == []


async def test_after_a_revocation_acknowledgements_move_no_offset() -> None:
    """A late acknowledgement belongs to another owner's partition."""
    world = World()
    await world.assigned()
    await world.stage.handle(STEPS, records(0, 3), 1)
    world.acknowledge(1)
    world.stage.tick(lambda _tp, _position: 0)
    world.stage.revoke()
    assert world.safe_offsets == {}
    world.acknowledge(2)
    world.stage.tick(lambda _tp, _position: 0)
    await world.stage.handle(STEPS, records(3, 3), 1)
    assert world.safe_offsets == {}
    assert world.logics[0].fed == [0, 1, 2]


async def test_a_revocation_while_loading_ends_the_wait() -> None:
    """The batch that waited is dropped with its assignment."""
    world = World()
    world.gate.clear()
    world.stage.assign([STEPS], 1)
    handling = asyncio.create_task(world.stage.handle(STEPS, records(0, 3), 1))
    await asyncio.sleep(0.01)
    world.stage.revoke()
    await asyncio.wait_for(handling, 1)
    assert (world.logics, world.stage.failures()) == ([], None)


async def test_a_new_assignment_begins_anew() -> None:
    """Nothing of the old logic is used: another worker may have gone on in between."""
    world = World()
    first = await world.assigned()
    await world.stage.handle(STEPS, records(0, 3), 1)
    second = await world.assigned(generation=2)
    assert second is not first
    world.acknowledge(3)
    world.stage.tick(lambda _tp, _position: 0)
    assert world.safe_offsets == {}


async def test_what_loading_raises_stops_the_worker() -> None:
    """Both a waiting batch and the check of failures get it."""
    world = World()
    world.error = RuntimeError("state version 9")
    world.stage.assign([STEPS], 1)
    with pytest.raises(RuntimeError, match="state version 9"):
        await world.stage.handle(STEPS, records(0, 1), 1)
    assert world.stage.failures() is world.error


async def test_while_stopping_it_takes_no_more_records_and_skips_none() -> None:
    """While the worker drains, batches neither pass nor return."""
    world = World()
    logic = await world.assigned()
    world.stage.stop_reading()
    handling = asyncio.create_task(world.stage.handle(STEPS, records(0, 3), 1))
    await asyncio.sleep(0.01)
    assert (logic.fed, handling.done()) == ([], False)
    handling.cancel()


async def test_time_passes_only_for_who_is_caught_up() -> None:
    """And silence means nothing while brokers have failed."""
    world = World()
    logic = await world.assigned()
    world.stage.tick(lambda _tp, _position: 0)
    assert logic.ticks == []
    world.stage.tick(lambda _tp, position: 1_000 + position)
    assert (logic.ticks, logic.disturbed) == ([1_000], 0)
    world.brokers_failed = True
    world.stage.tick(lambda _tp, position: 2_000)
    await world.stage.handle(STEPS, records(0, 1), 1)
    assert logic.disturbed == 2


async def test_it_waits_while_too_much_is_under_way() -> None:
    """Back-pressure: a batch returns when there is room again."""
    world = World()
    await world.assigned()
    world.is_full = True
    # The bound is there for a call that never returns.
    await asyncio.wait_for(world.stage.handle(STEPS, records(0, 3), 1), 1)
    assert not world.is_full


async def test_a_gap_is_checked() -> None:
    """A log has gaps of its own: retention and transaction markers. They are no error."""
    world = World()
    logic = await world.assigned()
    await world.stage.handle(STEPS, records(0, 3), 1)
    await world.stage.handle(STEPS, records(2, 3), 1)
    # One offset is missing: the end marker of a transaction takes one.
    await world.stage.handle(STEPS, records(6, 3), 1)
    assert world.checked == []
    await world.stage.handle(STEPS, records(20, 3), 1)
    # A gap of eleven: Kafka is asked whether it has records there.
    assert world.checked == [(STEPS, 9, 20)]
    assert logic.fed[-1] == 22


async def test_records_that_never_came_stop_the_worker() -> None:
    """Skipped once they would be lost for ever; nothing after them is processed or committed."""
    world = World()
    logic = await world.assigned()
    await world.stage.handle(STEPS, records(0, 3), 1)
    world.missed = True
    with pytest.raises(RecordsMissed, match="17 records before offset 20 did not arrive"):
        await world.stage.handle(STEPS, records(20, 3), 1)
    assert logic.fed == [0, 1, 2]
