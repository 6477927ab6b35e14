"""Documents that ``stepstream apply`` puts on the config topic.

Policies, subscriptions, prices, criteria and schedules.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from stepstream.schemas.alert import Severity
from stepstream.schemas.channels import Channel, channel_of, check_channel
from stepstream.schemas.criteria import Criteria
from stepstream.schemas.durations import DurationUs
from stepstream.schemas.policy import Policy
from stepstream.schemas.rule_base import Dollars, Glob
from stepstream.schemas.schedule import Schedule
from stepstream.schemas.task_queue import Queue
from stepstream.schemas.texts import LINK_FIELDS, TEXT_FIELDS, check_template
from stepstream.schemas.times import HOUR_US, MINUTE_US
from stepstream.schemas.unit_prices import LIST_UNITS, PER_THOUSAND
from stepstream.schemas.wording import Path, sentences

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]


Content = Literal["none", "redacted", "full"]
"""What alerts quote from steps: nothing, shortened and without secrets, or all of it."""


class AlertMatch(BaseModel):
    """A filter of alerts: every given field has to match; ``severity`` lists those that match."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    severity: tuple[Severity, ...] = ()
    alert: Glob = "*"
    rule: Glob = "*"
    project: Glob = "*"
    environment: Glob = "*"
    agent: Glob = "*"
    agent_version: Glob = "*"
    task: Glob = "*"
    user: Glob = "*"
    text: str = Field(
        "",
        max_length=200,
        description="a part of the message, the quotation, the likely cause or the subject; "
        "case is ignored",
    )


def _clock(text: str) -> str:
    hours, _, minutes = text.partition(":")
    # int() also accepts signs, spaces, underscores and digits of other scripts.
    are_digits = text.isascii() and hours.isdecimal() and minutes.isdecimal()
    if not (
        are_digits
        and len(hours) <= 2
        and len(minutes) == 2
        and int(hours) < 24
        and int(minutes) < 60
    ):
        raise ValueError(f"not a time of day: {text!r} (write 22:00)")
    return f"{int(hours):02}:{minutes}"


def _zone(text: str) -> str:
    # Not with zoneinfo: its files may be missing where a document is written.
    if not text or not all(
        part.replace("_", "").replace("-", "").replace("+", "").isalnum()
        for part in text.split("/")
    ):
        raise ValueError(f"not a time zone: {text!r} (write Europe/Berlin, UTC)")
    return text


Clock = Annotated[str, AfterValidator(_clock), Field(description="time of day, 22:00")]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class QuietHours(BaseModel):
    """A time of day in which notifications wait, except for the severities in ``but``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    begin: Clock
    end: Clock = Field(description="before ``begin``: on the next day")
    timezone: Annotated[str, AfterValidator(_zone)] = "UTC"
    days: tuple[Day, ...] = Field((), description="days on which it begins; empty: every day")
    but: tuple[Severity, ...] = Field(
        ("critical",), description="severities that are sent nevertheless"
    )


class RateLimit(BaseModel):
    """A number of notifications in a time. What exceeds it is sent together as soon as possible."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    notifications: int = Field(gt=0)
    per: DurationUs = MINUTE_US


def _title(text: str) -> str:
    return check_template(text, TEXT_FIELDS)


def _link(text: str) -> str:
    return check_template(text, LINK_FIELDS)


class Template(BaseModel):
    """Texts with ``{fields}`` of the alert in place of ours; an empty one is not used."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: Annotated[str, AfterValidator(_title)] = ""
    body: Annotated[str, AfterValidator(_title)] = Field(
        "", description="for each alert of a notification"
    )


GroupLabel = Literal[
    "project",
    "environment",
    "agent",
    "agent_version",
    "task",
    "alert",
    "rule",
    "severity",
    "subject",
    "trace_id",
]


class Subscription(BaseModel):
    """Which alerts are delivered, when, and through which channel (``to``).

    Without ``group_by`` every alert is a notification of its own, sent at once. With it, alerts
    with the same values in these fields are sent together: the first after ``group_wait``, changes
    after ``group_interval``. Alerts of different projects are never sent together. ``digest``
    collects all alerts and sends them once in that time.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    kind: Literal["Subscription"] = "Subscription"
    name: Name
    enabled: bool = True
    match: AlertMatch = AlertMatch()
    group_by: tuple[GroupLabel, ...] = ()
    group_wait: DurationUs | None = Field(None, description="default with group_by: 30s")
    group_interval: DurationUs | None = Field(None, description="default with group_by: 5m")
    repeat_interval: DurationUs | None = Field(
        None, description="send again what still fires; default: never"
    )
    digest: DurationUs | None = None
    send_resolved: bool = Field(
        True,
        description="send that an alert is resolved; one that was never sent is sent in any case",
    )
    send_updates: bool = Field(
        False, description="send every change, not only a higher severity and the end"
    )
    quiet_hours: QuietHours | None = None
    rate_limit: RateLimit | None = None
    retry_for: DurationUs = Field(
        6 * HOUR_US, description="how long a notification is tried before it is parked"
    )
    content: Content = Field(
        "redacted",
        description="what alerts quote from steps: nothing, a part without secrets, or all of it",
    )
    to: Annotated[dict[str, Any], AfterValidator(check_channel)] = Field(
        min_length=1, max_length=1, description="e.g. {webhook: {url: ...}}"
    )
    template: Template = Template()
    link_template: Annotated[str, AfterValidator(_link)] = Field(
        "", description="e.g. https://traces.example.org/{trace_id}; fields are URL-encoded"
    )

    _console_url: str = PrivateAttr("")

    @property
    def console_url(self) -> str:
        """The console that messages link to; empty without one. Not a part of the document."""
        return self._console_url

    def linked_to(self, console_url: str) -> Subscription:
        """The subscription with links to alerts and runs in the console, in place of a template."""
        base = console_url.rstrip("/")
        linked = self.model_copy(update={"link_template": f"{base}/alerts/{{alert_id}}"})
        linked._console_url = base
        return linked

    @property
    def channel(self) -> str:
        """The channel's name."""
        return next(iter(self.to))

    # `to` itself stays as it was written: a document that is read and written again is the same.

    @property
    def options(self) -> Channel:
        """The channel's options."""
        return channel_of(self.to)[1]

    @model_validator(mode="after")
    def _timing_fits(self) -> Subscription:
        if self.digest is not None and self.group_by:
            raise ValueError("digest sends all alerts together: leave out group_by")
        if not self.group_by and (self.group_wait or self.group_interval):
            raise ValueError(
                "group_wait and group_interval need group_by, the fields that alerts are grouped by"
            )
        return self


