"""Orders of people to running agents: what `stepstream stop`, `pause`, `resume` and `approve` send, and the admin API too.

An order to one run goes to the control topic and, as the beginning of a control step, to the run's own steps: so the
trajectory tells who ordered what and why even if the agent never listens. Its end, the obedience, is the agent's to write.
"""

from __future__ import annotations

import getpass
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from confluent_kafka import Consumer, TopicPartition

from stepstream.common import kafka
from stepstream.schemas.alert import Command, CommandAction, CommandStruct
from stepstream.schemas.control import CONTROL_KIND, attributes_of, control_step_id, name_of
from stepstream.schemas.ids import derived_id
from stepstream.schemas.partitioner import partition_for
from stepstream.schemas.settings import Settings
from stepstream.schemas.step import RECORD_HEADERS
from stepstream.schemas.step import Step as StepRecord
from stepstream.schemas.topics import topic

_DELIVER_S: Final = 15.0
Sent = tuple[str, bytes, bytes, list[Any]]
"""A record: topic name, key, value, headers."""

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Target:
    """The run that an order is for. Without a ``root_step_id`` no step of it is written: nothing is known of it yet."""

    trace_id: str
    root_step_id: str = ""
    project: str = "default"
    environment: str = ""
    agent: str = ""
    agent_version: str = ""
    task: str = ""


def who() -> str:
    """The person at this machine, as an audit names them."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def order_to_run(
    settings: Settings,
    target: Target,
    action: CommandAction,
    *,
    by: str,
    reason: str = "",
    budget_usd: str = "",
    now_us: int,
) -> Command:
    """Order one run to ``stop``, ``pause``, ``resume`` or ``warn``. Returns once Kafka has it; raises ``KafkaUnreachable``."""
    command = CommandStruct(
        command_id=derived_id("order", target.trace_id, action, by, now_us),
        action=action,
        time=now_us,
        project=target.project,
        trace_id=target.trace_id,
        reason=reason,
        by=by,
        budget_usd=budget_usd,
    )
    records: list[Sent] = [("control", target.trace_id.encode(), _encode(command), [])]
    if target.root_step_id and action in ("stop", "pause"):
        records.insert(
            0,
            (
                "steps",
                target.trace_id.encode(),
                _encode(_order_step(command, target)),
                list(RECORD_HEADERS),
            ),
        )
    _send(settings, records)
    return command


def order_to_scope(
    settings: Settings,
    action: CommandAction,
    *,
    project: str,
    agent: str = "",
    environment: str = "",
    by: str,
    reason: str = "",
    now_us: int,
    lasts_us: int,
) -> Command:
    """Order all runs of a project, or of an agent in it, those that start in the next ``lasts_us`` too."""
    command = CommandStruct(
        command_id=derived_id("order", project, environment, agent, action, by, now_us),
        action=action,
        time=now_us,
        project=project,
        environment=environment,
        agent=agent,
        reason=reason,
        by=by,
        expires=now_us + lasts_us,
    )
    _send(settings, [("control", project.encode(), _encode(command), [])])
    return command


class Obedience:
    """Watches a run's steps for what the agent says of an order. Made before the order is sent, so that nothing is missed."""

    def __init__(self, settings: Settings, trace_id: str) -> None:
        name = topic(settings.topic_prefix, "steps")
        self._trace_id = trace_id
        self._consumer: Consumer = kafka.consumer(settings, "stepstream-reader")
        try:
            count = kafka.partition_count(self._consumer, name)
            place = TopicPartition(name, partition_for(trace_id, max(1, count)))
            place.offset = self._consumer.get_watermark_offsets(place, timeout=10)[1]
            self._consumer.assign([place])
        except BaseException:
            self._consumer.close()
            raise

    def wait(
        self, command: Command, timeout_s: float, now_s: Callable[[], float] = time.monotonic
    ) -> dict[str, Any] | None:
        """The agent's step of the order: its end, or its start where a pause begins. None when there was none in time."""
        wanted = control_step_id(self._trace_id, command.command_id)
        until = now_s() + timeout_s
        while now_s() < until:
            message = self._consumer.poll(0.1)
            if (
                message is None
                or message.error() is not None
                or wanted.encode() not in (message.value() or b"")
            ):
                continue
            event = msgspec.json.decode(message.value() or b"{}")
            if event.get("step_id") == wanted and (
                event.get("phase", "end") == "end" or _is_paused(event, command)
            ):
                return dict(event)
        return None

    def close(self) -> None:
        """Let go of the connection."""
        self._consumer.close()


def _is_paused(event: dict[str, Any], command: Command) -> bool:
    """Whether the agent says that it got a pause. The start that ``order_to_run`` writes itself has the order's own time."""
    return command.action == "pause" and event.get("start_time") != command.time


def _order_step(command: Command, target: Target) -> StepRecord:
    return StepRecord(
        trace_id=target.trace_id,
        step_id=control_step_id(target.trace_id, command.command_id),
        parent_step_id=target.root_step_id,
        phase="start",
        kind=CONTROL_KIND,
        name=name_of(command),
        project=target.project,
        environment=target.environment,
        agent=target.agent,
        agent_version=target.agent_version,
        task=target.task,
        start_time=command.time,
        attributes=attributes_of(command),
    )


def send_records(settings: Settings, records: list[Sent]) -> None:
    """Records (topic name, key, value, headers), in order, and wait until Kafka has them."""
    _send(settings, records)


def _send(settings: Settings, records: list[Sent]) -> None:
    client = kafka.producer(
        settings, **{"linger.ms": 0, "message.timeout.ms": round(_DELIVER_S * 1_000)}
    )
    outgoing = [
        kafka.Outgoing(topic(settings.topic_prefix, name), key, value, headers)
        for name, key, value, headers in records
    ]
    kafka.send_and_wait(client, outgoing, _DELIVER_S)
