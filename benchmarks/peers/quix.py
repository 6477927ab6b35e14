"""Quix Streams, doing nothing with each record: ``quix.py BROKERS TOPIC GROUP EVENTS``."""

import sys
import tempfile

from quixstreams import Application
from tally import Tally


def main(brokers: str, topic: str, group: str, events: int) -> None:
    app = Application(
        broker_address=brokers,
        consumer_group=group,
        auto_offset_reset="earliest",
        auto_create_topics=False,
        state_dir=tempfile.mkdtemp(prefix="quix-"),
        loglevel="WARNING",
    )
    tally = Tally(events)

    def nothing(_value: object) -> None:
        if tally.add():
            tally.finish()

    app.dataframe(app.topic(topic, key_deserializer="bytes", value_deserializer="bytes")).update(
        nothing
    )
    app.run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
