"""Reads settings from flags, environment variables, a file, a running ``stepstream up``, defaults.

The first source that has a setting wins, in that order. The file is the given one, else that of
``STEPSTREAM_SETTINGS``, else ``./stepstream.toml``, else ``~/.config/stepstream/settings.toml``. An
empty variable counts as not set. The table of settings is ``stepstream.schemas.settings``.
"""

from __future__ import annotations

import os
import re
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from stepstream.common import endpoints
from stepstream.schemas.endpoint import is_http, split_http_endpoint
from stepstream.schemas.settings import (
    ENV_PREFIX,
    NOTIFY_SECRET_PREFIX,
    SECRETS,
    Settings,
    environment_name,
    split_login,
)
from stepstream.schemas.suggestions import did_you_mean
from stepstream.schemas.wording import reasons

__all__ = [
    "Resolved",
    "SettingsError",
    "data_dir",
    "default_state_dir",
    "load",
    "require_clickhouse",
    "require_kafka",
    "resolve",
    "state_dir",
    "to_environment",
]

FILE_VARIABLE: Final = "STEPSTREAM_SETTINGS"
NOT_SETTINGS: Final = frozenset({FILE_VARIABLE, "STEPSTREAM_DATA"})
DEFAULT: Final = "default"
UP: Final = "stepstream up"
_FIELDS: Final = Settings.model_fields
# Kubernetes sets such variables in every pod for a service called stepstream or stepstream-...
_SERVICE_LINK = re.compile(
    r"_SERVICE_HOST$|_SERVICE_PORT(_[A-Z0-9_]+)?$|_PORT_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?$"
)
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


class SettingsError(ValueError):
    """Invalid settings: one line each, with the setting, its source and the problem."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Resolved:
    """Settings, and the source of each."""

    settings: Settings
    sources: Mapping[str, str]
    file: Path | None
    unknown: tuple[str, ...] = ()
    """Unknown names in the environment and the file."""


@dataclass
class _Draft:
    """Values and sources read so far, and the problems found."""

    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    """Unknown names in the environment and the file: misspelt, or of another version."""

    def put(self, name: str, value: Any, source: str, rank: int) -> None:
        """Set the value unless an earlier source has set it."""
        if name not in self.values:
            self.values[name] = value
            self.sources[name] = source
            self.ranks[name] = rank

    def drop(self, name: str) -> None:
        for table in (self.values, self.sources, self.ranks):
            table.pop(name, None)


def load_with_others(**flags: Any) -> tuple[Settings, list[str]]:
    """As ``load``, for other programs: returns unknown names too instead of raising."""
    resolved = resolve(flags=flags, lenient=True)
    return resolved.settings, list(resolved.unknown)


def load(
    *, file: Path | None = None, environ: Mapping[str, str] | None = None, **flags: Any
) -> Settings:
    """The settings in force. ``flags`` come first; those that are None count as not given.

    ``kafka_brokers``, ``clickhouse_url`` and ``notify_url`` with their logins are those of a
    running ``stepstream up`` if no other source has them, and empty if none runs. ``state_dir`` and
    ``data_dir`` are always set. Raises ``SettingsError``.
    """
    return resolve(file=file, environ=environ, flags=flags).settings


def resolve(
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
    flag_name: Callable[[str], str] = "argument {}".format,
    lenient: bool = False,
) -> Resolved:
    """As ``load``, with the source of each setting.

    ``flag_name`` gives the name of a flag in messages. ``lenient``: return unknown names of the
    environment and the file instead of raising.
    """
    environ = os.environ if environ is None else environ
    draft = _Draft()
    _read_flags(draft, flags or {}, flag_name)
    _read_environment(draft, environ)
    found = _settings_file(draft, file, environ)
    if found is not None:
        _read_file(draft, found)
    _read_secret_files(draft)
    _apply_endpoint(draft)
    _take_login(draft)
    _fill_folders(draft, environ)
    _fill_addresses(draft)
    if not lenient:
        draft.problems += draft.unknown
    settings = _validated(draft)
    sources = {name: draft.sources.get(name, DEFAULT) for name in _FIELDS}
    return Resolved(settings, sources, found, tuple(draft.unknown))


def default_state_dir(environ: Mapping[str, str] | None = None) -> Path:
    """The user's state directory by the convention of the platform."""
    environ = os.environ if environ is None else environ
    if sys.platform == "win32":
        base = environ.get("LOCALAPPDATA")
        return (Path(base) if base else Path.home() / "AppData" / "Local") / "stepstream"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "stepstream"
    base = environ.get("XDG_STATE_HOME")
    return (
        Path(base) if base and Path(base).is_absolute() else Path.home() / ".local" / "state"
    ) / "stepstream"


