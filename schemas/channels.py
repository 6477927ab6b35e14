"""Channels: the ways in which a subscription's alerts reach people and programs, and the options of each.

A secret is never written into a document, because documents lie on a topic for everybody to read: ``env:NAME`` names a
variable of the notifier's environment, ``file:/path`` a file that it can read. Which ones is decided where the notifier
runs, not by whoever may write documents: variables with a prefix of their own or listed in a setting, files of one folder.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from stepstream.schemas.durations import DurationUs
from stepstream.schemas.settings import ENV_PREFIX, NOTIFY_SECRET_PREFIX
from stepstream.schemas.suggestions import did_you_mean
from stepstream.schemas.times import MINUTE_US
from stepstream.schemas.wording import sentences

_SECRET = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|file:/.+")
_URL = re.compile(r"https?://(?P<login>[^/?#@]*@)?[^/?#\s@]+([/?#]\S*)?", re.IGNORECASE)
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OURS: Final = frozenset(
    {"host", "content-length", "content-type", "transfer-encoding", "connection", "idempotency-key"}
)


def is_secret_ref(text: str) -> bool:
    """Whether the text names a secret instead of being one."""
    return _SECRET.fullmatch(text) is not None


def listed_variables(setting: str) -> frozenset[str]:
    """The variables that the setting ``notify_secret_variables`` lists."""
    return frozenset(name for name in setting.replace(",", " ").split())


def may_name(variable: str, listed: Collection[str]) -> bool:
    """Whether documents may name a variable. Variables of our own settings never, whatever is listed."""
    if variable.startswith(ENV_PREFIX):
        return variable.startswith(NOTIFY_SECRET_PREFIX)
    return variable in listed


def not_allowed(variable: str) -> str:
    """What is wrong with a variable that documents may not name, and what to do."""
    if variable.startswith(ENV_PREFIX):
        return f"env:{variable} is one of stepstream's own settings: put the secret into {NOTIFY_SECRET_PREFIX}..."
    return (
        f"env:{variable} is no variable that the notifier may read for a document: call it {NOTIFY_SECRET_PREFIX}{variable}, "
        f"or list it in the notifier's setting notify_secret_variables"
    )


def refused_variables(value: Any, listed: Collection[str]) -> list[str]:
    """What is wrong with each variable in a channel's options that documents may not name."""
    named = [ref.removeprefix("env:") for ref in secrets_in(value) if ref.startswith("env:")]
    return [not_allowed(name) for name in dict.fromkeys(named) if not may_name(name, listed)]


def _secret(text: str) -> str:
    if not is_secret_ref(text):
        raise ValueError(
            "a secret is not written into a document: name it as env:VARIABLE or file:/path/to/it"
        )
    return text


def _url(text: str) -> str:
    if is_secret_ref(text):
        return text
    found = _URL.fullmatch(text)
    if found is None:
        raise ValueError(
            "not a URL: write https://host/path, or env:VARIABLE or file:/path where it is a secret"
        )
    if found["login"]:
        raise ValueError(
            "a URL with a password in it is a secret: name it as env:VARIABLE or file:/path"
        )
    return text


def _headers(values: dict[str, str]) -> dict[str, str]:
    for name, value in values.items():
        if not _HEADER.fullmatch(name) or name.lower() in _OURS:
            raise ValueError(f"{name!r} is not a header that can be set")
        if name.lower() in (
            "authorization",
            "cookie",
            "proxy-authorization",
            "x-api-key",
        ) and not is_secret_ref(value):
            raise ValueError(
                f"the header {name} is a secret: name it as env:VARIABLE or file:/path"
            )
        if "\n" in value or "\r" in value:
            raise ValueError(f"the header {name} has a line break in it")
    return values


Secret = Annotated[str, AfterValidator(_secret), Field(description="env:VARIABLE or file:/path")]
Url = Annotated[
    str,
    AfterValidator(_url),
    Field(description="https://host/path, or env:VARIABLE, or file:/path"),
]
Timeout = Annotated[DurationUs, Field(le=120_000_000, description="how long one try may take")]
Text = Annotated[str, Field(min_length=1, max_length=500)]


