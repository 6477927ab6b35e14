"""docs/settings.md is made from the table of settings."""

from __future__ import annotations

from stepstream.admin.settings_table import markdown
from stepstream.schemas.settings import Settings, setting_info
from tests.support.paths import DOCS

PAGE = DOCS / "settings.md"


def test_the_page_is_current() -> None:
    """After a change of a setting: python -m stepstream.admin.settings_table > docs/settings.md."""
    assert PAGE.read_text(encoding="utf-8") == markdown()


def test_every_setting_is_on_the_page() -> None:
    """Each stands there with a meaning, each section has one heading."""
    text = markdown()
    for name, field in Settings.model_fields.items():
        assert f"| `{name}`<br>" in text
        assert str(field.description).endswith(".")
        assert text.count(f"\n## {setting_info(name).section}\n") == 1
