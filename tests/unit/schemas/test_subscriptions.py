"""Subscriptions: errors name the field, secrets are only referred to, invalid ones are refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from stepstream.schemas.channels import CHANNELS, is_secret_ref, secrets_in
from stepstream.schemas.documents import DOCUMENT, Subscription
from stepstream.schemas.texts import LINK_FIELDS, TEXT_FIELDS, check_template, fill
from stepstream.sinks.notify.message import link, values
from tests.support.channel_cases import OPTIONS, notification
from tests.support.notify_world import alert, subscription


def wrong(**fields: Any) -> str:
    with pytest.raises(ValidationError) as error:
        Subscription.model_validate(
            {"name": "s", "to": {"webhook": {"url": "https://h.example"}}} | fields
        )
    return str(error.value)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_channel_is_kept_as_it_was_written(name: str) -> None:
    """Through the config topic and back; its secrets are found."""
    document = Subscription(name="s", to={name: OPTIONS[name]})
    again = DOCUMENT.validate_json(document.model_dump_json())
    assert again == document
    assert (document.channel, type(document.options)) == (name, CHANNELS.get(name))
    assert bool(secrets_in(document.options)) == (name not in ("alertmanager", "command"))


@pytest.mark.parametrize(
    ("to", "words"),
    [
        ({"webhok": {"url": "https://h"}}, "there is no channel 'webhok'; did you mean webhook?"),
        ({"webhook": {"url": "ftp://h"}}, "webhook.url: not a URL"),
        ({"webhook": {"url": "https://user:pass@h/x"}}, "a URL with a password in it is a secret"),
        (
            {"webhook": {"url": "https://h", "secret": "hunter2"}},
            "a secret is not written into a document",
        ),
        (
            {"webhook": {"url": "https://h", "headers": {"Authorization": "Bearer x"}}},
            "the header Authorization is a secret",
        ),
        (
            {"webhook": {"url": "https://h", "headers": {"Host": "x"}}},
            "'Host' is not a header that can be set",
        ),
        ({"webhook": {"url": "https://h", "headers": {"X": "a\nB: c"}}}, "line break"),
        ({"webhook": {"url": "https://h", "timeout": "10m"}}, "webhook.timeout"),
        ({"slack": {"url": "https://hooks.slack.com/services/T/B/x"}}, "a secret is not written"),
        ({"slack": {}}, "slack.url is missing"),
        ({"email": {"host": "h", "sender": "a", "to": []}}, "email.to"),
        ({"command": {"argv": "rm -rf"}}, "command.argv"),
        ({"pagerduty": {"routing_key": "file:relative"}}, "a secret is not written"),
    ],
)
def test_a_channel_that_cannot_be_is_explained(to: dict[str, Any], words: str) -> None:
    """With the option's name and what to write.

    What was written is not repeated, for it may be a secret.
    """
    error_text = wrong(to=to)
    assert words in error_text
    assert "hunter2" not in error_text
    assert "services/T/B/x" not in error_text


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"digest": "1h", "group_by": ["alert"]}, "digest sends all alerts together"),
        ({"group_wait": "1s"}, "need group_by"),
        ({"group_by": ["colour"]}, "group_by"),
        ({"quiet_hours": {"begin": "25:00", "end": "07:00"}}, "not a time of day"),
        (
            {"quiet_hours": {"begin": "22:00", "end": "07:00", "timezone": "../etc"}},
            "not a time zone",
        ),
        ({"rate_limit": {"notifications": 0}}, "greater than 0"),
        ({"link_template": "https://t/{trace}"}, "did you mean trace_id?"),
        ({"template": {"title": "{severity"}}, "a single {"),
        ({"template": {"body": "{0.__class__}"}}, "is no field"),
        ({"content": "all"}, "content"),
        ({"name": "Not a name"}, "name"),
    ],
)
def test_a_subscription_that_cannot_be_is_explained(fields: dict[str, Any], words: str) -> None:
    """At the field that is wrong."""
    assert words in wrong(**fields)


def test_templates_can_name_every_field_there_is_and_none_that_is_not() -> None:
    """What is checked when it is written is what is filled in later."""
    one = alert(trace_id="t", step_ids=["s"])
    known = values(one, notification(one), subscription())
    assert known.keys() == TEXT_FIELDS
    every = "".join(f"{{{name}}}" for name in sorted(LINK_FIELDS))
    found = link(one, subscription(link_template=f"https://t/{every}"))
    assert "{" not in found
    assert check_template("{{x}} {alert}", TEXT_FIELDS) == "{{x}} {alert}"
    assert fill("{{x}} {alert}", {"alert": "a"}) == "{x} a"


def test_what_names_a_secret() -> None:
    """A variable or an absolute path, nothing else."""
    assert [is_secret_ref(text) for text in ("env:A_1", "file:/a/b", "env:", "env:a b", "file:a",
    "ENV:A", "x")] == [
        True, True, False, False, False, False, False,
    ]  # fmt: skip
