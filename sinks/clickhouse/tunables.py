"""What settings say about tables: how long rows are kept, and whether texts are indexed; compared with what the store has.

Unlike migrations these are no history: ``migrate`` changes what differs from the settings, at every start.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from stepstream.schemas.retention import Retention, retention
from stepstream.schemas.settings import Settings
from stepstream.sinks.clickhouse.errors import StoreError
from stepstream.sinks.clickhouse.schema import template_values

RETENTION: Final = {
    "steps_raw": "steps",
    "runs_raw": "runs",
    "alert_events_raw": "alerts",
    "alerts_raw": "alerts",
    "deliveries_raw": "alerts",
    "findings_raw": "alerts",
    "rollup_1m": "metrics",
    "rollup_1h": "metrics",
}
"""The kind of data of each table whose rows expire as settings say."""

TEXT_TABLE: Final = "steps_raw"
TEXT_INDEXES: Final = {"ft_input": "input", "ft_output": "output"}
"""Word indexes of the text search. In lower case, as the words that are searched for must be."""

_TTL: Final = re.compile(
    r"\bTTL (?P<base>.+?) \+ toIntervalDay\((?P<days>\d+|multiIf\(.*?\))\)", re.DOTALL
)
_OWN: Final = re.compile(r"project = '([^']*)', (\d+)")
_ROW_BY_ROW: Final = re.compile(r"\bttl_only_drop_parts = 0\b")


@dataclass(frozen=True)
class Difference:
    """Something that the settings want otherwise than it is."""

    table: str
    what: str
    there: str
    wanted: str
    statements: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.what} of {self.table}: {self.there}, wanted {self.wanted}"


def differences(create: Mapping[str, str], settings: Settings) -> list[Difference]:
    """All of them. ``create`` holds the CREATE statement of each table that is there."""
    return [*_retention(create, settings), *_text_search(create, settings)]


def require_sensible(settings: Settings) -> None:
    """Raise ``StoreError`` for retentions under which rollups would forget what rows still say."""
    steps, metrics = retention(settings, "steps"), retention(settings, "metrics")
    for project in ["", *steps.by_project, *metrics.by_project]:
        if metrics.of(project) < steps.of(project):
            whose = f" of project {project}" if project else ""
            raise StoreError(
                f"metrics{whose} would be kept for {metrics.of(project)} days and steps for {steps.of(project)}: rows and "
                "rollups would disagree; set metrics_retention_days (or retention_by_project) at least as high"
            )


def days_sql(kept: Retention) -> str:
    """The number of days as a TTL says it."""
    if not kept.projects:
        return str(kept.days)
    own = ", ".join(f"project = '{project}', {days}" for project, days in kept.projects)
    return f"multiIf({own}, {kept.days})"


def _retention(create: Mapping[str, str], settings: Settings) -> Iterator[Difference]:
    for table, kind in RETENTION.items():
        found = _TTL.search(create.get(table, ""))
        if found is None:
            continue
        there, wanted = _kept(found["days"]), retention(settings, kind)
        # A part holds rows of many projects: where their days differ, rows must go before their part can.
        by_row = _ROW_BY_ROW.search(create[table]) is not None
        if there != wanted or by_row != bool(wanted.projects):
            name = _named(table, settings)
            statements = (
                f"ALTER TABLE {name} MODIFY SETTING ttl_only_drop_parts = {0 if wanted.projects else 1}",
                f"ALTER TABLE {name} MODIFY TTL {found['base']} + toIntervalDay({days_sql(wanted)})",
            )
            yield Difference(table, "retention", str(there), str(wanted), statements)


def _kept(days: str) -> Retention:
    projects = tuple(sorted((project, int(own)) for project, own in _OWN.findall(days)))
    return Retention(int(days.rstrip(")").rpartition(" ")[2]), projects)


def _text_search(create: Mapping[str, str], settings: Settings) -> Iterator[Difference]:
    text = create.get(TEXT_TABLE)
    if text is None:
        return
    there = {name for name in TEXT_INDEXES if re.search(rf"\bINDEX {name}\b", text)}
    wanted = set(TEXT_INDEXES) if settings.text_search else set()
    if there == wanted:
        return
    name = _named(TEXT_TABLE, settings)
    if wanted:
        added = ", ".join(
            f"ADD INDEX IF NOT EXISTS {index} lower({column}) TYPE text(tokenizer = splitByNonAlpha)"
            for index, column in TEXT_INDEXES.items()
        )
        # The rows that are there are indexed in the background.
        filled = ", ".join(f"MATERIALIZE INDEX {index}" for index in TEXT_INDEXES)
        statements: tuple[str, ...] = (
            f"ALTER TABLE {name} {added}",
            f"ALTER TABLE {name} {filled}",
        )
    else:
        dropped = ", ".join(f"DROP INDEX IF EXISTS {index}" for index in TEXT_INDEXES)
        statements = (f"ALTER TABLE {name} {dropped}",)
    yield Difference(
        TEXT_TABLE, "text search", "on" if there else "off", "on" if wanted else "off", statements
    )


def _named(table: str, settings: Settings) -> str:
    values = template_values(settings)
    return f"{values['database']}.{table}{values['on_cluster']}"
