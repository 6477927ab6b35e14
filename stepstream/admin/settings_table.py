"""docs/settings.md, made from the settings: ``python -m stepstream.admin.settings_table``."""

from __future__ import annotations

from typing import Any, Final

from stepstream.schemas.formatting import format_duration
from stepstream.schemas.settings import (
    DURATIONS,
    SECRETS,
    Settings,
    environment_name,
    setting_info,
)

HEAD: Final = """\
# Settings

<!-- Made by `python -m stepstream.admin.settings_table`; a test keeps it current. -->

The SDK and all processes share one table of settings. A setting such as `kafka_brokers` is read
from these sources, in this order:

1. the flag `--kafka-brokers` of the commands that read it, or an argument of `stepstream.configure`
2. the environment variable `STEPSTREAM_KAFKA_BROKERS`
3. the key `kafka_brokers` of a settings file in TOML: the file that `--settings` or
   `STEPSTREAM_SETTINGS` names, else `./stepstream.toml`, else
   `~/.config/stepstream/settings.toml`
4. the addresses, users and passwords that a running `stepstream up` wrote to `endpoints.json` in
   its state directory (readable only by its owner). This applies to `kafka_brokers`,
   `clickhouse_url`, `notify_url` and their logins, unless `kafka_brokers` or `clickhouse_url`
   names another server: addresses of two installations are never mixed.
5. the default

The first source that has the setting wins. An empty environment variable counts as not set. An
unknown setting, in the environment or in the file, is an error. `stepstream settings` lists the
values in force and their sources.

Durations are written as `90s`, `1h30m`, `250ms` or `2d`; a number without a unit is in seconds. A
secret may be in a file: set `STEPSTREAM_KAFKA_SASL_PASSWORD_FILE` to its path, or the setting to
`file:/run/secrets/kafka`, in any of the sources.

The state directory is `$XDG_STATE_HOME/stepstream` or `~/.local/state/stepstream` on Linux,
`~/Library/Application Support/stepstream` on macOS and `%LOCALAPPDATA%\\stepstream` on Windows.
"""


def markdown() -> str:
    """The whole page."""
    parts, section = [HEAD], ""
    for name, field in Settings.model_fields.items():
        info = setting_info(name)
        if info.section != section:
            section = info.section
            parts.append(f"\n## {section}\n\n| setting | default | meaning |\n|---|---|---|\n")
        secret = " (A secret.)" if name in SECRETS else ""
        meaning = f"{field.description}{secret}".replace("|", "\\|").replace("<", "&lt;")
        default = _default(name, field.default)
        parts.append(f"| `{name}`<br>`{environment_name(name)}` | {default} | {meaning} |\n")
    return "".join(parts)


def _default(name: str, value: Any) -> str:
    if name in SECRETS or value == "":
        return ""
    if name in DURATIONS:
        return format_duration(value)
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"`{value}`"


if __name__ == "__main__":
    print(markdown(), end="")
