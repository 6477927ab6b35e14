"""Channels: the base class of all channels, their registry, and the option types that they use.

A channel is a subclass of ``Channel``: its fields are the options that a subscription sets, its
method ``send`` makes one delivery attempt. The project's own are the modules of
``stepstream.sinks.notify.channels``; other packages add theirs with the entry point group
``stepstream.channels``.

A document never contains a secret, because all readers of the config topic can read it.
It names one: ``env:NAME`` is an environment variable of the notifier, ``file:/path`` a file. The
operator of the notifier decides which of them a document may name: variables with a fixed prefix
or listed in a setting, and the files of one folder.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated, Any, ClassVar, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from stepstream.schemas.durations import DurationUs
from stepstream.schemas.extensions import Registry
from stepstream.schemas.settings import ENV_PREFIX, NOTIFY_SECRET_PREFIX
from stepstream.schemas.wording import sentences

_SECRET_REF = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|file:/.+")
_URL = re.compile(r"https?://(?P<login>[^/?#@]*@)?[^/?#\s@]+([/?#]\S*)?", re.IGNORECASE)
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_RESERVED_HEADERS: Final = frozenset(
    {"host", "content-length", "content-type", "transfer-encoding", "connection", "idempotency-key"}
)
_SECRET_HEADERS: Final = frozenset({"authorization", "cookie", "proxy-authorization", "x-api-key"})


def is_secret_ref(text: str) -> bool:
    """Whether the text refers to a secret: ``env:NAME`` or ``file:/path``."""
    return _SECRET_REF.fullmatch(text) is not None


def listed_variables(setting: str) -> frozenset[str]:
    """The variables that the setting ``notify_secret_variables`` lists."""
    return frozenset(name for name in setting.replace(",", " ").split())


def may_name(variable: str, listed: Collection[str]) -> bool:
    """Whether documents may name a variable. Our own settings never, even if they are listed."""
    if variable.startswith(ENV_PREFIX):
        return variable.startswith(NOTIFY_SECRET_PREFIX)
    return variable in listed


def not_allowed(variable: str) -> str:
    """The error for a variable that documents may not name."""
    if variable.startswith(ENV_PREFIX):
        return (
            f"env:{variable} is one of stepstream's own settings: "
            f"put the secret into {NOTIFY_SECRET_PREFIX}..."
        )
    return (
        f"env:{variable} is not a variable that documents may name: call it "
        f"{NOTIFY_SECRET_PREFIX}{variable}, or list it in the notifier's setting "
        f"notify_secret_variables"
    )


def refused_variables(value: Any, listed: Collection[str]) -> list[str]:
    """One error for each variable in a channel's options that documents may not name."""
    named = [ref.removeprefix("env:") for ref in secrets_in(value) if ref.startswith("env:")]
    return [not_allowed(name) for name in dict.fromkeys(named) if not may_name(name, listed)]


def _check_secret(text: str) -> str:
    if not is_secret_ref(text):
        raise ValueError(
            "a secret is not written into a document: name it as env:VARIABLE or file:/path/to/it"
        )
    return text


def _check_url(text: str) -> str:
    if is_secret_ref(text):
        return text
    found = _URL.fullmatch(text)
    if found is None:
        raise ValueError(
            "not a URL: write https://host/path, or env:VARIABLE or file:/path where it is a secret"
        )
    # Documents are readable by everyone who can read the config topic.
    if found["login"]:
        raise ValueError(
            "a URL with a password in it is a secret: name it as env:VARIABLE or file:/path"
        )
    return text


def _check_headers(values: dict[str, str]) -> dict[str, str]:
    for name, value in values.items():
        if not _HEADER.fullmatch(name) or name.lower() in _RESERVED_HEADERS:
            raise ValueError(f"{name!r} is not a header that can be set")
        if name.lower() in _SECRET_HEADERS and not is_secret_ref(value):
            raise ValueError(
                f"the header {name} is a secret: name it as env:VARIABLE or file:/path"
            )
        # A line break would add further headers (CWE-113).
        if "\n" in value or "\r" in value:
            raise ValueError(f"the header {name} has a line break in it")
    return values


Secret = Annotated[
    str, AfterValidator(_check_secret), Field(description="env:VARIABLE or file:/path")
]
Url = Annotated[
    str,
    AfterValidator(_check_url),
    Field(description="https://host/path, or env:VARIABLE, or file:/path"),
]
Headers = Annotated[
    dict[str, str], AfterValidator(_check_headers), Field(description="HTTP headers to add")
]
Timeout = Annotated[
    DurationUs, Field(le=120_000_000, description="time limit of one delivery attempt")
]
Text = Annotated[str, Field(min_length=1, max_length=500)]


class Channel(BaseModel):
    """The base class of all channels. Fields are options; the docs show the docstring.

    Register a subclass with ``@CHANNELS.register("name")``. A subscription selects it with
    ``to: {name: {option: value}}``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    max_alerts: ClassVar[int | None] = None
    """Alerts in one notification; the rest is sent in the next one. None: all of them."""
    hosts: ClassVar[dict[str, str]] = {}
    """Base URLs of services with a fixed address, by the name that ``context.host`` takes."""

    timeout: Timeout = 10_000_000

    def resend_us(self) -> int:
        """Interval after which a firing alert is sent again without being asked; 0: never.

        Only for systems that resolve an alert by themselves when it is not sent again.
        """
        return 0

    def send(self, notification: Any, subscription: Any, context: Any) -> str:
        """Make one delivery attempt. Returns the answer of the other side, for the log.

        Args:
            notification: a ``stepstream.sinks.notify.grouping.Notification``.
            subscription: the ``Subscription``.
            context: a ``stepstream.sinks.notify.channel.ChannelContext``.

        Raises:
            Refused: the other side will never accept it; it is not tried again.
            TemporaryFailure: it is tried again.
        """
        raise NotImplementedError(f"the channel {type(self).__name__} does not define send")


CHANNELS: Final[Registry[type[Channel]]] = Registry(
    "channel", group="stepstream.channels", packages=("stepstream.sinks.notify.channels",)
)


def channel_of(to: dict[str, Any]) -> tuple[str, Channel]:
    """The name of the channel that ``to`` selects, and its options.

    Raises:
        ValueError: the channel or an option is unknown, or a value is invalid.
    """
    name, options = next(iter(to.items()))
    model = CHANNELS.find(name)
    if model is None:
        raise ValueError(CHANNELS.unknown(name))
    try:
        return name, model.model_validate(options)
    except ValidationError as error:
        raise ValueError(
            sentences(error, model, options, hidden=lambda _path: True, under=name)
        ) from None


def check_channel(to: dict[str, Any]) -> dict[str, Any]:
    """``to`` unchanged. Raises ``ValueError`` as ``channel_of`` does."""
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
