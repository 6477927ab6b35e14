"""A provider's usage export compared with the costs recorded here, per model and day."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from stepstream.queries.answer import Answer, Record, from_records
from stepstream.queries.parameters import QuestionError, like
from stepstream.queries.question import Rows, Values, rows_of
from stepstream.schemas.formatting import format_dollars

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

COST_CHECK: Final = "cost-check"

DAYS: Final = ("date", "day", "usage_date", "start_time", "timestamp", "time", "start_time_iso")
MODELS: Final = ("model", "model_name", "snapshot", "line_item", "model_version")
COSTS: Final = ("cost_usd", "cost", "amount", "amount_value", "cost (usd)", "spend", "total_cost")
MAX_ROWS: Final = 1_000_000
# An amount outside of these powers of ten is a mistake, and sums of such amounts may overflow.
EXPONENTS: Final = range(-30, 16)

_DATED: Final = re.compile(r"[-@]?(20\d{2})-?(\d{2})-?(\d{2})$|-latest$")


@dataclass(frozen=True, slots=True)
class Billed:
    """What a provider charged for a model on a day (UTC)."""

    day: date
    model: str
    cost_usd: Decimal


OURS: Final = """
SELECT toDate(time) AS day, model, sum(steps) AS steps, sum(cost_usd) AS usd,
    sum(unpriced_steps) AS unpriced_steps
FROM metrics_1h
WHERE time >= toDateTime({first:Date}, 'UTC') AND time < toDateTime({last:Date} + 1, 'UTC')
    AND provider LIKE {provider:String} AND model != ''
GROUP BY day, model"""
"""Our costs by day and model."""


def read_export(lines: Iterable[str]) -> list[Billed]:
    """The rows of a provider's usage export with a heading.

    Columns are found by their usual names; a time is cut to its day, a number of seconds is one.
    Raises ``QuestionError`` with the line number for a row that cannot be read.
    """
    reader = csv.DictReader(lines)
    try:
        return _billed_rows(reader)
    except csv.Error as error:
        raise QuestionError(f"after line {reader.line_num}: {error}") from None


def _billed_rows(reader: csv.DictReader[str]) -> list[Billed]:
    names = {name.strip().lower(): name for name in reader.fieldnames or () if name}
    day, model, cost = (
        _column(names, known, what)
        for known, what in ((DAYS, "a day"), (MODELS, "a model"), (COSTS, "a cost"))
    )
    found = []
    for row in reader:
        # Before anything is added up: the rows of a larger file would fill the memory.
        if reader.line_num > MAX_ROWS:
            raise QuestionError(f"the file has more than {MAX_ROWS:,} lines: split it by month")
        if any(row.values()):
            found.append(_billed(row, (day, model, cost), reader.line_num))
    if not found:
        raise QuestionError("the file has no rows")
    return found


def _column(names: Mapping[str, str], known: Sequence[str], what: str) -> str:
    for name in known:
        if name in names:
            return names[name]
    raise QuestionError(
        f"the file has no column with {what}: one of {', '.join(known)}; it has "
        f"{', '.join(names) or 'no heading'}"
    )


def _billed(row: Mapping[str, Any], columns: tuple[str, str, str], line: int) -> Billed:
    day, model, cost = (str(row[name] or "").strip() for name in columns)
    try:
        amount = Decimal(cost.replace("$", "").replace(",", "") or "0")
    except InvalidOperation:
        raise QuestionError(f"line {line}: {cost!r} is not a cost") from None
    if not amount.is_finite() or (amount and amount.adjusted() not in EXPONENTS):
        raise QuestionError(f"line {line}: {cost!r} is not a cost")
    return Billed(_day(day, line), model, amount)


def _day(text: str, line: int) -> date:
    try:
        if re.fullmatch(r"\d{9,13}", text):
            seconds = int(text) / (1_000 if len(text) > 11 else 1)
            return datetime.fromtimestamp(seconds, UTC).date()
        moment = datetime.fromisoformat(text)
        return (moment.astimezone(UTC) if moment.tzinfo else moment).date()
    except (ValueError, OverflowError):
        raise QuestionError(f"line {line}: {text!r} is not a day such as 2026-03-01") from None


def plain_model(model: str) -> str:
    """A model's name without its date or ``-latest``, and without the provider's name before it."""
    return _DATED.sub("", model.strip().lower().rpartition("/")[2])


def compared(billed: Sequence[Billed], ours: Sequence[Record]) -> list[Record]:
    """Both costs for each model and day that one of them has, the largest difference first."""
    sums: dict[tuple[date, str], Record] = {}

    def row(day: date, model: str) -> Record:
        return sums.setdefault(
            # Providers bill gpt-4o-2024-08-06, agents call gpt-4o: both are one row.
            (day, plain_model(model)),
            {"day": day, "model": plain_model(model), "billed_usd": Decimal(0),
             "our_usd": Decimal(0), "steps": 0, "unpriced_steps": 0},
        )  # fmt: skip

    for one in billed:
        row(one.day, one.model)["billed_usd"] += one.cost_usd
    for record in ours:
        known = row(record["day"], record["model"])
        known["our_usd"] += record["usd"]
        known["steps"] += record["steps"]
        known["unpriced_steps"] += record["unpriced_steps"]
    for known in sums.values():
        known["difference_usd"] = known["our_usd"] - known["billed_usd"]
        known["difference_share"] = (
            float(known["difference_usd"] / known["billed_usd"]) if known["billed_usd"] else None
        )
    return sorted(
        sums.values(), key=lambda one: (-abs(one["difference_usd"]), one["day"], one["model"])
    )


def cost_check(lines: Iterable[str], rows: Rows, provider: str = "%") -> Answer:
    """The answer for an export; ``provider`` is a LIKE pattern of the provider's name here."""
    billed = read_export(lines)
    values: Values = {
        "first": str(min(one.day for one in billed)),
        "last": str(max(one.day for one in billed)),
        "provider": provider,
    }
    found = compared(billed, rows(OURS, values))
    data = from_records(found, list(COLUMNS))
    return Answer(COST_CHECK, data, OURS.strip(), values, _sentence(found))


