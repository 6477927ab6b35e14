"""Connects the stages to faust: one agent a topic, and the signals of a rebalance."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, cast

import faust
from faust.types import TP

from stepstream.stream.shell.batching import Backlog
from stepstream.stream.shell.topic_stage import TopicStage


def bind_stages(
    app: faust.App,
    stages: Iterable[TopicStage],
    backlog: Backlog,
    *,
    on_error: Callable[[BaseException], None],
    on_revoked: Callable[[], None],
    on_assigned: Callable[[list[TP]], None],
) -> None:
    """Have faust hand batches to the stages, and report rebalances and what a stage raises.
    Finalizes the app.
    """
    for stage in stages:
        _bind(app, stage, backlog, on_error)

    async def revoked(_app: Any, revoked: Any = (), **_: Any) -> None:
        on_revoked()

    async def assigned(_app: Any, assigned: Any = (), **_: Any) -> None:
        on_assigned(sorted(assigned))

    app.on_partitions_revoked.connect(cast(Any, revoked), weak=False)
    app.on_partitions_assigned.connect(cast(Any, assigned), weak=False)
    app.finalize()


def _bind(
    app: faust.App, stage: TopicStage, backlog: Backlog, on_error: Callable[[BaseException], None]
) -> None:
    async def agent(stream: Any) -> None:
        async for event in stream.events():
            message = event.message
            try:
                await stage.handle(message.tp, message.value, message.generation_id)
            except Exception as error:
                on_error(error)
                # Wait for ever, so that faust neither acknowledges nor skips the batch.
                await asyncio.Event().wait()
            finally:
                backlog.taken(message.tp.topic)

    raw = app.topic(stage.topic, key_serializer="raw", value_serializer="raw")
    app.agent(raw, name=stage.topic)(agent)
