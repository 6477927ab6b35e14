"""What settings decide about tables: how long rows are kept, and whether texts are indexed.

There is no history of these as there is of migrations: ``migrate`` changes what differs from the
settings at every start.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from stepstream.schemas.retention import Retention, retention
from stepstream.schemas.settings import Settings
from stepstream.sinks.clickhouse.errors import StoreError
from stepstream.sinks.clickhouse.migrated import retention_kinds
from stepstream.sinks.clickhouse.schema import template_values

TEXT_TABLE: Final = "steps_raw"
TEXT_INDEXES: Final = {"ft_input": "input", "ft_output": "output"}
"""Word indexes of the text search, in lower case, and the column of each."""

_TTL: Final = re.compile(
    r"\bTTL (?P<base>.+?) \+ toIntervalDay\((?P<days>\d+|multiIf\(.*?\))\)"
    # Recompression, which MODIFY TTL would remove.
    r"(?P<others>, .+? RECOMPRESS CODEC\(.+?\)(?=\s+SETTINGS|\s*$))?",
    re.DOTALL,
)
_OWN: Final = re.compile(r"project = '([^']*)', (\d+)")
_ROW_BY_ROW: Final = re.compile(r"\bttl_only_drop_parts = 0\b")


@dataclass(frozen=True)
class Difference:
    """A property of a table that differs from the settings."""

    table: str
    what: str
    there: str
    wanted: str
    statements: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.what} of {self.table}: {self.there}, wanted {self.wanted}"


def differences(create: Mapping[str, str], settings: Settings) -> list[Difference]:
    """All differences. ``create`` has the CREATE statement of each existing table."""
    return [*_retention(create, settings), *_text_search(create, settings)]


def require_sensible(settings: Settings) -> None:
    """Raise ``StoreError`` where rollups would expire before the rows that they are made from."""
    steps, metrics = retention(settings, "steps"), retention(settings, "metrics")
    for project in ["", *steps.by_project, *metrics.by_project]:
        if metrics.of(project) < steps.of(project):
            whose = f" of project {project}" if project else ""
            raise StoreError(
                f"metrics{whose} would be kept for {metrics.of(project)} days and steps for "
                f"{steps.of(project)}: rows and "
                "rollups would disagree; set metrics_retention_days (or retention_by_project) at "
                "least as high"
            )


def days_sql(kept: Retention) -> str:
    """The number of days as a TTL expression."""
    if not kept.projects:
        return str(kept.days)
    own = ", ".join(f"project = '{project}', {days}" for project, days in kept.projects)
    return f"multiIf({own}, {kept.days})"


def _retention(create: Mapping[str, str], settings: Settings) -> Iterator[Difference]:
    for table, kind in retention_kinds().items():
        found = _TTL.search(create.get(table, ""))
        if found is None:
            continue
        there, wanted = _kept(found["days"]), retention(settings, kind)
        # A part has rows of many projects. Where their days differ, rows expire before the whole
        # part.
        by_row = _ROW_BY_ROW.search(create[table]) is not None
        if there != wanted or by_row != bool(wanted.projects):
            name = _named(table, settings)
            statements = (
                f"ALTER TABLE {name} MODIFY SETTING ttl_only_drop_parts = "
                f"{0 if wanted.projects else 1}",
                f"ALTER TABLE {name} MODIFY TTL {found['base']} "
                f"+ toIntervalDay({days_sql(wanted)}){found['others'] or ''}",
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
            f"ADD INDEX IF NOT EXISTS {index} lower({column}) TYPE text(tokenizer = "
            "splitByNonAlpha)"
            for index, column in TEXT_INDEXES.items()
        )
        # Existing rows are indexed in the background.
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
