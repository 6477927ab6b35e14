"""The sentence about an alert or a finding, from its facts.

The same on the terminal, in notifications and on pages. Pure.
"""

from __future__ import annotations

from typing import Final

from stepstream.schemas.alert import Alert, AlertStruct, Finding, FindingStruct

_RUN_TOTALS: Final = frozenset({"usd", "tokens", "steps", "us"})
"""Units of amounts that grow as a run goes on: whether it has ended matters to a reader."""


def sentence(item: Alert | AlertStruct | Finding | FindingStruct) -> str:
    """What was found, and how far the run was then; of a resolved alert only what was found."""
    # The message may be empty in records of other programs.
    message = item.message or item.rule
    return message if item.state == "resolved" else f"{message}{_progress(item)}"


def with_quotation(message: str, quoted: str) -> str:
    """The message and, behind it, the text from a step that it is about."""
    return f'{message}: "{quoted}"' if quoted else message


def _progress(item: Alert | AlertStruct | Finding | FindingStruct) -> str:
    # The number of steps is not known of alerts read from the store, nor of older workers' records.
    if item.running:
        return f"; still running, step {item.run_steps}" if item.run_steps else "; still running"
    if item.run_steps and item.unit in _RUN_TOTALS:
        return f"; it ended after {item.run_steps} steps"
    return ""
