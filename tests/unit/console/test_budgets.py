"""Budgets are read in the background, at most once a minute, and kept while Kafka is down."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any

from stepstream.admin.fleet import BUDGETS, Row
from stepstream.console import budgets
from stepstream.console.budgets import Budgets
from stepstream.schemas.settings import Settings
from tests.support.processes import wait_until

ROW: Row = ("p", "spend", "shop", "project", "shop", "day", "4", "5", "80 %", datetime.now(UTC))


def test_a_caller_never_waits(monkeypatch: Any) -> None:
    go = threading.Event()
    reads: list[int] = []

    def read(_settings: Settings, now_us: int) -> list[Row]:
        reads.append(now_us)
        assert go.wait(60)
        if len(reads) > 1:
            raise OSError("Kafka is away")
        return [ROW]

    kept = Budgets(Settings(), read)
    try:
        assert kept.rows() is None
        assert kept.rows() is None
        go.set()
        wait_until(lambda: kept.rows() is not None, 60, "the budgets")
        assert kept.rows() == [dict(zip(BUDGETS, ROW, strict=True))]
        assert len(reads) == 1
        monkeypatch.setattr(budgets, "KEPT_S", 0.0)
        kept._next_s = 0.0
        wait_until(lambda: kept.rows() is not None and len(reads) > 2, 60, "more reads")
        assert kept.rows() == [dict(zip(BUDGETS, ROW, strict=True))]
    finally:
        kept.close()
