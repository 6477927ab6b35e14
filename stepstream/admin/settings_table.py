"""``docs/settings.md``, made from the table of settings: ``python -m stepstream.admin.settings_table > docs/settings.md``."""

from __future__ import annotations

from typing import Any, Final

from pydantic_core import PydanticUndefined

from stepstream.common.settings import DURATIONS
from stepstream.schemas.formatting import format_duration
from stepstream.schemas.settings import SECRETS, Settings, environment_name

# The first setting of each group, in the order of the table.
GROUPS: Final = {
    "endpoint": "The SDK",
    "kafka_brokers": "Kafka",
    "clickhouse_url": "ClickHouse",
    "worker_group": "The worker",
    "sink_group": "The sink",
    "notify_group": "Notify",
    "metrics_host": "Metrics and health",
    "state_dir": "One machine",
}

HEAD: Final = """\
# Settings

<!-- Made by `python -m stepstream.admin.settings_table`; a test keeps it current. -->

There is one table of settings for the SDK and every process. A setting such as `kafka_brokers` is

1. a flag `--kafka-brokers` of the commands that it matters to, or an argument of `stepstream.configure`,
2. the environment variable `STEPSTREAM_KAFKA_BROKERS`,
3. the key `kafka_brokers` of a settings file in TOML: the one that `--settings` or `STEPSTREAM_SETTINGS` names, else
   `./stepstream.toml`, else `~/.config/stepstream/settings.toml`,
4. for `kafka_brokers`, `clickhouse_url` and `notify_url`, and their users and passwords: what a running `stepstream up`
   wrote into its state folder (`endpoints.json`, readable for its owner alone), unless `kafka_brokers` or
   `clickhouse_url` names another place: Kafka and ClickHouse are not mixed from two,
5. the default.

The first of these that names it wins. A variable that is set to nothing counts as not set. A name that is no setting
is an error, in the environment and in the file. `stepstream settings` shows what is in force and where it comes from.

Durations are written as `90s`, `1h30m`, `250ms` or `2d`; a bare number is seconds. A secret may be a file: the variable
`STEPSTREAM_KAFKA_SASL_PASSWORD_FILE` names one, and so does the value `file:/run/secrets/kafka` anywhere.

The state folder is `$XDG_STATE_HOME/stepstream` or `~/.local/state/stepstream` on Linux,
`~/Library/Application Support/stepstream` on macOS and `%LOCALAPPDATA%\\stepstream` on Windows.
"""


def markdown() -> str:
    """The whole page."""
    parts = [HEAD]
    for name, field in Settings.model_fields.items():
        if name in GROUPS:
            parts.append(f"\n## {GROUPS[name]}\n\n| setting | default | meaning |\n|---|---|---|\n")
        secret = " (a secret)" if name in SECRETS else ""
        meaning = f"{field.description}{secret}".replace("|", "\\|").replace("<", "&lt;")
        parts.append(
            f"| `{name}`<br>`{environment_name(name)}` | {_default(name, field.default)} | {meaning} |\n"
        )
    return "".join(parts)


def _default(name: str, value: Any) -> str:
    if value is PydanticUndefined or name in SECRETS or value == "":
        return ""
    if name in DURATIONS:
        return format_duration(value)
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"`{value}`"


if __name__ == "__main__":
    print(markdown(), end="")