def _millions(amounts: dict[str, Dollars]) -> dict[str, Dollars]:
    return _known_units(amounts, [name for name in LIST_UNITS if name not in PER_THOUSAND])


def _thousands(amounts: dict[str, Dollars]) -> dict[str, Dollars]:
    return _known_units(amounts, [*PER_THOUSAND, "requests"])


def _known_units(amounts: dict[str, Dollars], known: Sequence[str]) -> dict[str, Dollars]:
    for name in amounts:
        if name not in known:
            raise ValueError(f"no such count: {name!r} (one of {', '.join(known)})")
    return amounts


class ModelPrice(BaseModel):
    """Unit prices of one model, in dollars, from a day on.

    It applies to the model that answered and to the one that was requested, with or without
    ``provider/`` before the name, and to dated snapshots of it without prices of their own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    provider: str = Field(
        "", description="the provider these prices are of; empty: every one that serves the model"
    )
    model: str
    service_tier: str = Field(
        "", description="e.g. flex, batch; empty: every tier without prices of its own here"
    )
    valid_from: date | None = None
    input_per_million: Dollars
    output_per_million: Dollars
    cached_input_per_million: Dollars | None = Field(None, description="default: the input price")
    cache_write_per_million: Dollars | None = Field(None, description="default: the input price")
    per_million: Annotated[dict[str, Dollars], AfterValidator(_millions)] = Field(
        default_factory=dict,
        description="prices of other counts of a step's usage, e.g. input_audio_tokens",
    )
    per_thousand: Annotated[dict[str, Dollars], AfterValidator(_thousands)] = Field(
        default_factory=dict,
        description="prices of web_searches, document_pages ... and of requests",
    )
    audio_per_hour: Dollars | None = Field(
        None, description="where transcription is charged by duration"
    )


class Prices(BaseModel):
    """Prices that replace those of the built-in list, or add to it.

    Of several prices of a model the newest ``valid_from`` not after the step's day applies.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["Prices"] = "Prices"
    name: Name
    models: tuple[ModelPrice, ...]


AnyDocument = Annotated[
    Policy | Subscription | Prices | Criteria | Queue | Schedule, Field(discriminator="kind")
]
DOCUMENT: TypeAdapter[Policy | Subscription | Prices | Criteria | Queue | Schedule] = TypeAdapter(
    AnyDocument
)


class WrongDocument(ValueError):
    """A document is invalid; the text has one sentence for each thing that is wrong."""


def _is_secret(path: Path) -> bool:
    """Whether the value at that path may be a secret: it is in the options of a channel."""
    return "to" in path


def document_of(data: Any) -> Policy | Subscription | Prices | Criteria | Queue | Schedule:
    """The document that plain data describe. Raises ``WrongDocument``."""
    try:
        return DOCUMENT.validate_python(data)
    except ValidationError as error:
        raise WrongDocument(sentences(error, AnyDocument, data, hidden=_is_secret)) from None


def subscription_of(data: Any) -> Subscription:
    """The subscription that plain data describe. Raises ``WrongDocument``."""
    try:
        return Subscription.model_validate(data)
    except ValidationError as error:
        raise WrongDocument(sentences(error, Subscription, data, hidden=_is_secret)) from None


def decode_document(
    value: bytes | str,
) -> Policy | Subscription | Prices | Criteria | Queue | Schedule:
    """The document in a record of the config topic. Raises ``WrongDocument``."""
    try:
        return DOCUMENT.validate_json(value)
    except ValidationError as error:
        raise WrongDocument(_wrong(error, value)) from None
    except (RecursionError, ValueError) as error:
        raise WrongDocument(f"not a document: {type(error).__name__}") from None


def _wrong(error: ValidationError, value: bytes | str) -> str:
    try:
        data = json.loads(value) if error.errors()[0]["type"] != "json_invalid" else None
        return sentences(error, AnyDocument, data, hidden=_is_secret)
    except Exception:  # pydantic reads JSON that json.loads refuses: a number of 5,000 digits
        return f"not a document: {error.errors(include_input=False, include_url=False)[0]['msg']}"


def match_of(fields: Mapping[str, Any]) -> AlertMatch:
    """The filter of alerts with these fields. Raises ``ValueError`` if one is invalid."""
    try:
        return AlertMatch.model_validate(fields)
    except ValidationError as error:
        raise ValueError(sentences(error, AlertMatch, fields)) from None


def document_key(document: Policy | Subscription | Prices | Criteria | Queue | Schedule) -> str:
    """The key on the config topic: ``policy/support-refunds``."""
    return f"{document.kind.lower()}/{document.name}"
