"""Single values as people read them."""

from __future__ import annotations

from datetime import UTC
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from stepstream.render.values import (
    clip,
    fit,
    folded,
    format_time,
    one_line,
    zone_name,
)


def test_a_time_names_the_zone_in_force_then() -> None:
    """Local time of a winter's run is winter time, whatever season it is read in."""
    berlin = ZoneInfo("Europe/Berlin")
    winter, summer = 1_772_366_587_000_000, 1_782_907_387_000_000
    assert (format_time(winter, berlin), zone_name(winter, berlin)) == (
        "2026-03-01 13:03:07",
        "CET",
    )
    assert (format_time(summer, berlin), zone_name(summer, berlin)) == (
        "2026-07-01 14:03:07",
        "CEST",
    )
    assert format_time(winter, UTC) == "2026-03-01 12:03:07"


def test_what_an_agent_wrote_cannot_steer_the_terminal() -> None:
    """Escape sequences, bells and line breaks are removed; letters of every script stay."""
    shown = one_line("a\x1b[2J\x07b\r\nc\u202ed 東京 é")
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "\n" not in shown
    assert "\u202e" not in shown
    assert "東京 é" in shown


@given(st.text(max_size=60), st.integers(0, 40))
def test_text_takes_the_cells_it_is_given(text: str, cells: int) -> None:
    """A column's text is exactly as wide as the column, wide characters included."""
    line = one_line(text)
    assert cell_len(fit(line, cells)) == cells
    assert cell_len(clip(line, cells)) <= cells


def test_a_text_with_very_many_characters_of_no_width() -> None:
    """Those after a character are kept with it, and each is not measured by itself."""
    marked = "a" * 50 + "\u0301" * 50_000
    text = marked + "b" * 200
    assert clip(text, 60) == marked + "b" * 9 + "…"
    assert folded(text, 60)[0] == marked + "b" * 10
    assert "".join(folded(text, 60)) == text
