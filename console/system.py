"""The page about Stepstream itself: lag, dead letters, and what the doctor finds."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, Final

from confluent_kafka import KafkaException, TopicPartition
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from stepstream.admin import groups
from stepstream.common import kafka
from stepstream.common.kafka import KafkaUnreachable
from stepstream.common.web.front import require
from stepstream.console.encode import answer
from stepstream.console.live.stream import state_of
from stepstream.console.live.tail import Tail
from stepstream.console.store import Store
from stepstream.schemas.settings import Settings
from stepstream.schemas.topics import topic

ASK_S: Final = 5.0


class System:
    """The endpoint /api/v1/system."""

    def __init__(self, settings: Settings, store: Store, tail: Tail) -> None:
        from stepstream.common.settings import Resolved

        self._settings = settings
        # The doctor reports where a setting comes from; here all come from this process.
        self._resolved = Resolved(settings, {}, None)
        self._store = store
        self._tail = tail
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="system")

    def routes(self) -> list[BaseRoute]:
        return [Route("/api/v1/system", self._endpoint, methods=["GET"])]

    def close(self) -> None:
        self._pool.shutdown(wait=False)

    async def _endpoint(self, request: Request) -> Response:
        require(request.scope, "read")
        with_doctor = request.query_params.get("doctor") == "1"
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._pool, self._examined, with_doctor)
        return answer(found, request.headers.get("accept-encoding", ""))

    def _examined(self, with_doctor: bool) -> dict[str, Any]:
        self._store.check()
        found: dict[str, Any] = {"groups": [], "deadletters": None, "kafka": _state("")}
        try:
            found["groups"] = [self._group(part) for part in groups.PARTS]
            found["deadletters"] = self._dead_letters()
        except (KafkaException, KafkaUnreachable) as error:
            found["kafka"] = _state(kafka.words(error))
        found["store"] = _state(self._store.failure)
        found["live"] = state_of(self._tail, self._store)
        if with_doctor:
            from stepstream.doctor import examine

            found["checks"] = [asdict(check) for check in examine(self._resolved)]
        return {**found, "as_of": time.time_ns() // 1_000}

    def _group(self, part: str) -> dict[str, Any]:
        group = groups.describe(self._settings, groups.PARTS[part](self._settings), timeout=ASK_S)
        prefix = f"{self._settings.topic_prefix}."
        partitions = [
            {"topic": name.removeprefix(prefix), "partition": partition, "lag": lag}
            for (name, partition), lag in sorted(group.lags.items())
        ]
        return {
            "part": part,
            "state": group.state.lower(),
            "members": group.members,
            "lag": group.lag,
            "partitions": partitions,
        }

    def _dead_letters(self) -> int:
        """Records in the dead letter; replayed ones stay there until they expire."""
        name = topic(self._settings.topic_prefix, "deadletter")
        client = kafka.consumer(self._settings, "stepstream-reader")
        try:
            count = 0
            for partition in range(kafka.partition_count(client, name, timeout=ASK_S)):
                place = TopicPartition(name, partition)
                low, high = client.get_watermark_offsets(place, timeout=ASK_S)
                count += high - low
            return count
        finally:
            client.close()


def _state(error: str) -> dict[str, Any]:
    return {"ok": not error, "error": error}
