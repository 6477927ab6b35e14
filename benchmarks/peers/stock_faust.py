"""faust-streaming as it comes, doing nothing with each record: ``stock_faust.py BROKERS TOPIC
GROUP EVENTS``."""

import asyncio
import logging
import sys
import tempfile

import faust
import uvloop
from tally import Tally


async def main(brokers: str, topic: str, group: str, events: int) -> None:
    logging.getLogger("faust").setLevel(logging.ERROR)
    app = faust.App(
        group,
        broker=f"kafka://{brokers}",
        store="memory://",
        datadir=tempfile.mkdtemp(prefix="stock-faust-"),
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        stream_wait_empty=False,
    )
    tally = Tally(events)

    async def nothing(stream: object) -> None:
        async for _ in stream:  # type: ignore[attr-defined]
            if tally.add():
                tally.finish()

    app.agent(app.topic(topic, key_serializer="raw", value_serializer="raw", value_type=bytes))(
        nothing
    )
    app.finalize()
    await app.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
