"""The schema as files: numbered migrations, and the views as they should be. Rendering only, no I/O with the store.

Migrations change tables and are never edited once released. Views hold no data, so they are no history: each file is a view
as it should be now, and a view that differs is replaced. A view's comment ends with a fingerprint of its definition.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from string import Template
from typing import Final

from stepstream.schemas.retention import KINDS
from stepstream.schemas.settings import Settings

DEDUPLICATION_WINDOW: Final = 20_000
"""Insert tokens that each table remembers, many hours of them: a batch is repeated only while it is the partition's newest."""

VIEW_NAMES: Final = (
    "runs",
    "steps",
    "open_steps",
    "alerts",
    "alert_events",
    "findings",
    "deliveries",
    "delivery_events",
    "metrics_1m",
    "metrics_1h",
    "trace",
)
"""Tables whose TTL a setting decides."""

_FINGERPRINT = re.compile(r" \[([0-9a-f]{12})\]$")


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file: its statements are applied in order, each harmless when repeated."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """Identifies the text, before settings are put in."""
        return hashlib.sha256(self.sql.encode()).hexdigest()[:16]

    def statements(self, settings: Settings) -> list[str]:
        """The statements with the settings put in, comments removed."""
        return split(Template(self.sql).substitute(template_values(settings)))


@dataclass(frozen=True, slots=True)
class View:
    """One public view: the first line of its file says what a row is."""

    name: str
    description: str
    sql: str

    @property
    def fingerprint(self) -> str:
        """Changes with the definition."""
        return hashlib.sha256(f"{self.description}\n{self.sql}".encode()).hexdigest()[:12]

    def statement(self, settings: Settings) -> str:
        """Creates the view, or replaces it in one step."""
        values = template_values(settings)
        select = Template(self.sql).substitute(values)
        comment = f"{self.description} [{self.fingerprint}]".replace("\\", "\\\\").replace(
            "'", "\\'"
        )
        name = f"{values['database']}.{self.name}{values['on_cluster']}"
        return f"CREATE OR REPLACE VIEW {name} AS\n{select}\nCOMMENT '{comment}'"


@lru_cache(maxsize=1)
def migrations() -> tuple[Migration, ...]:
    """All migrations, oldest first."""
    found = []
    for path in files(__package__).joinpath("migrations").iterdir():
        number, _, name = path.name.removesuffix(".sql").partition("_")
        if path.name.endswith(".sql"):
            found.append(Migration(int(number), name, path.read_text(encoding="utf-8")))
    return tuple(sorted(found, key=lambda migration: migration.version))


@lru_cache(maxsize=1)
def views() -> tuple[View, ...]:
    """The public views, as they should be."""
    folder = files(__package__).joinpath("views")
    return tuple(
        _view(name, folder.joinpath(f"{name}.sql").read_text(encoding="utf-8"))
        for name in VIEW_NAMES
    )


def _view(name: str, text: str) -> View:
    first, _, sql = text.partition("\n")
    return View(name, first.removeprefix("-- "), sql.strip())


def template_values(settings: Settings) -> dict[str, str]:
    """What ``${...}`` in the files stands for."""
    cluster = settings.clickhouse_cluster
    return {
        "database": settings.clickhouse_database,
        "on_cluster": f" ON CLUSTER '{cluster}'" if cluster else "",
        "replicated": "Replicated" if cluster else "",
        "deduplication": (
            f"non_replicated_deduplication_window = {DEDUPLICATION_WINDOW}, "
            f"replicated_deduplication_window = {DEDUPLICATION_WINDOW}, "
            "replicated_deduplication_window_seconds = 604800"
        ),
        **{
            f"{kind}_retention_days": str(getattr(settings, f"{kind}_retention_days"))
            for kind in KINDS
        },
    }


def split(sql: str) -> list[str]:
    """Statements of a file: each ends with a semicolon at the end of a line; whole-line comments are dropped."""
    lines = [line for line in sql.splitlines() if not line.lstrip().startswith("--")]
    return [
        part.strip()
        for part in re.split(r";\s*$", "\n".join(lines), flags=re.MULTILINE)
        if part.strip()
    ]


def fingerprint_of(comment: str) -> str:
    """The fingerprint at the end of a view's comment; empty where there is none."""
    found = _FINGERPRINT.search(comment)
    return found[1] if found else ""


def without_fingerprint(comment: str) -> str:
    """A view's comment as people should read it."""
    return _FINGERPRINT.sub("", comment)
