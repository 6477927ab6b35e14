"""What a question is asked with: each parameter's type, default and check, without the store."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from stepstream.schemas.durations import parse_duration_us
from stepstream.schemas.suggestions import did_you_mean

Kind = Literal["time", "pattern", "text", "choice", "count", "number", "run"]

MAX_COUNT: Final = 100_000
_TIME_FORMAT: Final = "%Y-%m-%d %H:%M:%S.%f"
_RUN_ID: Final = re.compile(r"[0-9a-f]{1,32}")


class QuestionError(ValueError):
    """A question cannot be asked like this. The message names what is wrong and what to do."""


class Unanswerable(QuestionError):
    """The question is right, but the store has nothing to answer it with, such as no such run."""


class Ambiguous(Unanswerable):
    """Several runs have an id that begins as given."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a question.

    ``default`` is what is used where none is given; None: it has to be given.
    """

    name: str
    kind: Kind
    help: str
    default: Any = None
    choices: Mapping[str, str] | None = None
    """Of a choice: each word and the column that it stands for."""

    is_positional: bool = False
    """Whether the command line takes it as a word without its name."""

    @property
    def is_required(self) -> bool:
        return self.default is None


SINCE: Final = Parameter(
    "since", "time", "Only what began at or after this age (2h, 7d) or time.", "24h"
)
UNTIL: Final = Parameter("until", "time", "Only what began before this age or time.", "0s")
PROJECT: Final = Parameter("project", "pattern", "Only this project; may contain * and ?.", "*")
ENVIRONMENT: Final = Parameter("environment", "pattern", "Only this environment.", "*")
AGENT: Final = Parameter("agent", "pattern", "Only this agent.", "*")
RUN: Final = Parameter(
    "run", "run", "Id of the run, or a unique beginning of it.", is_positional=True
)
WINDOW: Final = (SINCE, UNTIL)
OWNER: Final = (PROJECT, ENVIRONMENT, AGENT)


def limit(default: int) -> Parameter:
    """The maximum number of rows."""
    return Parameter("limit", "count", "Maximum number of rows.", default)


def values_of(
    parameters: Sequence[Parameter], given: Mapping[str, Any], now: datetime
) -> dict[str, Any]:
    """The values of all parameters as ClickHouse takes them.

    ``now`` is what ages count from. Raises ``QuestionError`` for an unknown parameter, one that is
    missing, and a value that is none.
    """
    names = [parameter.name for parameter in parameters]
    for name in given:
        if name not in names:
            hint = did_you_mean(name, names, otherwise=f"it takes {', '.join(names)}")
            raise QuestionError(f"there is no parameter {name}: {hint}")
    values = {}
    for parameter in parameters:
        value = given.get(parameter.name)
        if value is None and parameter.is_required:
            raise QuestionError(f"{parameter.name} is missing: {parameter.help}")
        values[parameter.name] = _value(
            parameter, parameter.default if value is None else value, now
        )
    if "since" in values and "until" in values and values["since"] >= values["until"]:
        raise QuestionError(
            f"since ({values['since'][:19]}) is not before until ({values['until'][:19]})"
        )
    return values


def _value(parameter: Parameter, value: Any, now: datetime) -> Any:
    if parameter.kind == "time":
        return time_text(parse_time(parameter.name, value, now))
    if parameter.kind == "pattern":
        return like(_text(parameter, value))
    if parameter.kind in ("count", "number"):
        return _number(parameter, value)
    if parameter.kind == "run":
        return run_prefix(str(value))
    if parameter.kind == "choice":
        choices, word = parameter.choices or {}, str(value)
        if word not in choices:
            hint = did_you_mean(word, choices, otherwise=f"one of {', '.join(choices)}")
            raise QuestionError(f"{parameter.name} {word}: {hint}")
        return choices[word]
    return _text(parameter, value)


def _text(parameter: Parameter, value: Any) -> str:
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise QuestionError(f"{parameter.name} {text!a} is not text in UTF-8") from None
    return text


def _number(parameter: Parameter, value: Any) -> int | float:
    is_count = parameter.kind == "count"
    most = MAX_COUNT if is_count else math.inf
    try:
        number = int(value) if is_count else float(value)
    except (TypeError, ValueError, OverflowError):
        wanted = "a whole number" if is_count else "a number"
        raise QuestionError(f"{parameter.name} {value!r} is not {wanted}") from None
    if not 0 <= number <= most:
        raise QuestionError(f"{parameter.name} {value} is not between 0 and {most:,}")
    return number


def parse_time(name: str, value: Any, now: datetime) -> datetime:
    """The time of an age (``90s``, ``2h``), of a date or of a time, in UTC.

    A text without a zone is local time, a ``datetime`` without one is UTC.
    """
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    text = str(value)
    try:
        # An age first: no date or time is also a duration.
        return now - timedelta(microseconds=parse_duration_us(text))
    except (ValueError, OverflowError):
        pass
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(text)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        raise QuestionError(
            f"{name} {text}: write how long ago (90s, 2h, 7d) or a time (2026-03-01T12:00)"
        ) from None


def time_text(time: datetime) -> str:
    """A time in UTC as ClickHouse reads it, with microseconds."""
    return time.strftime(_TIME_FORMAT)


def like(pattern: str) -> str:
    """The SQL LIKE pattern of one with * and ?."""
    # A name may contain % and _, which LIKE takes as wildcards.
    escaped = re.sub(r"([\\%_])", r"\\\1", pattern)
    return escaped.replace("*", "%").replace("?", "_")


def run_prefix(text: str) -> str:
    """The beginning of a run id; other tools print the same id as a UUID, with hyphens."""
    wanted = text.strip().lower().replace("-", "")
    if not _RUN_ID.fullmatch(wanted):
        raise QuestionError(
            f"{text!r} is not a run id: ids have up to 32 hex digits; `stepstream runs` lists them"
        )
    return wanted