def state_dir(settings: Settings) -> Path:
    """The state directory, also for settings that were not loaded."""
    return Path(settings.state_dir or default_state_dir())


def data_dir(settings: Settings) -> Path:
    """The data directory of the embedded engines, also for settings that were not loaded."""
    if settings.data_dir:
        return Path(settings.data_dir)
    return state_dir(settings) / "data"


def require_kafka(settings: Settings) -> None:
    """Raise ``SettingsError`` if no brokers are set."""
    if not settings.kafka_brokers:
        raise SettingsError([_unknown("Kafka", "STEPSTREAM_KAFKA_BROKERS=host:port", settings)])


def require_clickhouse(settings: Settings) -> None:
    """Raise ``SettingsError`` if no store is set."""
    if not settings.clickhouse_url:
        raise SettingsError(
            [_unknown("ClickHouse", "STEPSTREAM_CLICKHOUSE_URL=http://host:port", settings)]
        )


def _unknown(what: str, setting: str, settings: Settings) -> str:
    if settings.state_dir and endpoints.read(Path(settings.state_dir)) is not None:
        other = "clickhouse_url" if settings.clickhouse_url else "kafka_brokers"
        return (
            f"no {what} is known: {other} is not that of the running `stepstream up`: "
            f"set {setting} as well"
        )
    searched = f" (none runs from {settings.state_dir})" if settings.state_dir else ""
    return f"no {what} is known: start `stepstream up`{searched}, or set {setting}"


def to_environment(settings: Settings) -> dict[str, str]:
    """Environment variables with which ``load`` gives these settings in another process, with
    secrets.
    """
    variables = {FILE_VARIABLE: os.devnull}
    for name, value in settings.model_dump(mode="json").items():
        text = getattr(settings, name).get_secret_value() if name in SECRETS else str(value)
        if text:
            variables[environment_name(name)] = text
    return variables


def _did_you_mean(name: str, names: list[str]) -> str:
    return f"; {did_you_mean(name, names, otherwise='`stepstream settings` lists them')}"


def _read_flags(draft: _Draft, flags: Mapping[str, Any], flag_name: Callable[[str], str]) -> None:
    for name, value in flags.items():
        if name not in _FIELDS:
            draft.problems.append(
                f"{flag_name(name)} is not a setting{_did_you_mean(name, list(_FIELDS))}"
            )
        elif value is not None:
            draft.put(name, value, flag_name(name), 0)


def _read_environment(draft: _Draft, environ: Mapping[str, str]) -> None:
    known = {environment_name(name): name for name in _FIELDS}
    files = {f"{environment_name(name)}_FILE": name for name in SECRETS}
    for variable in sorted(name for name in environ if name.startswith(ENV_PREFIX)):
        value = environ[variable]
        if variable.startswith(NOTIFY_SECRET_PREFIX):
            continue
        if (
            variable in NOT_SETTINGS
            or not value
            or _SERVICE_LINK.search(variable)
            or _SERVICE_ADDRESS.match(value)
        ):
            continue
        if variable in known:
            draft.put(known[variable], value, variable, 1)
        elif variable in files:
            name = files[variable]
            if environ.get(environment_name(name)):
                draft.problems.append(
                    f"{environment_name(name)} and {variable} are both set: keep one of them"
                )
            draft.put(name, f"file:{value}", variable, 1)
        else:
            draft.unknown.append(
                f"{variable} is not a setting{_did_you_mean(variable, [*known, *files])}"
            )


