"""A console of rich for text that comes from agents."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from stepstream.schemas.printable import printable


class SafeConsole(Console):
    """Strings are text, not markup, wherever they stand; every segment is made printable before it is written."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"highlight": False, **options, "markup": False, "emoji": False})

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """What ``renderable`` is made of; control segments are rich's own (cursor, live pictures)."""
        for segment in super().render(renderable, options):
            if segment.control is None and (clean := printable(segment.text)) != segment.text:
                yield Segment(clean, segment.style)
            else:
                yield segment
