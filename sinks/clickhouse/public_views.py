"""The public views, as files: what users query instead of the tables.

Views hold no data, so there is no history of them: each file is a view as it should be now, and a
view in the store that differs is replaced. The columns come from the migrations:
``${steps_raw_columns}`` stands for those of the table. A view's comment ends with a fingerprint of
its definition.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from string import Template
from typing import Final

from stepstream.schemas.settings import Settings
from stepstream.schemas.usage import TOTALLED
from stepstream.sinks.clickhouse.migrated import shown_columns
from stepstream.sinks.clickhouse.schema import template_values

VIEW_NAMES: Final = (
    "runs",
    "steps",
    "open_steps",
    "alerts",
    "alert_events",
    "alert_marks",
    "findings",
    "deliveries",
    "delivery_events",
    "tasks",
    "task_events",
    "task_refusals",
    "executors",
    "executor_events",
    "eval_trials",
    "eval_verdicts",
    "metrics_1m",
    "metrics_1h",
    "trace",
)

_TABLES: Final = (
    "steps_raw",
    "steps_open",
    "runs_raw",
    "alerts_raw",
    "alert_events_raw",
    "findings_raw",
    "deliveries_raw",
    "tasks_raw",
    "task_events_raw",
    "task_refusals_raw",
    "executor_events_raw",
    "eval_trials_raw",
    "eval_verdicts_raw",
)

_OPEN_STEP_VALUES: Final = {
    "schema_version": "1",
    "phase": "'start'",
    "end_time": "NULL",
    "status": "'running'",
    "duration_us": "NULL",
}
"""What the view ``trace`` shows of a step that has not ended, in columns that only ended steps
have.

Every other such column shows the default of its type.
"""

_FINGERPRINT: Final = re.compile(r" \[([0-9a-f]{12})\]$")


@dataclass(frozen=True, slots=True)
class View:
    """One public view. The first line of its file describes a row."""

    name: str
    description: str
    sql: str

    @property
    def fingerprint(self) -> str:
        """Digest of the definition, by which an outdated view is recognised."""
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
def views() -> tuple[View, ...]:
    """The public views, as they should be."""
    folder = files(__package__).joinpath("views")
    return tuple(
        _view(name, folder.joinpath(f"{name}.sql").read_text(encoding="utf-8"))
        for name in VIEW_NAMES
    )


def _view(name: str, text: str) -> View:
    first, _, sql = text.partition("\n")
    # The settings (${database}) stay in the text, so that they are no part of the fingerprint.
    return View(
        name, first.removeprefix("-- "), Template(sql.strip()).safe_substitute(_column_lists())
    )


def _column_lists() -> dict[str, str]:
    """What ``${..._columns}`` in the files stands for."""
    lists = {f"{table}_columns": _listed(shown_columns(table)) for table in _TABLES}
    opened = shown_columns("steps_open")
    values = [
        f"`{name}`" if name in opened else f"{_open_step_value(name, kind)} AS `{name}`"
        for name, kind in shown_columns("steps_raw").items()
    ]
    counted = [f"{_counted(name)} AS `{name}`" for name in shown_columns("steps_raw")]
    return {
        **lists,
        "steps_open_as_steps": ", ".join(values),
        "steps_counted_columns": ", ".join([*counted, "repeats AS `usage_is_repeated`"]),
    }


_COUNTED: Final = {
    **dict.fromkeys(TOTALLED, "0"),
    "cost_usd": "NULL",
    "cost_source": "toLowCardinality('')",
}
"""What a step shows whose usage repeats that of calls below it: sums over steps are then those of
the worker.
"""


def _counted(name: str) -> str:
    value = _COUNTED.get(name)
    return f"s.`{name}`" if value is None else f"if(repeats, {value}, s.`{name}`)"


def _listed(columns: dict[str, str]) -> str:
    return ", ".join(f"`{name}`" for name in columns)


def _open_step_value(name: str, kind: str) -> str:
    escaped = kind.replace("'", "\\'")
    return _OPEN_STEP_VALUES.get(name, f"defaultValueOfTypeName('{escaped}')")


def fingerprint_of(comment: str) -> str:
    """The fingerprint at the end of a view's comment; empty where there is none."""
    found = _FINGERPRINT.search(comment)
    return found[1] if found else ""


def without_fingerprint(comment: str) -> str:
    """A view's comment as people should read it."""
    return _FINGERPRINT.sub("", comment)
