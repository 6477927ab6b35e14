"""``stepstream gateway``: runs the gateway, and writes its commands to Kafka."""

from __future__ import annotations

import time
from typing import cast

from stepstream.admin.commands import Target, send_to_run, send_to_scope
from stepstream.producers.gateway.service import process
from stepstream.producers.gateway.service.control import Asked, SendCommand
from stepstream.schemas.alert import Command, CommandAction
from stepstream.schemas.formatting import format_duration
from stepstream.schemas.money import amount_nanos
from stepstream.schemas.settings import Settings


def run(settings: Settings) -> int:
    """Run a gateway until a signal stops it; returns the exit code."""
    return process.run(settings, sender(settings))


def sender(settings: Settings) -> SendCommand:
    """What writes commands for the gateway."""

    def send(asked: Asked) -> Command:
        if not asked.trace_id:
            return _send_to_all(settings, asked)
        if asked.budget_usd:
            amount_nanos(asked.budget_usd)  # raises ValueError for what is no amount
        return send_to_run(
            settings,
            Target(asked.trace_id, project=asked.project),
            cast(CommandAction, asked.action),
            by=asked.by,
            reason=asked.reason,
            budget_usd=asked.budget_usd,
            now_us=time.time_ns() // 1_000,
        )

    return send


def _send_to_all(settings: Settings, asked: Asked) -> Command:
    # An agent that starts later than this would not read the command.
    if asked.lasts_us > settings.control_lookback:
        longest = format_duration(settings.control_lookback)
        raise ValueError(
            f"for: agents read commands of the last {longest} (setting control_lookback), so no "
            "command can be valid for longer"
        )
    return send_to_scope(
        settings,
        cast(CommandAction, asked.action),
        project=asked.project,
        agent=asked.agent,
        environment=asked.environment,
        by=asked.by,
        reason=asked.reason,
        now_us=time.time_ns() // 1_000,
        lasts_us=asked.lasts_us,
    )
