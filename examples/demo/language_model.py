"""A stand-in for a language model: it plans by fixed rules, with a seed for wording and pace.

Its token counts follow the sizes of the texts, four characters to a token. It has the names of real
models, so that real prices apply.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

# careful; hasty: goes on after an error; stubborn: asks the same again; verbose: sends all texts.
Temper = Literal["careful", "hasty", "stubborn", "verbose"]

CHARACTERS_PER_TOKEN: Final = 4
STUBBORN_SEARCHES: Final = 5
VERBOSE_TURNS: Final = 4


@dataclass(frozen=True)
class Model:
    """A model's name and provider, as on a price list."""

    name: str
    provider: str


@dataclass(frozen=True)
class Ticket:
    """A task for an agent: its type, what the customer wrote, and what it is about."""

    scenario: str
    task: str
    text: str
    temper: Temper = "careful"
    subject: str = ""
    number: int = 0


@dataclass(frozen=True)
class Call:
    """A tool that the model wants called."""

    tool: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """A call that was made: what came back, or the error."""

    call: Call
    result: Any = None
    error: str = ""
    passing: bool = False  # a retry may succeed
    step_id: str = ""


@dataclass(frozen=True)
class Reply:
    """The model's reply: a tool call or an answer.

    ``gives_up`` is True if it could not do the task. ``seconds`` is the time that the reply takes.
    """

    text: str
    call: Call | None
    gives_up: bool
    input_tokens: int
    output_tokens: int
    seconds: float


class StandIn:
    """The stand-in. The same seed and prompts give the same replies. Thread-safe.

    ``pace`` scales the time of a reply; 0 is at once.
    """

    def __init__(self, seed: int, *, pace: float = 1.0) -> None:
        self._random = random.Random(seed)
        self._pace = pace
        self._lock = threading.Lock()

    def reply(self, prompt: str, ticket: Ticket, seen: Sequence[Seen]) -> Reply:
        """The next action for the ticket, after what was seen so far."""
        failed = next((one for one in seen[-1:] if one.error), None)
        if failed is not None and failed.passing and ticket.temper == "careful":
            return self._calling(
                prompt, failed.call, "That may have been bad luck. I will try it again."
            )
        if failed is not None and ticket.temper == "careful":
            return self._text(prompt, f"I cannot do this: {failed.error}.", gives_up=True)
        call = PLAYBOOK[ticket.task](ticket, seen)
        if call is not None:
            return self._calling(prompt, call, self._pick(_OPENINGS))
        return self._text(
            prompt, f"{self._pick(_GREETINGS)} {_answer(ticket, seen)} {self._pick(_CLOSINGS)}"
        )

    def _calling(self, prompt: str, call: Call, words: str) -> Reply:
        return self._made(
            prompt, f"{words}\n{call.tool}({json.dumps(call.arguments)})", call, False
        )

    def _text(self, prompt: str, words: str, *, gives_up: bool = False) -> Reply:
        return self._made(prompt, words, None, gives_up)

    def _made(self, prompt: str, text: str, call: Call | None, gives_up: bool) -> Reply:
        output_tokens = tokens(text)
        # The random generator is shared by all agents' threads.
        with self._lock:
            pace = self._pace * self._random.uniform(0.8, 1.3)
        return Reply(
            text,
            call,
            gives_up,
            tokens(prompt),
            output_tokens,
            pace * (0.06 + 0.002 * output_tokens),
        )

    def _pick(self, phrases: Sequence[str]) -> str:
        with self._lock:
            return self._random.choice(phrases)


