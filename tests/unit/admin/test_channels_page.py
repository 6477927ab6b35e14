"""The page about channels is made from their classes."""

from __future__ import annotations

from stepstream.admin.channels_table import markdown
from stepstream.schemas.channels import CHANNELS
from tests.support.channel_cases import OWN_CHANNELS
from tests.support.paths import DOCS


def test_the_page_is_current() -> None:
    """After a change of a channel: python -m stepstream.admin.channels_table > docs/channels.md."""
    assert (DOCS / "channels.md").read_text(encoding="utf-8") == markdown()


def test_every_option_of_every_channel_is_described() -> None:
    """With its default, and a description unless the name is enough."""
    text = markdown()
    for name in OWN_CHANNELS:
        channel = CHANNELS.get(name)
        section = text.partition(f"## {name}\n")[2].partition("\n## ")[0]
        for option in channel.model_fields.keys() - {"timeout"}:
            assert f"| `{option}` |" in section
