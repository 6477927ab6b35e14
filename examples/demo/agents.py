"""The demo's agents: programs that call a model and tools, and record it with the public SDK.

In ``with run.tool(...) as step, account.step():`` the first part is the SDK's step, the second one
the demo's own bookkeeping, which an agent of yours does not need.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import stepstream
from examples.demo.articles import ARTICLES
from examples.demo.language_model import Call, Model, Reply, Seen, StandIn, Ticket
from examples.demo.ledger import Account, Ledger
from examples.demo.search import Hit, Search
from examples.demo.shop import PaymentServiceAway, Shop, ShopError

MODELS: Final[dict[str, Model]] = {
    "support": Model("gpt-4o", "openai"),
    "helpdesk": Model("claude-sonnet-4-5", "anthropic"),
    "buyer": Model("gpt-4.1-mini", "openai"),
    "price-scout": Model("gpt-4o-mini", "openai"),
    "analyst": Model("gemini-2.5-flash", "google"),
}
# A made-up model that is on no price list.
UNPRICED: Final = Model("acorn-7b", "in-house")
EXPORT_SECONDS: Final = 4.0
VERBOSE_COPIES: Final = 1


class CannotHelp(Exception):
    """The agent gave up; the run ends with this error."""


@dataclass(frozen=True)
class Desk:
    """What the agents use. ``never`` is never set: waiting for it hangs.

    ``task`` is the task that the agent works on; its run is open already.
    """

    tracer: stepstream.Tracer
    ledger: Ledger
    shop: Shop
    search: Search
    model: StandIn
    never: threading.Event
    task: stepstream.Task | None = None

    def run(self, **fields: Any) -> Any:
        """The run of the attempt or, where there is no task, a new run."""
        return self.tracer.run(**fields) if self.task is None else nullcontext(self.task.run)

    @property
    def tools(self) -> dict[str, Callable[..., Any]]:
        """The tools by the names that the model knows. They raise ``ShopError``."""
        shop = self.shop
        return {
            "lookup_order": shop.lookup_order,
            "refund_order": shop.refund_order,
            "track_parcel": shop.track_parcel,
            "query_sales": shop.query_sales,
            "export_report": _export_report,
        }


def support(desk: Desk, ticket: Ticket) -> None:
    """Refunds and parcels. A plain loop: plan, call a tool, read its result, until the answer."""
    with ExitStack() as stack:
        run = stack.enter_context(
            desk.run(
                agent="support",
                agent_version="v12",
                task=ticket.task,
                user_id=ticket.subject,
                input=ticket.text,
            )
        )
        account = stack.enter_context(
            desk.ledger.run(run.trace_id, ticket.scenario, "support", ticket.task)
        )
        seen: list[Seen] = []
        while True:
            reply = think(desk, run, account, MODELS["support"], ticket, seen)
            if reply.call is None:
                break
            seen.append(act(desk, run, account, reply.call, seen))
        answer(run, account, reply)


async def helpdesk(desk: Desk, ticket: Ticket) -> None:
    """Questions, answered from the help articles. Asynchronous: two searches in parallel."""
    async with desk.run(
        agent="helpdesk", agent_version="v3", task=ticket.task, input=ticket.text
    ) as run:
        with desk.ledger.run(run.trace_id, ticket.scenario, "helpdesk", ticket.task) as account:
            seen: list[Seen] = []
            while True:
                reply = await think_async(desk, run, account, MODELS["helpdesk"], ticket, seen)
                if reply.call is None:
                    break
                question = reply.call.arguments["question"]
                found = [search_help_async(desk, run, account, question)]
                # The second search runs in parallel, so that the trace shows two branches.
                if ticket.temper == "careful":
                    found.append(search_help_async(desk, run, account, f"{question} what to do"))
                hits = await asyncio.gather(*found)
                seen.append(Seen(reply.call, hits[0]))
            answer(run, account, reply)


def buyer(desk: Desk, ticket: Ticket) -> None:
    """Buys stock. Its tools are decorated functions, and another agent compares prices for it."""

    @desk.tracer.tool
    def check_stock(sku: str) -> dict[str, Any]:
        return desk.shop.check_stock(sku)

    @desk.tracer.tool
    def order_stock(sku: str, quantity: int) -> dict[str, Any]:
        return desk.shop.order_stock(sku, quantity)

    @desk.tracer.tool
    def ask_supplier(sku: str) -> dict[str, Any]:
        # This run never ends: the worker must report the hung step while it waits.
        if ticket.scenario == "hanging":
            desk.never.wait()
        time.sleep(0.05)
        return {"sku": sku, "available": True}

    tools: dict[str, Callable[..., Any]] = {
        "check_stock": check_stock,
        "order_stock": order_stock,
        "ask_supplier": ask_supplier,
    }
    with (
        desk.run(agent="buyer", agent_version="v1", task=ticket.task, input=ticket.text) as run,
        desk.ledger.run(run.trace_id, ticket.scenario, "buyer", ticket.task) as account,
    ):
        seen: list[Seen] = []
        while (reply := think(desk, run, account, MODELS["buyer"], ticket, seen)).call is not None:
            with account.step():
                seen.append(Seen(reply.call, tools[reply.call.tool](**reply.call.arguments)))
            if reply.call.tool == "check_stock":
                compare_prices(desk, account, ticket)
        answer(run, account, reply)


def compare_prices(desk: Desk, account: Account, ticket: Ticket) -> None:
    """An agent inside a run: its steps belong to the run that called it."""
    with desk.tracer.run("price-scout", input=ticket.subject) as scout, account.step():
        think(desk, scout, account, MODELS["price-scout"], ticket, [])


async def analyst(desk: Desk, ticket: Ticket) -> None:
    """Reports from the shop's database, by SQL."""
    model = UNPRICED if ticket.scenario == "unpriced" else MODELS["analyst"]
    async with desk.run(
        agent="analyst", agent_version="v7", task=ticket.task, input=ticket.text
    ) as run:
        with desk.ledger.run(run.trace_id, ticket.scenario, "analyst", ticket.task) as account:
            seen: list[Seen] = []
            while True:
                reply = await think_async(desk, run, account, model, ticket, seen)
                if reply.call is None:
                    break
                # The tools block, so they run in a thread; its context has the current step.
                seen.append(await asyncio.to_thread(act, desk, run, account, reply.call, seen))
                await asyncio.sleep(1.0 if ticket.scenario == "slow" else 0.05)
            answer(run, account, reply)


