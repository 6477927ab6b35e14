"""The sink process: Kafka to ClickHouse."""

from __future__ import annotations

import logging
import signal
import threading

from stepstream.common.listen import AddressTaken
from stepstream.schemas.settings import Settings
from stepstream.sinks.batching.batch_writer import Hook
from stepstream.sinks.batching.observation import serve
from stepstream.sinks.batching.sink import Sink
from stepstream.sinks.clickhouse import memory
from stepstream.sinks.clickhouse.sql_rules import SqlRules
from stepstream.sinks.clickhouse.writer import ClickHouseWriter

logger = logging.getLogger("stepstream.sink")


def run(settings: Settings, *, hook: Hook = lambda _point: None) -> int:
    """Store what comes until SIGTERM or SIGINT, then finish what has been read. Returns the exit
    code.

    0: stopped by a signal. 1: an error that waiting cannot resolve; nothing that is not stored is
    committed. Raises ``AddressTaken`` where the port of the metrics is in use.
    """
    for name, level in (("clickhouse_connect", logging.CRITICAL), ("urllib3", logging.ERROR)):
        logging.getLogger(name).setLevel(level)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    memory.tune()
    server = rules = None
    try:
        sink = Sink(settings, ClickHouseWriter(settings), hook=hook)
        server = serve(settings, sink.stats)
        rules = SqlRules(settings, sink.stats)
        sink.run(stop)
    except AddressTaken:
        raise
    except Exception:
        logger.exception("the sink ends because of an error")
        return 1
    finally:
        for part in (rules, server):
            if part is not None:
                part.close()
    return 0
