"""The page about channels, made from their classes: python -m stepstream.admin.channels_table."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from pydantic.fields import FieldInfo

from stepstream.schemas.channels import CHANNELS, Channel
from stepstream.schemas.formatting import format_duration

PAGE = "docs/channels.md"
_INTRODUCTION = """\
# Channels

The channels that a subscription can use, with their options. This page is generated
(`python -m stepstream.admin.channels_table > {page}`).

Every channel has the option `timeout`, the time limit of one delivery attempt ({timeout}). A
secret is named, never written: `env:VARIABLE` or `file:/path` ([addresses and
secrets](subscriptions.md#addresses-and-secrets)). Other packages can add channels
([a channel of your own](subscriptions.md#a-channel-of-your-own)).
"""


def markdown() -> str:
    """The page: the project's own channels, sorted by name."""
    timeout = format_duration(Channel.model_fields["timeout"].default)
    parts = [_INTRODUCTION.format(page=PAGE, timeout=timeout)]
    for name, channel in CHANNELS.items():
        if channel.__module__.startswith("stepstream."):
            parts.append("\n".join(_section(name, channel)) + "\n")
    return "\n".join(parts)


def _section(name: str, channel: type[Channel]) -> Iterator[str]:
    yield f"## {name}\n"
    yield f"{inspect.cleandoc(channel.__doc__ or '')}\n".replace("``", "`")
    if channel.max_alerts is not None:
        yield f"At most {channel.max_alerts} alerts in one notification.\n"
    yield "| option | default | meaning |"
    yield "|---|---|---|"
    for option, field in channel.model_fields.items():
        if option != "timeout":
            yield f"| `{option}` | {_default(field)} | {_meaning(field)} |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default: Any = field.get_default(call_default_factory=True)
    if "Duration" in str(field.metadata) or (isinstance(default, int) and default >= 1_000_000):
        return format_duration(default)
    if isinstance(default, bool):
        return "yes" if default else "no"
    return f"`{default}`" if default not in ("", {}, ()) else ""


def _meaning(field: FieldInfo) -> str:
    return field.description or ""


if __name__ == "__main__":
    print(markdown(), end="")
