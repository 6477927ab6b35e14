"""The two ways to the scheduler: by Kafka, or by a gateway."""

from __future__ import annotations

import json
import os
import threading
import time
import urllib.error
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import quote, urlencode

from stepstream.common.kafka import KafkaUnreachable
from stepstream.common.person import who
from stepstream.producers.tasks.sender import NOT_SENT, Delivery, Sender
from stepstream.producers.tasks.states import TaskStates
from stepstream.producers.user_ids import user_ids_of
from stepstream.schemas.endpoint import is_http, split_http_endpoint
from stepstream.schemas.task_messages import CancelStruct, DrainStruct, RetryStruct
from stepstream.schemas.task_state import TaskStateStruct, decode_state

if TYPE_CHECKING:
    from stepstream.schemas.settings import Settings
    from stepstream.schemas.task_messages import Message, Submit
    from stepstream.schemas.task_state import TaskState

DELIVER_S: Final = 15.0


class TaskNotSent(Exception):
    """Neither Kafka nor the gateway has acknowledged the request: the message has the reason."""


class Way(Protocol):
    """How requests reach the scheduler, and states the caller. Raises ``TaskNotSent``."""

    def submit(self, record: Submit) -> Delivery:
        """Send a task. Returns the log time and offset of its record, where they are known."""

    def state(
        self, project: str, task_id: str, wait_s: float, sent: Delivery = NOT_SENT
    ) -> TaskState | None:
        """The newest state, once it is final or ``wait_s`` have passed."""

    def cancel(self, project: str, task_id: str, reason: str, by: str = "") -> None: ...

    def retry(self, project: str, task_id: str, reason: str, by: str = "") -> None: ...


class KafkaWay:
    """By Kafka."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._sender = Sender(settings, DELIVER_S)
        self.states = TaskStates(settings)
        self._user_ids = user_ids_of(settings)

    def submit(self, record: Submit) -> Delivery:
        if self._user_ids is not None:
            record.user_id = self._user_ids.hashed(record.user_id)
        return self._send(record)

    def state(
        self, project: str, task_id: str, wait_s: float, sent: Delivery = NOT_SENT
    ) -> TaskState | None:
        try:
            return self.states.wait(project, task_id, wait_s, sent=sent)
        except KafkaUnreachable as error:
            raise TaskNotSent(str(error)) from None

    def cancel(self, project: str, task_id: str, reason: str, by: str = "") -> None:
        self._send(CancelStruct(project=project, task_id=task_id, reason=reason, by=by or who()))

    def retry(self, project: str, task_id: str, reason: str, by: str = "") -> None:
        self._send(RetryStruct(project=project, task_id=task_id, reason=reason, by=by or who()))

    def drain(self, project: str, executor_id: str, deadline_us: int, by: str = "") -> None:
        self._send(
            DrainStruct(
                project=project, executor_id=executor_id, deadline_us=deadline_us, by=by or who()
            )
        )

    def close(self) -> None:
        self._sender.close()
        self.states.close()

    def _send(self, record: Message) -> Delivery:
        delivery = self._sender.send_and_wait(record, DELIVER_S)
        if delivery.error:
            where = self._settings.kafka_brokers
            raise TaskNotSent(f"Kafka at {where} has not acknowledged it: {delivery.error}")
        return delivery


class GatewayWay:
    """By a gateway, for programs without a route to Kafka."""

    def __init__(self, settings: Settings) -> None:
        url, _, base = split_http_endpoint(settings.endpoint)
        self._url = f"{url}{base}"
        self._key = settings.endpoint_key.get_secret_value()
        self._user_ids = user_ids_of(settings)

    def submit(self, record: Submit) -> Delivery:
        from stepstream.producers.tasks.requests import fields_of

        if self._user_ids is not None:
            record.user_id = self._user_ids.hashed(record.user_id)
        self._post("/v1/tasks", fields_of(record))
        return NOT_SENT

    def state(
        self, project: str, task_id: str, wait_s: float, sent: Delivery = NOT_SENT
    ) -> TaskState | None:
        query = urlencode({"project": project, "wait": f"{wait_s:g}"})
        from stepstream.common.gateway_requests import get

        try:
            body = self._asked(
                lambda: get(f"{self._path(task_id)}?{query}", self._key, wait_s=wait_s)
            )
        except _NotThere:
            return None
        found = decode_state(body)
        return found if isinstance(found, TaskStateStruct) else None

    def cancel(self, project: str, task_id: str, reason: str, by: str = "") -> None:
        self._post(f"/v1/tasks/{quote(task_id, safe='')}/cancel", _command(project, reason, by))

    def retry(self, project: str, task_id: str, reason: str, by: str = "") -> None:
        self._post(f"/v1/tasks/{quote(task_id, safe='')}/retry", _command(project, reason, by))

    def _path(self, task_id: str) -> str:
        return f"{self._url}/v1/tasks/{quote(task_id, safe='')}"

    def _post(self, path: str, body: dict[str, Any]) -> bytes:
        from stepstream.common.gateway_requests import post

        return self._asked(lambda: post(f"{self._url}{path}", self._key, body))

    def _asked(self, ask: Any) -> bytes:
        from stepstream.common.gateway_requests import refusal

        try:
            found: bytes = ask()
        except urllib.error.HTTPError as error:
            if error.code == 404:
                raise _NotThere(refusal(error)) from None
            hint = ""
            if error.code in (401, 403):
                hint = "; endpoint_key must be a key of `stepstream keys create --act`"
            raise TaskNotSent(f"{self._url}: {refusal(error)}{hint}") from None
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise TaskNotSent(f"{self._url} cannot be reached: {reason}") from None
        return found


class _NotThere(TaskNotSent):
    """The gateway knows no such task."""


def _command(project: str, reason: str, by: str) -> dict[str, str]:
    return {"project": project, "reason": reason, "by": by or who()}


_ways: Final[dict[tuple[int, str], Way]] = {}
_guard: Final = threading.Lock()


def way_of(settings: Settings) -> Way:
    """The way of these settings: one for each process and place. Raises ``TaskNotSent``."""
    if is_http(settings.endpoint):
        return GatewayWay(settings)
    if not settings.kafka_brokers:
        raise TaskNotSent(
            "there is no endpoint: start `stepstream up`, or set "
            "STEPSTREAM_ENDPOINT=kafka://host:9092 or https://gateway"
        )
    # A forked process cannot use its parent's connections.
    place = os.getpid(), json.dumps([settings.kafka, settings.topic_prefix], sort_keys=True)
    with _guard:
        way = _ways.get(place)
        if way is None:
            way = _ways[place] = KafkaWay(settings)
    return way


def now_us() -> int:
    """This machine's clock; tasks are scheduled by that of the brokers."""
    return time.time_ns() // 1_000
