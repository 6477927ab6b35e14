"""The page about settings is made from the table of settings."""

from __future__ import annotations

from stepstream.admin.settings_table import GROUPS, markdown
from stepstream.schemas.settings import Settings
from tests.support.paths import DOCS

PAGE = DOCS / "settings.md"


def test_the_page_is_current() -> None:
    """Whoever changes the table makes the page again: python -m stepstream.admin.settings_table > docs/settings.md."""
    assert PAGE.read_text(encoding="utf-8") == markdown()


def test_every_setting_stands_on_the_page_under_a_heading() -> None:
    """Names, defaults and meanings are all there; the groups begin at settings that exist."""
    text = markdown()
    assert all(
        f"| `{name}`<br>" in text and str(field.description)
        for name, field in Settings.model_fields.items()
    )
    assert set(GROUPS) <= Settings.model_fields.keys()
    assert next(iter(GROUPS)) == next(iter(Settings.model_fields))