# The agent for each type of task.
AGENTS: Final[dict[str, Callable[[Desk, Ticket], Any]]] = {
    "refund": support,
    "tracking": support,
    "question": helpdesk,
    "restock": buyer,
    "report": analyst,
}


def think(
    desk: Desk,
    run: stepstream.Step,
    account: Account,
    model: Model,
    ticket: Ticket,
    seen: Sequence[Seen],
) -> Reply:
    """Ask the model for the next action, and wait as long as it would take."""
    prompt = write_prompt(ticket, seen)
    with (
        run.llm("plan", model=model.name, provider=model.provider, input=prompt) as step,
        account.step(),
    ):
        reply = desk.model.reply(prompt, ticket, seen)
        time.sleep(reply.seconds)
        _record(step, account, model, reply)
    return reply


async def think_async(
    desk: Desk,
    run: stepstream.Step,
    account: Account,
    model: Model,
    ticket: Ticket,
    seen: Sequence[Seen],
) -> Reply:
    """As ``think``, without blocking the event loop."""
    prompt = write_prompt(ticket, seen)
    async with run.llm("plan", model=model.name, provider=model.provider, input=prompt) as step:
        with account.step():
            reply = desk.model.reply(prompt, ticket, seen)
            await asyncio.sleep(reply.seconds)
            _record(step, account, model, reply)
    return reply


def _record(step: stepstream.Step, account: Account, model: Model, reply: Reply) -> None:
    step.set_output(reply.text)
    step.set_usage(input_tokens=reply.input_tokens, output_tokens=reply.output_tokens)
    account.spent(model.provider, model.name, reply.input_tokens, reply.output_tokens)


def act(
    desk: Desk, run: stepstream.Step, account: Account, call: Call, seen: Sequence[Seen]
) -> Seen:
    """Call the tool that the model chose. An error is recorded and returned to the model."""
    if call.tool == "search_help":
        return Seen(call, search_help(desk, run, account, call.arguments["question"]))
    # The same call again is a retry: it names the step that it repeats.
    tries = [one.step_id for one in seen if one.call == call]
    again: dict[str, Any] = {"attempt": 1 + len(tries), "retry_of": tries[-1]} if tries else {}
    try:
        with run.tool(call.tool, input=call.arguments, **again) as step, account.step():
            result = desk.tools[call.tool](**call.arguments)
            step.set_output(result)
            return Seen(call, result)
    except ShopError as error:
        return Seen(
            call,
            error=str(error),
            passing=isinstance(error, PaymentServiceAway),
            step_id=step.step_id,
        )


def search_help(
    desk: Desk, run: stepstream.Step, account: Account, question: str
) -> list[dict[str, Any]]:
    """Search the help articles."""
    with run.retrieval("search_help", input=question) as step, account.step():
        return _record_hits(step, desk.search.find(question))


async def search_help_async(
    desk: Desk, run: stepstream.Step, account: Account, question: str
) -> list[dict[str, Any]]:
    """As ``search_help``, with the delay of a network."""
    async with run.retrieval("search_help", input=question) as step:
        with account.step():
            await asyncio.sleep(0.03)
            return _record_hits(step, desk.search.find(question))


def _record_hits(step: stepstream.Step, hits: Sequence[Hit]) -> list[dict[str, Any]]:
    step.set_documents(
        [stepstream.Document(id=hit.id, score=hit.score, content=hit.content) for hit in hits]
    )
    return [{"id": hit.id, "content": hit.content} for hit in hits]


def answer(run: stepstream.Step, account: Account, reply: Reply) -> None:
    """Send the answer to the customer, or give up."""
    if reply.gives_up:
        raise CannotHelp(reply.text)
    with run.step("output", "answer") as step, account.step():
        step.set_output(reply.text)
    run.set_output(reply.text)


def write_prompt(ticket: Ticket, seen: Sequence[Seen]) -> str:
    """The prompt: the model's role, the task, and what happened so far."""
    parts = [_ROLE, f"Task: {ticket.task}\nCustomer: {ticket.text}"]
    if ticket.temper == "verbose":
        parts += list(ARTICLES.values()) * (VERBOSE_COPIES * (1 + len(seen)))
    for one in seen:
        came_back = f"ERROR: {one.error}" if one.error else json.dumps(one.result)
        parts.append(
            f"You called {one.call.tool}({json.dumps(one.call.arguments)})\n"
            f"It returned: {came_back}"
        )
    return "\n\n".join(parts)


def _export_report(rows: int) -> dict[str, Any]:
    """A report server that takes its time."""
    time.sleep(EXPORT_SECONDS)
    return {"rows": rows, "file": "report.csv"}


_ROLE: Final = (
    "You work for a small shop that sells coffee, grinders and espresso machines. Be brief and "
    "friendly. Use the tools that you are given, one at a time, and never promise what a tool has "
    "not confirmed. When everything is done, answer the customer in three sentences at most. If "
    "you cannot help, answer with that."
)
