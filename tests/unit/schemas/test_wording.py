"""Errors in written documents: a sentence with path and suggestion, without pydantic's words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stepstream.schemas.documents import WrongDocument, decode_document, match_of, subscription_of
from stepstream.schemas.suggestions import did_you_mean

# Words of the library that must not reach users.
FOREIGN = (
    "pydantic",
    "http",
    "Input",
    "Value error",
    "Field required",
    "Extra inputs",
    "validation",
    "type=",
)


def subscription(**fields: Any) -> dict[str, Any]:
    """A subscription with some fields otherwise."""
    return {"name": "a", "to": {"slack": {"url": "env:URL"}}} | fields


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"match": {"agnt": "x"}}, "match.agnt is unknown; did you mean agent?"),
        ({"mtch": {}}, "mtch is unknown; did you mean match?"),
        ({"to": {"slack": {}}}, "to: slack.url is missing"),
        ({"to": {"slack": {"ulr": "env:X"}}}, "slack.ulr is unknown; did you mean url?"),
        ({"to": {"slak": {}}}, "to: there is no channel 'slak'; did you mean slack?"),
        ({"to": {"webhook": 5}}, "to: webhook must be a mapping of names to values"),
        ({"to": "https://secret.example.org/key"}, "to must be a mapping of names to values"),
        ({"to": {}}, "to takes at least 1 entry"),
        ({"to": {"slack": {"url": "env:A"}, "email": {}}}, "to takes at most 1 entry"),
        (
            {"to": {"email": {"host": "h", "sender": "s", "to": ["x"], "port": "many"}}},
            "email.port must be a whole number",
        ),
        (
            {"match": {"severity": ["bad"]}},
            "match.severity.0 is 'bad'; one of info, warning, error, critical",
        ),
        ({"match": {"severity": ["warn"]}}, "match.severity.0 is 'warn'; did you mean warning?"),
        ({"send_resolved": "maybe"}, "send_resolved must be true or false, not 'maybe'"),
        (
            {"rate_limit": {"notifications": 0}},
            "rate_limit.notifications must be more than 0, not 0",
        ),
        (
            {"rate_limit": {"notifications": 1.5}},
            "rate_limit.notifications must be a whole number, not 1.5",
        ),
        ({"group_by": "alert"}, "group_by must be a list, not 'alert'"),
        (
            {"repeat_interval": "5 minutes"},
            "repeat_interval: not a duration: '5 minutes' (write 90s, 1h30m, 250ms, 2d)",
        ),
        ({"name": 5}, "name must be text, not 5"),
    ],
)
def test_what_is_wrong_with_a_subscription(fields: dict[str, Any], words: str) -> None:
    """Whichever way it comes: as data, or as a record of the config topic."""
    for message in (
        data_wrong(subscription(**fields)),
        record_wrong({"kind": "Subscription", **subscription(**fields)}),
    ):
        assert words in message
        # Words of pydantic and msgspec, which a user has never seen.
        assert not [word for word in FOREIGN if word in message]
        assert "secret.example.org" not in message


def data_wrong(data: dict[str, Any]) -> str:
    """The error for data that are no subscription."""
    with pytest.raises(WrongDocument) as caught:
        subscription_of(data)
    return str(caught.value)


def record_wrong(data: Any) -> str:
    """The error for a record that is no document."""
    with pytest.raises(WrongDocument) as caught:
        decode_document(data if isinstance(data, bytes) else json.dumps(data))
    return str(caught.value)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (b"{", "the document is not JSON"),
        (b"[]", "the document must be a mapping of names to values"),
        ({"kind": "Polcy"}, "kind of the document is 'Polcy'; did you mean Policy?"),
        ({"kind": "Policy", "name": "x", "futur": 1}, "futur is unknown; there are: "),
        (
            {"kind": "Prices", "name": "x", "models": [{"model": "m"}]},
            "models.0.input_per_million is missing",
        ),
    ],
)
def test_what_is_wrong_with_a_record(record: Any, words: str) -> None:
    """Also where it is nothing like a document."""
    message = record_wrong(record)
    assert words in message
    assert not [word for word in FOREIGN if word in message]


def test_a_filter_of_alerts_that_cannot_be_is_explained() -> None:
    """The same words for ``subscribe`` and the alert stream."""
    with pytest.raises(ValueError, match=r"^severty is unknown; did you mean severity\?$"):
        match_of({"severty": "error"})


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("agnt", "did you mean agent?"),
        ("AGENT", "did you mean agent?"),
        ("ta", "did you mean task?"),
        ("nope", "there are: agent, task"),
        ("looqs", "there are: agent, task"),
        ("", "there are: agent, task"),
    ],
)
def test_a_hint_is_near_or_a_list(name: str, hint: str) -> None:
    """A guess that is far off misleads: then all names are listed."""
    assert did_you_mean(name, ["agent", "task"]) == hint
    assert did_you_mean("nope", ["looper"]) == "there are: looper"