class Channel(BaseModel):
    """What every channel has."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    timeout: Timeout = 10_000_000


class Webhook(Channel):
    """JSON over HTTP POST, signed where a secret is given."""

    url: Url
    secret: Secret = Field(
        "", validate_default=False, description="key of the signature: env:VARIABLE or file:/path"
    )
    headers: Annotated[dict[str, str], AfterValidator(_headers)] = Field(default_factory=dict)


class Alertmanager(Channel):
    """A Prometheus Alertmanager (API v2); firing alerts are sent again while they fire."""

    url: Url
    labels: dict[str, str] = Field(
        default_factory=dict, description="added to the labels of every alert"
    )
    resend: DurationUs = Field(MINUTE_US, description="how often a firing alert is sent again")


class Slack(Channel):
    """A Slack incoming webhook."""

    url: Secret


class Teams(Channel):
    """A Microsoft Teams workflow webhook."""

    url: Secret


class Discord(Channel):
    """A Discord webhook."""

    url: Secret


class Telegram(Channel):
    """A Telegram bot that writes to a chat."""

    token: Secret
    chat: Text


class PagerDuty(Channel):
    """PagerDuty Events API v2: one incident for each group, resolved with it."""

    routing_key: Secret
    eu: bool = Field(False, description="the account is in PagerDuty's European region")


class Opsgenie(Channel):
    """Opsgenie: an alert for each notification."""

    api_key: Secret
    eu: bool = Field(False, description="the account is in Opsgenie's European region")
    team: str = ""


class Email(Channel):
    """A mail over SMTP, encrypted."""

    host: Text
    port: int = Field(587, gt=0, le=65535)
    user: str = ""
    password: Secret = Field("", validate_default=False)
    sender: Text
    to: tuple[Text, ...] = Field(min_length=1)
    encryption: Annotated[str, Field(pattern="^(starttls|tls|none)$")] = "starttls"


class AppriseUrl(Channel):
    """Any service that the apprise library knows, by its URL."""

    url: Secret


class Command(Channel):
    """A program on the notifier's machine: the notification comes as JSON on its standard input; exit code 0 is a yes."""

    argv: tuple[Text, ...] = Field(
        min_length=1, description="the program and its arguments; no shell is involved"
    )


CHANNELS: Final[dict[str, type[Channel]]] = {
    "webhook": Webhook,
    "alertmanager": Alertmanager,
    "slack": Slack,
    "teams": Teams,
    "discord": Discord,
    "telegram": Telegram,
    "pagerduty": PagerDuty,
    "opsgenie": Opsgenie,
    "email": Email,
    "apprise": AppriseUrl,
    "command": Command,
}


def channel_of(to: dict[str, Any]) -> tuple[str, Channel]:
    """The channel that ``to`` names and its options, checked. Raises ``ValueError`` that says what is wrong."""
    name, options = next(iter(to.items()))
    model = CHANNELS.get(name)
    if model is None:
        raise ValueError(f"{name} is no channel; {did_you_mean(name, CHANNELS)}")
    try:
        return name, model.model_validate(options)
    except ValidationError as error:
        raise ValueError(
            sentences(error, model, options, hidden=lambda _path: True, under=name)
        ) from None


def check_channel(to: dict[str, Any]) -> dict[str, Any]:
    """``to`` as it was written, when it names a channel with options that can be."""
    if len(to) == 1:
        channel_of(to)
    return to


def secrets_in(value: Any) -> list[str]:
    """Every reference to a secret in a channel's options."""
    if isinstance(value, BaseModel):
        return [
            ref for name in type(value).model_fields for ref in secrets_in(getattr(value, name))
        ]
    if isinstance(value, dict):
        return [ref for part in value.values() for ref in secrets_in(part)]
    if isinstance(value, (list, tuple)):
        return [ref for part in value for ref in secrets_in(part)]
    return [value] if isinstance(value, str) and is_secret_ref(value) else []