def _settings_file(draft: _Draft, given: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The file to read; a named one must exist."""
    named = given or (Path(environ[FILE_VARIABLE]) if environ.get(FILE_VARIABLE) else None)
    if named is not None:
        named = named.expanduser()
        # /dev/null stands for no file at all.
        if named.is_file() or str(named) == os.devnull:
            return named
        draft.problems.append(
            f"settings file {named} (from {'--settings' if given else FILE_VARIABLE}) does not "
            "exist"
        )
        return None
    config_home = environ.get("XDG_CONFIG_HOME") or "~/.config"
    for usual in (
        Path("stepstream.toml"),
        Path(config_home).expanduser() / "stepstream" / "settings.toml",
    ):
        if usual.is_file():
            return usual
    return None


def _read_file(draft: _Draft, file: Path) -> None:
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        draft.problems.append(f"settings file {file} cannot be read: {error}")
        return
    for name, value in content.items():
        if name not in _FIELDS:
            draft.unknown.append(
                f"{name} in {file} is not a setting{_did_you_mean(name, list(_FIELDS))}"
            )
        else:
            draft.put(name, value, str(file), 2)


def _read_secret_files(draft: _Draft) -> None:
    """Replace ``file:/path`` of a secret with the content of the file, without the line end."""
    for name in SECRETS & draft.values.keys():
        value = draft.values[name]
        if not isinstance(value, str) or not value.startswith("file:"):
            continue
        path = Path(value.removeprefix("file:")).expanduser()
        try:
            draft.values[name] = path.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            draft.problems.append(
                f"{name} from {draft.sources[name]}: the file {path} cannot be read: "
                f"{_reason(error)}"
            )
            draft.drop(name)


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _apply_endpoint(draft: _Draft) -> None:
    """Set ``kafka_brokers`` from ``endpoint``, unless an earlier source has set it."""
    given = str(draft.values.get("endpoint") or "")
    if not given:
        return
    source = draft.sources["endpoint"]
    if is_http(given):
        _check_http_endpoint(draft, given)
        return
    brokers = _brokers(given)
    if brokers is None:
        draft.problems.append(
            f"endpoint from {source}: write kafka://host:port[,host:port] or https://host, not "
            f"{_without_login(given)!r}"
        )
        draft.drop("endpoint")
        return
    present = str(draft.values.get("kafka_brokers") or "")
    if present and present != brokers and draft.ranks["kafka_brokers"] == draft.ranks["endpoint"]:
        draft.problems.append(
            f"endpoint from {source} and kafka_brokers from {draft.sources['kafka_brokers']} name "
            f"different brokers ({brokers} and {present}): keep one of them"
        )
    elif present and draft.ranks["kafka_brokers"] < draft.ranks["endpoint"]:
        draft.drop("endpoint")
    else:
        draft.drop("kafka_brokers")
        draft.put("kafka_brokers", brokers, source, draft.ranks["endpoint"])


def _check_http_endpoint(draft: _Draft, given: str) -> None:
    """Brokers that an earlier source has set replace the URL of a gateway."""
    try:
        split_http_endpoint(given)
    except ValueError as error:
        draft.problems.append(
            f"endpoint from {draft.sources['endpoint']}: {error}; the key of a gateway is the "
            "setting endpoint_key"
        )
        draft.drop("endpoint")
        return
    has_brokers = bool(draft.values.get("kafka_brokers"))
    if has_brokers and draft.ranks["kafka_brokers"] < draft.ranks["endpoint"]:
        draft.drop("endpoint")


def _without_login(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//***@", url)


def _brokers(endpoint: str) -> str | None:
    """``host:port,host:port`` of a kafka:// URL; None if it is not one."""
    match = re.fullmatch(r"kafka://([^/?#@\s]+)/?", endpoint.strip())
    hosts = match[1].split(",") if match else []
    if not hosts or not all(
        re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?", host) for host in hosts
    ):
        return None
    return ",".join(host if re.search(r":\d+$", host) else f"{host}:9092" for host in hosts)


def _fill_folders(draft: _Draft, environ: Mapping[str, str]) -> None:
    for name in ("state_dir", "data_dir"):
        if draft.values.get(name):
            draft.values[name] = str(Path(str(draft.values[name])).expanduser().absolute())
        else:
            draft.drop(name)
    draft.put("state_dir", str(default_state_dir(environ)), DEFAULT, 4)
    draft.put("data_dir", str(Path(draft.values["state_dir"]) / "data"), DEFAULT, 4)


def _take_login(draft: _Draft) -> None:
    """Take user and password from the store's URL, unless an earlier source names another user."""
    given = draft.values.get("clickhouse_url")
    if not isinstance(given, str):
        return
    url, user, password = split_login(given)
    draft.values["clickhouse_url"] = url
    source, rank = draft.sources["clickhouse_url"], draft.ranks["clickhouse_url"]
    if user and draft.values.get("clickhouse_user", user) == user:
        draft.put("clickhouse_user", user, source, rank)
        draft.put("clickhouse_password", password, source, rank)


def _fill_addresses(draft: _Draft) -> None:
    """Take addresses and logins of a running ``stepstream up``.

    Only if the given addresses are its own: Kafka and ClickHouse are not mixed from two
    installations.
    """
    kafka, clickhouse = draft.values.get("kafka_brokers"), draft.values.get("clickhouse_url")
    running = endpoints.read(Path(draft.values["state_dir"]))
    if running is None or (kafka and not _same(kafka, running.kafka)):
        return
    if clickhouse and not _same(clickhouse.rstrip("/"), running.clickhouse):
        return
    _put_running(draft, {"kafka_brokers": running.kafka, "clickhouse_url": running.clickhouse})
    login = running.kafka_login
    if login.user and not draft.values.get("kafka_sasl_mechanism"):
        sasl = {
            "kafka_sasl_mechanism": "PLAIN",
            "kafka_sasl_username": login.user,
            "kafka_sasl_password": login.password,
        }
        _put_running(draft, sasl)
    writer, reader = running.writer, running.reader
    if draft.values.get("clickhouse_user", writer.user) == writer.user:
        _put_running(
            draft, {"clickhouse_user": writer.user, "clickhouse_password": writer.password}
        )
        if draft.values.get("clickhouse_reader_user", reader.user) == reader.user:
            _put_running(
                draft,
                {
                    "clickhouse_reader_user": reader.user,
                    "clickhouse_reader_password": reader.password,
                },
            )
    if not draft.values.get("gateway_url"):
        _put_running(draft, {"gateway_url": running.others.get("gateway", "")})
    if not draft.values.get("notify_url"):
        _put_running(
            draft,
            {"notify_url": running.others.get("notify", ""), "notify_token": running.notify_token},
        )


def _put_running(draft: _Draft, found: Mapping[str, str]) -> None:
    """Set values of a running ``stepstream up`` that no other source has set."""
    for name, value in found.items():
        if value and not draft.values.get(name):
            draft.drop(name)
            draft.put(name, value, UP, 3)


def _same(one: str, other: str) -> bool:
    return one.replace("localhost", "127.0.0.1") == other.replace("localhost", "127.0.0.1")


def _validated(draft: _Draft) -> Settings:
    try:
        settings = Settings.model_validate(draft.values)
    except ValidationError as error:
        for path, reason in reasons(
            error, Settings, draft.values, hidden=lambda path: bool(SECRETS.intersection(path))
        ):
            name = str(path[0]) if path else ""
            draft.problems.append(
                f"{name} from {draft.sources.get(name, '?')}{reason.removeprefix(name)}"
            )
    if draft.problems:
        raise SettingsError(draft.problems)
    return settings
