"""The demo's agents as tasks: what ``stepstream executor examples.demo.executor:app`` runs.

The demo starts this process with its seed, folder and agents in the environment.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import stepstream
from examples.demo.agents import Desk, analyst, buyer, helpdesk, support
from examples.demo.articles import ARTICLES
from examples.demo.language_model import StandIn, Ticket
from examples.demo.ledger import Ledger
from examples.demo.scenarios import PROJECT, REPEATED
from examples.demo.search import Search
from examples.demo.shop import Shop, ShopError
from stepstream.producers.tracer import public_tracer

SEED: Final = int(os.environ.get("DEMO_SEED", "7"))
FOLDER: Final = Path(os.environ.get("DEMO_FOLDER", "."))
# The executor that is killed has an agent version of its own, so that it alone gets the task that
# hangs.
IS_FRAGILE: Final = os.environ.get("DEMO_FRAGILE") == "yes"
HANGS_IN: Final = "v1-hangs"
DESK: Final = Desk(
    public_tracer(),
    Ledger(FOLDER / f"{os.getpid()}.ledger"),
    Shop(SEED),
    Search(ARTICLES),
    StandIn(SEED),
    threading.Event(),
)
app = stepstream.Executor(PROJECT)


def _begin(task: stepstream.Task) -> tuple[Desk, Ticket]:
    """The desk and the ticket of an attempt, with what the plan wants to happen in the shop."""
    ticket = Ticket(**task.input)
    if task.attempt > 1:
        ticket = replace(ticket, scenario=REPEATED.name)
    if ticket.scenario == "retried":
        DESK.shop.fail_payments(ticket.number, 1)
    elif ticket.scenario == "ignored":
        with contextlib.suppress(ShopError):
            DESK.shop.refund_order(ticket.number, 100)
    return replace(DESK, task=task), ticket


def _type_of(input: Any) -> str:
    return str(input["task"])


if IS_FRAGILE:

    @app.agent("buyer", version=HANGS_IN, task=_type_of, idempotent=True)
    def fragile_buyer(task: stepstream.Task) -> None:
        buyer(*_begin(task))

else:

    @app.agent("buyer", version="v1", task=_type_of)
    def usual_buyer(task: stepstream.Task) -> None:
        buyer(*_begin(task))

    @app.agent("support", version="v12", task=_type_of)
    def support_agent(task: stepstream.Task) -> None:
        support(*_begin(task))

    @app.agent("helpdesk", version="v3", task=_type_of)
    async def helpdesk_agent(task: stepstream.Task) -> None:
        await helpdesk(*_begin(task))

    @app.agent("analyst", version="v7", task=_type_of)
    async def analyst_agent(task: stepstream.Task) -> None:
        await analyst(*_begin(task))


@atexit.register
def _report_counts() -> None:
    """What the SDK has sent by its own count; a killed process has none."""
    counts = DESK.tracer.counts
    found = {
        "delivered": counts.delivered,
        "lost": counts.dropped + counts.failed + counts.pending,
    }
    (FOLDER / f"{os.getpid()}.counts").write_text(json.dumps(found))
