"""``stepstream gateway``: runs the gateway, and writes its commands to Kafka."""

from __future__ import annotations

import time
from typing import cast

from stepstream.admin.commands import Target, send_to_run
from stepstream.producers.gateway.service import process
from stepstream.producers.gateway.service.control import Asked, SendCommand
from stepstream.schemas.alert import Command, CommandAction
from stepstream.schemas.money import amount_nanos
from stepstream.schemas.settings import Settings


def run(settings: Settings) -> int:
    """Run a gateway until a signal stops it; returns the exit code."""
    return process.run(settings, sender(settings))


def sender(settings: Settings) -> SendCommand:
    """What writes commands for the gateway."""

    def send(asked: Asked) -> Command:
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
