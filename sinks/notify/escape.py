"""Text of agents, escaped for the markup of each service: it makes no link, mention or style.

Only values are escaped, before they are put into a title or a text. The words around them are ours,
or those of a subscription's own template, whose author may want markup.
"""

from __future__ import annotations

import re
from typing import Final

from stepstream.sinks.notify.quoting import ELLIPSIS

_MARKDOWN: Final = re.compile(r"[\\`*_~|<>\[\](){}@:#&!]|^[-+=]|^[0-9]+(?=\.)")
_AT_NAME: Final = re.compile(r"@(?=\w)")
_TAG: Final = re.compile(r"<(?=[\w!@#/?])")
_HALF_ESCAPE: Final = re.compile(r"(?<!\\)(\\\\)*\\$|&[#\w]{0,6}$")


def markdown(text: str) -> str:
    """For Markdown (Discord, Teams): a backslash before every character that may have a meaning."""
    return _MARKDOWN.sub(_backslashed, text)


def slack(text: str) -> str:
    """For Slack: its three special characters as entities."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def apart(text: str) -> str:
    """For services whose markup is unknown: a space breaks links, mentions and tags."""
    return _TAG.sub("< ", _AT_NAME.sub("@ ", text.replace("](", "] (")))


def no_mention(text: str) -> str:
    """For plain text in which a name after ``@`` still is a mention."""
    return _AT_NAME.sub("@ ", text)


def shortened(text: str, max_chars: int) -> str:
    """The text in at most ``max_chars`` characters. A cut is marked and never splits an escape."""
    if len(text) <= max_chars:
        return text
    kept = text[: max_chars - len(ELLIPSIS)]
    half = _HALF_ESCAPE.search(kept)
    if half is not None:
        kept = kept[: half.start()] if half[0].startswith("&") else kept[:-1]
    return f"{kept.rstrip()}{ELLIPSIS}"


def _backslashed(found: re.Match[str]) -> str:
    text = found[0]
    return f"{text}\\" if text[0].isdecimal() else f"\\{text}"
