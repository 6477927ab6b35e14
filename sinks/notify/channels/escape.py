"""Text of agents in the markup of each service: it shows as it is, and makes no link, mention or style of its own.

Only values are escaped, before they are put into a title or a text: the words around them are ours, or those of a
subscription's own template, whose author may want markup.
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
    """For Markdown (Discord, Teams): a backslash before every sign that may mean something; a line cannot begin a list."""
    return _MARKDOWN.sub(_backslashed, text)


def slack(text: str) -> str:
    """For Slack: its three characters as entities, so that nothing is a link, a mention or a command."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def apart(text: str) -> str:
    """For services whose rendering is not known: what links, mentions and tags begin with stands apart from what follows."""
    return _TAG.sub("< ", _AT_NAME.sub("@ ", text.replace("](", "] (")))


def no_mention(text: str) -> str:
    """For plain text in which names after ``@`` are still called."""
    return _AT_NAME.sub("@ ", text)


def shortened(text: str, longest: int) -> str:
    """The text within so many characters; a cut is shown, and no escape is cut in two."""
    if len(text) <= longest:
        return text
    kept = text[: longest - len(ELLIPSIS)]
    half = _HALF_ESCAPE.search(kept)
    if half is not None:
        kept = kept[: half.start()] if half[0].startswith("&") else kept[:-1]
    return f"{kept.rstrip()}{ELLIPSIS}"


def _backslashed(found: re.Match[str]) -> str:
    text = found[0]
    return f"{text}\\" if text[0].isdecimal() else f"\\{text}"
