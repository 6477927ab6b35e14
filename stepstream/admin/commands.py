"""Commands to running agents: stop, pause, resume and approve, from the CLI and the admin API.

A command to one run is written to the control topic. Stop and pause are also written to the steps
topic, as the start of a control step of the run, so that the trajectory shows who sent what and
why even if the agent does not listen. The agent writes the end of that step: its acknowledgement.
"""

from __future__ import annotations

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
"""A record to send: topic name without prefix, key, value, headers."""

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Target:
    """The run that a command is for; without a ``root_step_id`` no control step is written."""

    trace_id: str
    root_step_id: str = ""
    project: str = "default"
    environment: str = ""
    agent: str = ""
    agent_version: str = ""
    task: str = ""


def send_to_run(
    settings: Settings,
    target: Target,
    action: CommandAction,
    *,
    by: str,
    reason: str = "",
    budget_usd: str = "",
    now_us: int,
) -> Command:
    """Send ``stop``, ``pause``, ``resume`` or ``warn`` to one run.

    Returns when Kafka has acknowledged it. Raises ``KafkaUnreachable``.
    """
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
        # The step first: the agent may acknowledge the command as soon as it can read it.
        step = _encode(_control_step(command, target))
        records.insert(0, ("steps", target.trace_id.encode(), step, list(RECORD_HEADERS)))
    send_records(settings, records)
    return command


# Each is a field of the command, and all callers pass them by name.
def send_to_scope(  # noqa: PLR0913
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
    """Send a command to all runs of a project, or of an agent in it.

    It also applies to runs that start within ``lasts_us``. Raises ``KafkaUnreachable``.
    """
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
    send_records(settings, [("control", project.encode(), _encode(command), [])])
    return command


class AcknowledgementReader:
    """Reads a run's steps from the end of the topic on, for the acknowledgement of a command.

    Create it before the command is sent.
    """

    def __init__(self, settings: Settings, trace_id: str) -> None:
        name = topic(settings.topic_prefix, "steps")
        self._trace_id = trace_id
        self._consumer: Consumer = kafka.consumer(settings, "stepstream-reader")
        try:
            count = kafka.partition_count(self._consumer, name)
            place = TopicPartition(name, partition_for(trace_id, max(1, count)))
            # From the present end: an acknowledgement that is older cannot be for this command.
            place.offset = self._consumer.get_watermark_offsets(place, timeout=10)[1]
            self._consumer.assign([place])
        except BaseException:
            self._consumer.close()
            raise

    def wait(
        self, command: Command, timeout_s: float, now_s: Callable[[], float] = time.monotonic
    ) -> dict[str, Any] | None:
        """The agent's control step for the command, or None if none arrives in ``timeout_s``.

        The step's end; for a pause also its start, which the agent writes when the pause begins.
        """
        wanted = control_step_id(self._trace_id, command.command_id)
        until = now_s() + timeout_s
        while now_s() < until:
            message = self._consumer.poll(0.1)
            if message is None or message.error() is not None:
                continue
            value = message.value() or b""
            if wanted.encode() not in value:  # decoding every step of the partition is slow
                continue
            event = msgspec.json.decode(value)
            if event.get("step_id") != wanted:
                continue
            if event.get("phase", "end") == "end" or _is_paused(event, command):
                return dict(event)
        return None

    def close(self) -> None:
        self._consumer.close()


def _is_paused(event: dict[str, Any], command: Command) -> bool:
    """Whether this is the start of a pause as the agent writes it.

    The start that ``send_to_run`` wrote has the time of the command.
    """
    return command.action == "pause" and event.get("start_time") != command.time


def _control_step(command: Command, target: Target) -> StepRecord:
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
    """Send records in order and return when Kafka has acknowledged all of them."""
    client = kafka.producer(
        settings, **{"linger.ms": 0, "message.timeout.ms": round(_DELIVER_S * 1_000)}
    )
    outgoing = [
        kafka.Outgoing(topic(settings.topic_prefix, name), key, value, headers)
        for name, key, value, headers in records
    ]
    kafka.send_and_wait(client, outgoing, _DELIVER_S)
