"""Bytewax, doing nothing with each record: ``bytewax_noop.py BROKERS TOPIC GROUP EVENTS``."""

import sys
from typing import Any

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main
from confluent_kafka import OFFSET_BEGINNING
from tally import Tally


class Counting(StatelessSinkPartition[Any]):
    """The end of the flow, where whole batches arrive."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def write_batch(self, items: list[Any]) -> None:
        if items and self._tally.add(len(items)):
            self._tally.finish()


class CountingSink(DynamicSink[Any]):
    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def build(self, step_id: str, worker_index: int, worker_count: int) -> Counting:
        return Counting(self._tally)


def nothing(message: Any) -> Any:
    return message


def main(brokers: str, topic: str, events: int) -> None:
    flow = Dataflow("nothing")
    source = KafkaSource(
        [brokers], [topic], tail=True, starting_offset=OFFSET_BEGINNING, batch_size=1_000
    )
    stream = op.map("nothing", op.input("in", flow, source), nothing)
    op.output("out", stream, CountingSink(Tally(events)))
    run_main(flow)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[4]))
