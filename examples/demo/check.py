"""Compares what was sent with what is stored: events, costs, runs, and alerts by scenario."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from statistics import median
from typing import TYPE_CHECKING, Any

from examples.demo.ledger import Account
from examples.demo.scenarios import BY_NAME, FOREIGN
from stepstream.admin import deadletter
from stepstream.cli.queries import records
from stepstream.schemas.settings import Settings

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client


@dataclass(frozen=True)
class Sent:
    """What the demo did, by its own bookkeeping and by the SDK's counts.

    ``received`` are the alerts by id and seq, as they arrived over the subscription.
    """

    accounts: Sequence[Account]
    delivered: int
    lost: int
    repeats: int
    malformed: int
    late: int
    received: frozenset[tuple[str, int]]
    crashes: Sequence[str] = ()
    killed: str = ""
    tasks: int = 0
    repeated: int = 0


@dataclass(frozen=True)
class Stored:
    """What ClickHouse has for each run, and the dead-letter topic for each reason."""

    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    row_costs: dict[str, Decimal] = field(default_factory=dict)
    open_rows: dict[str, int] = field(default_factory=dict)
    alerts: dict[str, frozenset[str]] = field(default_factory=dict)
    alert_events: frozenset[tuple[str, int]] = frozenset()
    letters: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """The result of one comparison."""

    good: bool
    text: str
    problems: Sequence[str] = ()


def read_stored(client: Client, settings: Settings) -> Stored:
    """Read the public views of ClickHouse, and the dead-letter topic."""
    rows = records(
        client,
        "SELECT trace_id, count() AS n, sum(ifNull(cost_usd, 0)) AS usd "
        "FROM steps GROUP BY trace_id",
    )
    opened = records(client, "SELECT trace_id, count() AS n FROM open_steps GROUP BY trace_id")
    alerts: dict[str, set[str]] = defaultdict(set)
    for row in records(client, "SELECT trace_id, alert FROM alerts"):
        alerts[row["trace_id"]].add(row["alert"])
    events = records(client, "SELECT alert_id, seq FROM alert_events")
    return Stored(
        runs={
            row["trace_id"]: row
            # Paths are large, and no comparison uses them.
            for row in records(client, "SELECT * EXCEPT (path, path_json) FROM runs")
        },
        rows={row["trace_id"]: row["n"] for row in rows},
        row_costs={row["trace_id"]: row["usd"] for row in rows},
        open_rows={row["trace_id"]: row["n"] for row in opened},
        alerts={trace_id: frozenset(names) for trace_id, names in alerts.items()},
        alert_events=frozenset((row["alert_id"], row["seq"]) for row in events),
        letters=dict(Counter(letter.reason for letter in deadletter.read(settings))),
    )


def compare(sent: Sent, stored: Stored) -> list[Verdict]:
    """All comparisons."""
    accounts = sent.accounts
    # The foreign program writes to Kafka without the SDK, which does not count its events; the
    # count of the killed executor has died with it.
    own = [
        account
        for account in accounts
        if account.scenario != FOREIGN.name and (account.executor != sent.killed or not sent.killed)
    ]
    return [
        _agents(sent),
        _counted(
            "events acknowledged by Kafka, by the SDK's count in executors that were not killed",
            sum(a.events for a in own),
            sent.delivered,
            sent.lost,
        ),
        _each(
            "runs",
            accounts,
            lambda a: (a.trace_id in stored.runs, True),
            f"{len(accounts)} runs, each with its row",
        ),
        _each(
            "events merged",
            accounts,
            # A revision is twice the number of merged events, plus one for the close.
            lambda a: (_run(stored, a).get("revision", 0) // 2, a.events),
            f"{sum(a.events for a in accounts):,} events, each merged into its run once",
        ),
        _each(
            "rows of steps",
            accounts,
            lambda a: (stored.rows.get(a.trace_id, 0), a.ended),
            f"{sum(a.ended for a in accounts):,} steps ended, each one row",
        ),
        _each(
            "rows of open_steps",
            accounts,
            lambda a: (stored.open_rows.get(a.trace_id, 0), a.open),
            f"{sum(a.open for a in accounts):,} steps still open, each one row of open_steps",
        ),
        _each(
            "steps of the run",
            accounts,
            lambda a: (_run(stored, a).get("steps", 0), a.started),
            f"{sum(a.started for a in accounts):,} steps in all, as the runs count them",
        ),
        _each(
            "cost of its steps, cost of the run",
            accounts,
            lambda a: (
                (
                    stored.row_costs.get(a.trace_id, Decimal(0)),
                    _run(stored, a).get("cost_usd", Decimal(0)),
                ),
                (a.cost_usd, a.cost_usd),
            ),
            f"${sum((a.cost_usd for a in accounts), Decimal(0)):f} spent, "
            "to the nano-dollar, by steps and by runs",
        ),
        _each(
            "unpriced steps",
            accounts,
            lambda a: (_run(stored, a).get("unpriced_steps", 0), a.unpriced),
            f"{sum(a.unpriced for a in accounts)} steps of a model without a price: "
            "unknown, not free",
        ),
        _each(
            "status",
            accounts,
            lambda a: (_run(stored, a).get("status", ""), a.status),
            _statuses(accounts),
        ),
        _noise(sent, stored),
        _letters(sent, stored),
        _expected_alerts(accounts, stored),
        _counted(
            "changes of alerts stored, as received over the subscription",
            len(sent.received),
            len(stored.alert_events),
        ),
    ]


def _run(stored: Stored, account: Account) -> dict[str, Any]:
    return stored.runs.get(account.trace_id, {})


def _agents(sent: Sent) -> Verdict:
    problems = list(sent.crashes)
    if sent.killed and sent.repeated != 1:
        problems.append(f"{sent.repeated} tasks were done again, not 1")
    return Verdict(
        not problems,
        f"{sent.tasks} tasks ended as planned; that of the killed executor was done by another one",
        problems,
    )


def _counted(what: str, made: int, found: int, lost: int = 0) -> Verdict:
    # Lost events are a problem even if the counts agree.
    problems = [f"{made:,} were made, {found:,} were found"] if made != found else []
    problems += [f"{lost:,} were dropped or not acknowledged"] if lost else []
    return Verdict(not problems, f"{made:,} {what}", problems)


def _each(what: str, accounts: Iterable[Account], pair: Any, text: str) -> Verdict:
    problems = []
    for account in accounts:
        found, wanted = pair(account)
        if found != wanted:
            problems.append(
                f"{account.scenario} {account.trace_id[:8]}: {what}: "
                f"{_plain(found)}, not {_plain(wanted)}"
            )
    return Verdict(not problems, text, problems)


def _plain(value: Any) -> str:
    return " and ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _statuses(accounts: Iterable[Account]) -> str:
    counts = Counter(account.status for account in accounts)
    return "runs ended as their agents did: " + ", ".join(
        f"{counts[name]} {name}" for name in sorted(counts, key=str)
    )


def _noise(sent: Sent, stored: Stored) -> Verdict:
    found = [
        sum(row[name] for row in stored.runs.values()) for name in ("duplicates", "late_steps")
    ]
    wanted = [sent.repeats, sent.late]
    problems = (
        [f"{found[0]} repeats and {found[1]} late steps were counted"] if found != wanted else []
    )
    return Verdict(
        not problems,
        f"{wanted[0]} repeated events counted once, {wanted[1]} late step added to its run",
        problems,
    )


def _letters(sent: Sent, stored: Stored) -> Verdict:
    wanted = {"malformed_json": sent.malformed} if sent.malformed else {}
    problems = (
        [f"the dead letter has {stored.letters or 'nothing'}"] if stored.letters != wanted else []
    )
    return Verdict(
        not problems,
        f"{sent.malformed} malformed record in the dead letter, with its reason",
        problems,
    )


def _expensive(stored: Stored) -> set[str]:
    """The runs that cost at least three times the median."""
    middle = median(stored.row_costs.values()) if stored.row_costs else 0
    return {trace_id for trace_id, usd in stored.row_costs.items() if usd >= 3 * middle}


def _expected_alerts(accounts: Iterable[Account], stored: Stored) -> Verdict:
    problems, raised = [], 0
    expensive = _expensive(stored)
    for account in accounts:
        wanted, found = (
            BY_NAME[account.scenario].alerts,
            stored.alerts.get(account.trace_id, frozenset()),
        )
        raised += len(found)
        if account.trace_id in expensive:
            # Correct, but not certain: it depends on how many runs had ended by then.
            found -= {"run-cost-spike"}
        problems += [
            f"{account.scenario} {account.trace_id[:8]}: no alert {name}"
            for name in sorted(wanted - found)
        ]
        problems += [
            f"{account.scenario} {account.trace_id[:8]}: unexpected alert {name}"
            for name in sorted(found - wanted)
        ]
    return Verdict(
        not problems,
        f"{raised} alerts: each problem raised its own, and nothing else raised any",
        problems,
    )
