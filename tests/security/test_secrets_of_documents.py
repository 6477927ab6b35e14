"""The author of a document gets no variable of the notifier's environment that was not meant
for documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stepstream.common.settings import resolve
from stepstream.local.child_environment import inherited
from stepstream.schemas.documents import Subscription
from stepstream.schemas.settings import Settings
from stepstream.sinks.notify.channel import deliver
from stepstream.sinks.notify.secrets import Secrets, SecretUnavailable
from stepstream.sinks.notify.service import context_of
from tests.support.channel_cases import notification
from tests.support.notify_world import subscription
from tests.support.receiver import receiver

ENVIRON = {
    "PATH": "/bin", "HOME": "/home/me", "LC_ALL": "C.UTF-8", "PYTHONPATH": "/x",
    "OPENAI_API_KEY": "sk-live",
    "AWS_SECRET_ACCESS_KEY": "a",
    "STEPSTREAM_KAFKA_SASL_PASSWORD": "p", "STEPSTREAM_NOTIFY_SECRET_HOOK": "hook",
    "SLACK_URL": "https://h", "HTTPS_PROXY": "http://p",
    "PATH_TO_KEY": "k", "MY_PATH": "m", "LC_": "l",
}  # fmt: skip


def test_the_notifier_of_up_gets_no_other_variables() -> None:
    """What Python needs, what has the prefix, what is listed.

    The worker, which sends nothing anywhere, gets all.
    """
    plain = {"PATH", "HOME", "LC_ALL", "PYTHONPATH", "STEPSTREAM_NOTIFY_SECRET_HOOK"}
    assert set(inherited("notify", Settings(), ENVIRON)) == plain
    listed = Settings(notify_secret_variables="SLACK_URL, OTHER,STEPSTREAM_KAFKA_SASL_PASSWORD")
    assert set(inherited("notify", listed, ENVIRON)) == plain | {"SLACK_URL"}
    worker = inherited("worker", listed, ENVIRON)
    assert worker["OPENAI_API_KEY"] == "sk-live"
    assert "STEPSTREAM_KAFKA_SASL_PASSWORD" not in worker
    assert "AWS_SECRET_ACCESS_KEY" in inherited("notify", Settings(kafka_token_hook="a:b"), ENVIRON)


def test_variables_with_the_prefix_are_no_settings() -> None:
    """They are not complained about as settings that there are not."""
    assert (
        resolve(
            environ={"STEPSTREAM_NOTIFY_SECRET_HOOK": "x", "HOME": "/nowhere"}
        ).settings.notify_secret_variables
        == ""
    )


WHERE: list[dict[str, Any]] = [
    {"webhook": {"url": "{url}", "headers": {"X": "{ref}"}}},
    {"webhook": {"url": "{url}", "secret": "{ref}"}},
    {"webhook": {"url": "{ref}"}},
    {"alertmanager": {"url": "{ref}"}},
    {"slack": {"url": "{ref}"}},
    {"teams": {"url": "{ref}"}},
    {"discord": {"url": "{ref}"}},
    {"telegram": {"token": "{ref}", "chat": "1"}},
    {"pagerduty": {"routing_key": "{ref}"}},
    {"opsgenie": {"api_key": "{ref}"}},
    {
        "email": {
            "host": "127.0.0.1",
            "user": "u",
            "password": "{ref}",
            "sender": "a@x.example",
            "to": ["b@x.example"],
        }
    },
    {"apprise": {"url": "{ref}"}},
]


@pytest.mark.parametrize("to", WHERE, ids=lambda to: "-".join([*to, *next(iter(to.values()))]))
@pytest.mark.parametrize(
    "ref",
    [
        "env:OPENAI_API_KEY",
        "env:PATH",
        "env:STEPSTREAM_KAFKA_SASL_PASSWORD",
        "env:STEPSTREAM_NOTIFY_PORT",
        "file:/proc/self/environ",
    ],
)
def test_no_field_of_any_channel_reads_another_variable(
    to: dict[str, Any], ref: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is sent; the reason names the variable and what to do."""
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    with receiver() as there:
        # By text, so that the reference stands in every field that takes one.
        written = json.loads(json.dumps(to).replace("{url}", there.url).replace("{ref}", ref))
        context = context_of(Settings(notify_allow_private=True, notify_secrets_dir="/run/secrets"))
        outcome = deliver(notification(), subscription(to=written), context)
        context.client.close()
        assert (outcome.kind, there.taken) == ("failed", [])
    assert ref in outcome.text
    # The beginning of the planted secret's value.
    assert "sk-live" not in outcome.text
    if ref.startswith("env:") and "STEPSTREAM" not in ref:
        assert "notify_secret_variables" in outcome.text


def test_no_document_sends_the_identity_of_the_process(tmp_path: Path) -> None:
    """Clusters put it below the folder of secrets, under links."""
    folder = tmp_path / "kubernetes.io" / "serviceaccount"
    (folder / "..data").mkdir(parents=True)
    (folder / "..data" / "token").write_text("eyJ")
    (folder / "token").symlink_to(folder / "..data" / "token")
    (tmp_path / "mine").symlink_to(folder / "token")
    for name in ("kubernetes.io/serviceaccount/token", "mine", "x/../mine"):
        with pytest.raises(SecretUnavailable, match=r"identity|not under|cannot be read"):
            Secrets(tmp_path).text(f"file:{tmp_path}/{name}")


def test_a_listed_variable_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the setting of the notifier."""
    monkeypatch.setenv("HOOK_KEY", "listed-value-1")
    with receiver() as there:
        to = {
            "webhook": {"url": there.url, "headers": {"X-Key": "env:HOOK_KEY", "X-File": "plain"}}
        }
        context = context_of(
            Settings(notify_allow_private=True, notify_secret_variables="HOOK_KEY")
        )
        assert deliver(notification(), subscription(to=to), context).kind == "delivered"
        context.client.close()
        assert there.taken[0].headers["X-Key"] == "listed-value-1"


def test_a_refused_variable_is_reported_before_anything_is_sent() -> None:
    """A subscription and the secrets of a notifier: what is wrong, in words."""
    from stepstream.schemas.channels import listed_variables, refused_variables

    document: Subscription = subscription(
        to={
            "webhook": {
                "url": "https://h.example",
                "secret": "env:KEY",
                "headers": {"X": "env:KEY"},
            }
        }
    )
    (refused,) = refused_variables(document.options, ())
    assert refused.startswith("env:KEY is not a variable that documents may name")
    assert refused_variables(document.options, listed_variables("KEY")) == []
    assert Secrets(Path("/x"), {"KEY": "v"}, listed_variables("KEY")).text("env:KEY") == "v"
