"""``stepstream.query``: questions and SQL from a program."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from stepstream.common.settings import load_with_others, require_clickhouse
from stepstream.queries.answer import Answer
from stepstream.queries.ask import ask
from stepstream.queries.cost_check import COST_CHECK, cost_check_of_file
from stepstream.queries.question import time_limit

if TYPE_CHECKING:
    from stepstream.schemas.settings import Settings

_STATEMENT: Final = re.compile(r"\s*(SELECT|WITH|DESCRIBE|SHOW|EXPLAIN)\s", re.IGNORECASE)


def query(
    question: str,
    *,
    settings: Settings | None = None,
    timeout_s: float | None = None,
    **parameters: Any,
) -> Answer:
    """The answer of the store to a question of ``stepstream ask``, or to an SQL query.

        answer = stepstream.query("cost", by="model", since="7d")
        answer.pandas()

    Parameters are those of the question (``stepstream ask`` lists them; of ``cost-check`` the file
    ``csv`` and ``provider``), or the values of ``{name:Type}`` in the SQL. Raises
    ``QuestionError`` for a wrong question or parameter, ``StoreError`` where the store cannot be
    reached, and ``clickhouse_connect``'s errors. ``settings`` are by default those in force;
    ``timeout_s`` limits the query.
    """
    from stepstream.sinks.clickhouse.client import connect

    in_force = load_with_others()[0] if settings is None else settings
    require_clickhouse(in_force)
    with connect(in_force, readonly=True) as client:
        if question == COST_CHECK:
            return cost_check_of_file(client, timeout_s=timeout_s, **parameters)
        if not _STATEMENT.match(question):
            return ask(client, question, timeout_s=timeout_s, **parameters)
        limits = time_limit(client, timeout_s)
        found = client.query(question, parameters=parameters, settings=limits)
        columns = dict(zip(found.column_names, found.result_columns, strict=False))
        empty: dict[str, list[Any]] = {name: [] for name in found.column_names}
        return Answer("sql", columns or empty, question, parameters)
