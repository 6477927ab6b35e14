"""Requests the tasks of schedules when their times come.

The worker that has the first partition of the findings does it. Which times were requested is not
stored: the id of a task contains its time, so the scheduler of tasks takes each once, also where
two workers request it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import Final

from confluent_kafka import KafkaException

from stepstream.common.kafka import KafkaUnreachable, Outgoing, producer, send_and_wait, words
from stepstream.schemas.schedule import Schedule, due, request
from stepstream.schemas.settings import Settings
from stepstream.schemas.task_messages import encode_message
from stepstream.schemas.topics import topic

CHECK_S: Final = 1.0
PAUSE_S: Final = 5.0
SEND_S: Final = 10.0
log = logging.getLogger("stepstream.worker")


class ScheduleRunner:
    """Requests what is due while ``is_owner`` returns True."""

    def __init__(
        self,
        settings: Settings,
        *,
        schedules: Callable[[], Iterable[Schedule]],
        is_owner: Callable[[], bool],
        now_us: Callable[[], int] = lambda: time.time_ns() // 1_000,
    ) -> None:
        """``schedules`` returns those in force."""
        self._settings = settings
        self._schedules = schedules
        self._is_owner = is_owner
        self._now_us = now_us
        self._checked_us: dict[str, int] = {}

    async def run(self) -> None:
        """Check every second until cancelled; while no broker answers, try again."""
        while True:
            pause_s = CHECK_S
            try:
                await asyncio.to_thread(self.step)
            except (KafkaException, KafkaUnreachable) as error:
                log.warning("requesting the tasks of schedules: %s; trying again", words(error))
                pause_s = PAUSE_S
            await asyncio.sleep(pause_s)

    def step(self) -> int:
        """Request what is due; returns how many tasks.

        Raises ``KafkaException`` and ``KafkaUnreachable``; what was not acknowledged is requested
        again then.
        """
        if not self._is_owner():
            # What another worker requests meanwhile is not known here: the next check is a first.
            self._checked_us = {}
            return 0
        schedules = list(self._schedules())
        names = {schedule.name for schedule in schedules}
        self._checked_us = {name: at for name, at in self._checked_us.items() if name in names}
        return sum(map(self._request, schedules))

    def _request(self, schedule: Schedule) -> int:
        now_us = self._now_us()
        found = due(schedule, self._checked_us.get(schedule.name, 0), now_us)
        if found:
            name = topic(self._settings.topic_prefix, "tasks")
            key = schedule.project.encode()
            records = [
                Outgoing(name, key, encode_message(request(schedule, at_us))) for at_us in found
            ]
            client = producer(
                self._settings, **{"message.timeout.ms": round(SEND_S * 1000), "log_level": 0}
            )
            send_and_wait(client, records, SEND_S + 5)
            log.info("requested %d tasks of schedule %s", len(found), schedule.name)
        self._checked_us[schedule.name] = now_us
        return len(found)