def tokens(text: str) -> int:
    """Tokens of a text: a quarter of its characters, rounded up."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def _refund(ticket: Ticket, seen: Sequence[Seen]) -> Call | None:
    done = [one.call.tool for one in seen]
    if "search_help" not in done:
        return Call("search_help", {"question": ticket.text})
    if "lookup_order" not in done:
        return Call("lookup_order", {"order": ticket.number})
    if "refund_order" not in done:
        paid = next(
            (
                one.result["paid_cents"]
                for one in seen
                if one.call.tool == "lookup_order" and one.result
            ),
            0,
        )
        return Call("refund_order", {"order": ticket.number, "cents": paid})
    return None


def _tracking(ticket: Ticket, seen: Sequence[Seen]) -> Call | None:
    done = [one.call.tool for one in seen]
    if "lookup_order" not in done:
        return Call("lookup_order", {"order": ticket.number})
    if "track_parcel" not in done:
        parcel = next(
            (
                one.result["parcel"]
                for one in seen
                if one.call.tool == "lookup_order" and one.result
            ),
            "",
        )
        return Call("track_parcel", {"parcel": parcel})
    return None


def _question(ticket: Ticket, seen: Sequence[Seen]) -> Call | None:
    searches = len(seen)
    if ticket.temper == "stubborn" and searches < STUBBORN_SEARCHES:
        return Call("search_help", {"question": ticket.text})
    if ticket.temper == "verbose" and searches < VERBOSE_TURNS:
        return Call("search_help", {"question": f"{ticket.text} (reading on, part {searches + 1})"})
    return None if seen else Call("search_help", {"question": ticket.text})


def _restock(ticket: Ticket, seen: Sequence[Seen]) -> Call | None:
    done = [one.call.tool for one in seen]
    if "check_stock" not in done:
        return Call("check_stock", {"sku": ticket.subject})
    if "ask_supplier" not in done:
        return Call("ask_supplier", {"sku": ticket.subject})
    if "order_stock" not in done:
        return Call("order_stock", {"sku": ticket.subject, "quantity": 20})
    return None


REPORT_QUERIES: Final = (
    "SELECT sku, sum(quantity) AS sold, sum(paid_cents) AS cents FROM orders "
    "GROUP BY sku ORDER BY cents DESC",
    "SELECT count(*) AS refunds, coalesce(sum(cents), 0) AS cents FROM refunds",
    "SELECT customer, count(*) AS orders FROM orders "
    "GROUP BY customer ORDER BY orders DESC LIMIT 5",
)


def _report(ticket: Ticket, seen: Sequence[Seen]) -> Call | None:
    queries = len([one for one in seen if one.call.tool == "query_sales"])
    wanted = len(REPORT_QUERIES) if ticket.scenario == "slow" else 2
    if queries < wanted:
        return Call("query_sales", {"sql": REPORT_QUERIES[queries]})
    if ticket.scenario == "slow" and seen[-1].call.tool != "export_report":
        return Call("export_report", {"rows": sum(len(one.result or ()) for one in seen)})
    return None


PLAYBOOK: Final[dict[str, Callable[[Ticket, Sequence[Seen]], Call | None]]] = {
    "refund": _refund,
    "tracking": _tracking,
    "question": _question,
    "restock": _restock,
    "report": _report,
    # The next action by type of task; None if only the answer is left.
}


def _answer(ticket: Ticket, seen: Sequence[Seen]) -> str:
    last = seen[-1] if seen else None
    if ticket.task == "refund":
        return f"The refund for order {ticket.number} is on its way."
    if ticket.task == "question" and last is not None and last.result:
        return f'As to "{ticket.text}": {last.result[0]["content"][:220]}'
    if last is None or last.result is None:
        return "Everything is done."
    return f"This is what I found: {json.dumps(last.result)[:240]}"


_OPENINGS: Final = (
    "Let me check that first.",
    "I need one more fact for this.",
    "First things first.",
    "I will check this.",
)
_GREETINGS: Final = (
    "Hello, and thank you for waiting.",
    "Thank you for your message.",
    "Good news.",
)
_CLOSINGS: Final = (
    "Is there anything else?",
    "Just write again if something is unclear.",
    "Enjoy your coffee.",
)
