"""A question: its query, its parameters, what its columns mean, and the sentence about its rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from stepstream.queries.answer import Answer, Record
from stepstream.queries.parameters import Parameter

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

Values = Mapping[str, Any]
_USED: Final = re.compile(r"\{(\w+):[^}]+\}")


class Rows(Protocol):
    """Runs a query and returns its rows as dicts."""

    def __call__(self, sql: str, values: Values) -> list[Record]: ...


Finish = Callable[[list[Record], Values, Rows], list[Record]]
"""Makes an answer's rows of those of the query; may ask the store for more."""


@dataclass(frozen=True)
class Question:
    """A question with one query.

    ``sql`` may depend on the values, for instance on the column to group by. Parameters of the kind
    ``run`` are resolved to a whole id before the query runs.
    """

    name: str
    asks: str
    sql: str | Callable[[Values], str]
    parameters: Sequence[Parameter]
    columns: Mapping[str, str]
    """The columns of the answer and what each means."""
    sentence: Callable[[Answer], str]
    finish: Finish | None = None
    is_listed: bool = True
    """Whether `stepstream ask` offers it; the others are for the console."""

    def text(self, values: Values) -> str:
        """The query for these values, with parameters in braces."""
        sql = self.sql if isinstance(self.sql, str) else self.sql(values)
        return sql.strip()


def used_parameters(sql: str, values: Values) -> dict[str, Any]:
    """The values that a query names."""
    return {name: values[name] for name in _USED.findall(sql)}


def for_clients(sql: str, values: Values) -> str:
    """The query as any ClickHouse client runs it: its parameters as SET statements before it."""
    lines = [f"SET param_{name} = {_quoted(value)};" for name, value in values.items()]
    return "\n".join([*lines, f"{sql};"])


# Tab and newline end a value in the format in which ClickHouse keeps parameters.
_ESCAPED: Final = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n"})


def _quoted(value: Any) -> str:
    """The literal of a parameter: its escaped text, whose escapes are escaped in the literal."""
    text = str(value).translate(_ESCAPED).replace("\\", r"\\").replace("'", r"\'")
    return f"'{text}'"


def time_limit(client: Client, timeout_s: float | None) -> dict[str, float]:
    """The setting that limits the time of a query; empty without a limit.

    Empty as well for a user that may not change settings, as the reader of the embedded store: the
    client refuses such a query before it is sent. The server's own limit stays.
    """
    if timeout_s is None:
        return {}
    known = client.server_settings.get("max_execution_time")
    if known is not None and known.readonly:
        return {}
    return {"max_execution_time": timeout_s}


def rows_of(client: Client, timeout_s: float | None = None) -> Rows:
    """Runs queries on a client; each may take ``timeout_s``."""
    settings = time_limit(client, timeout_s)

    def rows(sql: str, values: Values) -> list[Record]:
        parameters = used_parameters(sql, values)
        return list(client.query(sql, parameters=parameters, settings=settings).named_results())

    return rows