def cost_check_of_file(
    client: Client, csv: str | Path, provider: str = "*", timeout_s: float | None = None
) -> Answer:
    """The answer for the export in a file; ``provider`` is a pattern with * and ?.

    Raises ``QuestionError`` for a file that cannot be read or is no export.
    """
    try:
        # Exports from spreadsheets begin with a byte order mark, which would be a part of the
        # first heading.
        with Path(csv).open(newline="", encoding="utf-8-sig") as lines:
            return cost_check(lines, rows_of(client, timeout_s), like(provider))
    except (QuestionError, UnicodeDecodeError) as error:
        raise QuestionError(f"{csv}: {error}") from None
    except OSError as error:
        raise QuestionError(f"{csv} cannot be read: {error.strerror}") from None


COLUMNS: Final = {
    "day": "the day, UTC",
    "model": "the model, without date and provider in its name",
    "billed_usd": "what the export has",
    "our_usd": "what is recorded here",
    "difference_usd": "ours minus billed",
    "difference_share": "the difference as a part of what was billed",
    "steps": "model calls recorded here",
    "unpriced_steps": "of them those whose cost is unknown",
}


def _sentence(found: Sequence[Record]) -> str:
    billed = sum((row["billed_usd"] for row in found), Decimal(0))
    ours = sum((row["our_usd"] for row in found), Decimal(0))
    share = f" ({(ours - billed) / billed:+.1%})" if billed else ""
    text = f"Billed {format_dollars(billed)}, recorded {format_dollars(ours)}{share}."
    worst = found[0]
    if worst["difference_usd"]:
        text += (
            f" The largest difference is {worst['model']} on {worst['day']}: "
            f"{format_dollars(worst['difference_usd'])}."
        )
    return text
