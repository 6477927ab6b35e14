"""A rich console for texts of agents."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from stepstream.schemas.printable import printable


class SafeConsole(Console):
    """Interprets no markup in strings, and replaces control characters in every segment."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"highlight": False, **options, "markup": False, "emoji": False})

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """The segments of ``renderable``, without control characters in their texts."""
        # Control segments (cursor, live display) are made by rich itself and contain no text.
        for segment in super().render(renderable, options):
            if segment.control is None and (clean := printable(segment.text)) != segment.text:
                yield Segment(clean, segment.style)
            else:
                yield segment
