"""aiokafka alone, which faust reads with, counting: ``plain_aiokafka.py BROKERS TOPIC GROUP
EVENTS``. In our environment."""

import asyncio
import sys

import uvloop
from aiokafka import AIOKafkaConsumer
from tally import Tally


async def main(brokers: str, topic: str, group: str, events: int) -> None:
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=brokers,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_partition_fetch_bytes=4 * 1_048_576,
    )
    await consumer.start()
    tally = Tally(events)
    while True:
        for records in (await consumer.getmany(timeout_ms=1_000, max_records=5_000)).values():
            if tally.add(len(records)):
                tally.finish()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
