"""confluent-kafka alone, counting: ``plain_consumer.py BROKERS TOPIC GROUP EVENTS``.

Runs in our own environment: a limit.
"""

import sys

from confluent_kafka import Consumer
from tally import Tally


def main(brokers: str, topic: str, group: str, events: int) -> None:
    consumer = Consumer(
        {
            "bootstrap.servers": brokers,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([topic])
    tally = Tally(events)
    while True:
        messages = consumer.consume(1_000, 1.0)
        if messages and tally.add(sum(message.error() is None for message in messages)):
            tally.finish()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
