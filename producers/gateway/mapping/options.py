"""How spans, log records and steps are mapped."""

from __future__ import annotations

from typing import Final

import msgspec

from stepstream.producers.transport.redactor import Hook, hook_of
from stepstream.producers.user_ids import UserIds, user_ids_of
from stepstream.schemas.accept import Limits
from stepstream.schemas.capture import Capture
from stepstream.schemas.retention import record_limits
from stepstream.schemas.settings import Settings

BARE: Final = "bare"
KEEP: Final = "keep"
DROP: Final = "drop"
OTHER_SPANS: Final = (BARE, KEEP, DROP)
"""What becomes of spans that no convention knows (HTTP, SQL): their place in the tree, all of them,
or their place without the calls to databases, which have nothing below them.
"""


class Options(msgspec.Struct, frozen=True):
    """How spans are mapped."""

    max_content_bytes: int = 16_384
    content_bytes_by_kind: dict[str, int] = {}
    """Limits for some kinds of step, instead of ``max_content_bytes``."""
    other_spans: str = BARE
    environment: str = ""
    limits: Limits = Limits()
    redact: bool = True
    """Whether secrets are taken out of texts."""
    capture: Capture = msgspec.field(default_factory=Capture)
    """Which contents are sent."""
    user_ids: UserIds | None = None
    """Replaces user ids by hashes."""
    hook: Hook | None = None
    """Applied to every text after the redaction."""


def options_of(settings: Settings, *, other_spans: str = BARE) -> Options:
    """How the settings want it. Raises ``ValueError`` if there is no function ``redact_hook``."""
    return Options(
        max_content_bytes=settings.max_content_bytes,
        content_bytes_by_kind=settings.content_bytes_by_kind,
        capture=settings.content_capture,
        user_ids=user_ids_of(settings),
        hook=hook_of(settings),
        other_spans=other_spans,
        environment=settings.environment,
        limits=record_limits(settings),
    )
