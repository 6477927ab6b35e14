"""``stepstream gateway``: the gateway's process with what it does outside its room."""

from __future__ import annotations

import time
from typing import cast

from stepstream.admin.orders import Target, order_to_run
from stepstream.producers.gateway.service import process
from stepstream.producers.gateway.service.control import Order, SendOrder
from stepstream.schemas.alert import Command, CommandAction
from stepstream.schemas.money import amount_nanos
from stepstream.schemas.settings import Settings


def run(settings: Settings) -> int:
    """Run a gateway until it is told to stop; returns the exit code."""
    return process.run(settings, sender(settings))


def sender(settings: Settings) -> SendOrder:
    """What writes commands for the gateway."""

    def send(order: Order) -> Command:
        if order.budget_usd:
            amount_nanos(order.budget_usd)  # raises ValueError for what is no amount
        return order_to_run(
            settings,
            Target(order.trace_id, project=order.project),
            cast(CommandAction, order.action),
            by=order.by,
            reason=order.reason,
            budget_usd=order.budget_usd,
            now_us=time.time_ns() // 1_000,
        )

    return send
