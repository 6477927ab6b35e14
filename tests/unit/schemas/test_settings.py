"""The one table of settings: named, explained, bounded, and without the values of secrets."""

from __future__ import annotations

import json

import pytest
from pydantic import SecretStr, ValidationError

from stepstream.schemas.settings import SECRETS, Settings, environment_name

FIELDS = Settings.model_fields


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_has_a_meaning(name: str) -> None:
    """Name, default and meaning stand in the table; a meaning is sentences on one line."""
    info = FIELDS[name]
    assert info.description
    assert "\n" not in info.description
    assert info.description.endswith(".")
    assert info.description[0].isupper() or info.description.startswith(("http", "kafka"))
    # Every setting has a default: `stepstream up` needs none.
    assert not info.is_required()
    assert name == name.lower()


def test_the_defaults_are_valid_settings() -> None:
    """The table's defaults pass its own checks, and survive being written and read."""
    settings = Settings()
    assert Settings.model_validate(settings.model_dump()) == settings


def test_unknown_settings_are_refused() -> None:
    """A misspelt setting is an error, not silence."""
    with pytest.raises(ValidationError, match="kafka_broker"):
        Settings.model_validate({"kafka_broker": "localhost:9092"})


def test_settings_have_one_environment_variable_each() -> None:
    """``kafka_brokers`` is ``STEPSTREAM_KAFKA_BROKERS``.

    None can be mistaken for another's ``_FILE``.
    """
    variables = {environment_name(name) for name in FIELDS}
    assert environment_name("kafka_brokers") == "STEPSTREAM_KAFKA_BROKERS"
    assert len(variables) == len(FIELDS)
    assert not {environment_name(name) + "_FILE" for name in SECRETS} & variables


def test_whatever_sounds_secret_is_kept_secret() -> None:
    """Passwords, tokens and keys are SecretStr (hooks and paths of files are not secrets)."""
    sounding = {
        name for name in FIELDS if name.endswith(("password", "token", "secret", "api_key"))
    }
    assert sounding <= SECRETS
    assert {"kafka_sasl_password", "clickhouse_password"} <= SECRETS


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_secrets_show_nowhere(name: str) -> None:
    """A secret is in no repr, no str, no JSON and no error message of the settings."""
    secret = "hunter2-unmistakable"
    settings = Settings.model_validate({name: secret})
    assert getattr(settings, name) == SecretStr(secret)
    for shown in (
        repr(settings),
        str(settings),
        settings.model_dump_json(),
        repr(settings.model_dump()),
    ):
        assert secret not in shown
    with pytest.raises(ValidationError) as error:
        Settings.model_validate({name: [secret]})
    assert secret not in str(error.value)


def test_kafka_connection_without_security() -> None:
    """Nothing set: plaintext, and nothing but the brokers."""
    kafka = Settings(kafka_brokers="a:1,b:2").kafka
    assert kafka["bootstrap.servers"] == "a:1,b:2"
    assert not [key for key in kafka if key.startswith(("sasl", "ssl", "security"))]


@pytest.mark.parametrize(
    ("given", "protocol"),
    [
        ({"kafka_tls": True}, "SSL"),
        ({"kafka_ca_file": "/ca.pem"}, "SSL"),
        ({"kafka_certificate_file": "/c.pem", "kafka_key_file": "/k.pem"}, "SSL"),
        ({"kafka_sasl_mechanism": "PLAIN", "kafka_sasl_username": "u"}, "SASL_PLAINTEXT"),
        (
            {
                "kafka_sasl_mechanism": "SCRAM-SHA-512",
                "kafka_sasl_username": "u",
                "kafka_ca_file": "/ca.pem",
            },
            "SASL_SSL",
        ),
        ({"kafka_sasl_mechanism": "OAUTHBEARER", "kafka_tls": True}, "SASL_SSL"),
    ],
)
def test_kafka_connection_with_security(given: dict[str, object], protocol: str) -> None:
    """TLS and SASL follow from what is given; a user without a mechanism's need is not sent."""
    kafka = Settings.model_validate(
        {"kafka_brokers": "a:1", "kafka_sasl_password": "p", **given}
    ).kafka
    assert kafka["security.protocol"] == protocol
    assert kafka.get("sasl.mechanism", "") == given.get("kafka_sasl_mechanism", "")
    assert kafka.get("sasl.username") == given.get("kafka_sasl_username")
    # A password without a user is not sent: librdkafka refuses such a configuration.
    assert ("sasl.password" in kafka) == ("kafka_sasl_username" in given)
    assert kafka.get("ssl.ca.location") == given.get("kafka_ca_file")
    json.dumps(kafka)  # plain values that any client takes


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("topic_prefix", "a b"),
        ("topic_prefix", ""),
        ("clickhouse_database", "x; DROP TABLE y"),
        ("compression", "brotli"),
        ("partitions", 0),
        ("kafka_port", 70_000),
        ("close_after", "soon"),
        ("close_after", 0),
    ],
)
def test_impossible_values_are_refused(name: str, value: object) -> None:
    """What cannot work is refused where it is set, with the setting's name."""
    with pytest.raises(ValidationError, match=name):
        Settings.model_validate({name: value})
