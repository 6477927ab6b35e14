"""The migrations: numbered files that make and change tables. No I/O with the store.

A migration is never edited once released.
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
"""Insert tokens that each table remembers: many hours of them.

A batch is repeated only while it is the newest of its partition.
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file: its statements are applied in order, each harmless when repeated."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """Identifies the text, before settings are substituted."""
        return hashlib.sha256(self.sql.encode()).hexdigest()[:16]

    def statements(self, settings: Settings) -> list[str]:
        """The statements with the settings substituted, without comments."""
        return split(Template(self.sql).substitute(template_values(settings)))


@lru_cache(maxsize=1)
def migrations() -> tuple[Migration, ...]:
    """All migrations, oldest first."""
    found = []
    for path in files(__package__).joinpath("migrations").iterdir():
        number, _, name = path.name.removesuffix(".sql").partition("_")
        if path.name.endswith(".sql"):
            found.append(Migration(int(number), name, path.read_text(encoding="utf-8")))
    return tuple(sorted(found, key=lambda migration: migration.version))


def template_values(settings: Settings) -> dict[str, str]:
    """The values of ``${...}`` in the files."""
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
    """Statements of a file: each ends with a semicolon at the end of a line; whole-line comments
    are dropped.
    """
    lines = [line for line in sql.splitlines() if not line.lstrip().startswith("--")]
    return [
        part.strip()
        for part in re.split(r";\s*$", "\n".join(lines), flags=re.MULTILINE)
        if part.strip()
    ]
