"""The demo's agents, its stand-in for a model, its plan and its own books, without a pipeline."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest

import stepstream
from examples.demo.agents import AGENTS, CannotHelp, Desk
from examples.demo.articles import ARTICLES
from examples.demo.language_model import StandIn, Ticket, tokens
from examples.demo.ledger import Account, Ledger, price
from examples.demo.scenarios import BY_NAME, POLICIES, SCENARIOS, plan
from examples.demo.search import Search
from examples.demo.shop import Shop
from stepstream.admin.documents import read_documents
from stepstream.producers.transport.memory import MemoryTransport
from stepstream.schemas.settings import Settings
from stepstream.schemas.step import StepEvent


@pytest.fixture
def transport() -> MemoryTransport:
    return MemoryTransport()


@pytest.fixture
def desk(transport: MemoryTransport, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A desk whose events stay in memory, with an export that does not take its time."""
    monkeypatch.setattr("examples.demo.agents.EXPORT_SECONDS", 0.01)
    tracer = stepstream.Tracer(Settings(project="shop", quiet=True), transport=transport)
    return Desk(tracer, Ledger(), Shop(7), Search(ARTICLES), StandIn(7, pace=0), threading.Event())


def work(desk: Desk, ticket: Ticket) -> Account:
    """Let the agent do the ticket, and return its account."""
    agent = AGENTS[ticket.task]
    try:
        result = agent(desk, ticket)
        if inspect.isawaitable(result):
            asyncio.run(_awaited(result))
    except CannotHelp:
        pass
    assert desk.tracer.flush(5)
    return desk.ledger.accounts[-1]


async def _awaited(result: Any) -> None:
    await result


def ticket_of(scenario: str) -> Ticket:
    return next(planned.ticket for planned in plan(7, 30) if planned.ticket.scenario == scenario)


@pytest.mark.parametrize(
    "scenario", [one.name for one in SCENARIOS if one.name not in ("hanging", "slow")]
)
def test_the_books_agree_with_what_the_sdk_sent(
    desk: Desk, transport: MemoryTransport, scenario: str
) -> None:
    """Events, steps, money and outcome in the ledger are those of the records, though neither knows
    of the other.
    """
    account = work(desk, ticket_of(scenario))
    events = transport.events
    ends = [event for event in events if event.phase == "end"]
    assert len(events) == account.events
    assert len(ends) == account.ended == account.started
    assert {event.trace_id for event in events} == {account.trace_id}
    assert sum((event.cost_usd or Decimal(0) for event in ends), Decimal(0)) == account.cost_usd
    assert sum(event.cost_source == "unpriced" for event in ends) == account.unpriced
    root = next(event for event in ends if not event.parent_step_id)
    assert (root.status, root.agent, root.task) == (account.status, account.agent, account.task)


def test_each_problem_is_in_the_events(desk: Desk, transport: MemoryTransport) -> None:
    """What a scenario is about can be seen in what its run sent."""

    def ends(scenario: str) -> list[StepEvent]:
        transport.records.clear()
        work(desk, ticket_of(scenario))
        return transport.ended

    desk.shop.refund_order(ticket_of("ignored").number, 100)
    desk.shop.fail_payments(ticket_of("retried").number, 1)
    ignored = [
        event for event in ends("ignored") if event.kind == "tool_call" and event.status == "error"
    ]
    assert [event.tool for event in ignored] == ["refund_order"]
    retried = [event for event in ends("retried") if event.tool == "refund_order"]
    assert [(event.attempt, event.status) for event in retried] == [(1, "error"), (2, "ok")]
    assert retried[1].retry_of == retried[0].step_id
    searches = Counter(event.input for event in ends("looping") if event.kind == "retrieval")
    assert max(searches.values()) >= 4
    found = [
        event.documents[0].score or 0 for event in ends("irrelevant") if event.kind == "retrieval"
    ]
    assert found
    assert max(found) < 2
    assert {event.model for event in ends("unpriced") if event.kind == "llm_call"} == {"acorn-7b"}
    usual = sum(event.cost_usd or 0 for event in ends("question"))
    assert sum(event.cost_usd or 0 for event in ends("overspending")) > 8 * usual


def test_the_same_seed_gives_the_same_runs() -> None:
    """A demo can be repeated; another seed is another demo."""
    assert plan(7, 30) == plan(7, 30)
    assert plan(7, 30) != plan(8, 30)


@pytest.mark.parametrize("seed", range(5))
def test_every_plan_has_every_problem(seed: int) -> None:
    """Whatever the seed, each kind of problem happens as often as it is meant to, and no order is
    used twice.
    """
    planned = plan(seed, 15)
    counts = Counter(one.ticket.scenario for one in planned)
    assert all(
        counts[scenario.name] == scenario.count for scenario in SCENARIOS if not scenario.share
    )
    orders = [one.ticket.number for one in planned if one.ticket.number]
    assert len(orders) == len(set(orders))
    assert [one.at for one in planned] == sorted(one.at for one in planned)


def test_the_stand_in_repeats_itself_for_the_same_seed_and_counts_by_size() -> None:
    """Tokens follow the texts; the wording follows the seed."""
    ticket = Ticket("question", "question", "How do I descale my espresso machine?")
    one, other = StandIn(1).reply("a prompt", ticket, []), StandIn(1).reply("a prompt", ticket, [])
    assert one == other
    assert (one.input_tokens, one.output_tokens) == (tokens("a prompt"), tokens(one.text))
    assert tokens("12345") == 2


def test_the_price_list_knows_the_models_it_should_and_no_other() -> None:
    """Costs are exact decimals of nano-dollars; an unknown model is unknown, not free."""
    assert price("openai", "gpt-4o", 1_000, 10) == Decimal("0.0026")
    assert price("in-house", "acorn-7b", 5, 5) is None


def test_the_policies_are_documents_that_can_be_applied(tmp_path: Any) -> None:
    """What the demo puts in force is what a person could write, and names the alerts that the
    scenarios expect.
    """
    file = tmp_path / "policies.yaml"
    file.write_text(POLICIES)
    names = {
        rule.alert_name
        for one in read_documents(file)
        for rule in getattr(one.document, "rules", ())
    }
    expected = {name for scenario in BY_NAME.values() for name in scenario.alerts}
    assert expected - {"loop", "tool-error-ignored", "unpriced-model", "repetition"} == names
