"""An answer: named columns, the sentence that explains it, and the query that gave it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

Record = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What the store answered."""

    question: str
    data: Mapping[str, Sequence[Any]]
    """The values of each column, in the order of the columns."""
    sql: str = ""
    """The query, with its parameters in braces."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """The values of the query's parameters."""
    sentence: str = ""
    """What the rows mean, in one line."""

    @property
    def columns(self) -> list[str]:
        return list(self.data)

    @property
    def rows(self) -> list[tuple[Any, ...]]:
        # strict: columns of different lengths would be a defect of the query, not of the data.
        return list(zip(*self.data.values(), strict=True))

    def records(self) -> list[Record]:
        """Each row as a dict."""
        return [dict(zip(self.data, row, strict=True)) for row in self.rows]

    def __len__(self) -> int:
        return len(next(iter(self.data.values()), ()))

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records())

    def arrow(self) -> pyarrow.Table:
        """The rows as an Arrow table. Raises ``ModuleNotFoundError`` without pyarrow."""
        import pyarrow

        return pyarrow.table({name: list(values) for name, values in self.data.items()})

    def pandas(self) -> pandas.DataFrame:
        """The rows as a pandas data frame. Raises ``ModuleNotFoundError`` without pandas."""
        import pandas

        return pandas.DataFrame({name: list(values) for name, values in self.data.items()})

    def polars(self) -> polars.DataFrame:
        """The rows as a polars data frame. Raises ``ModuleNotFoundError`` without polars."""
        import polars

        return polars.DataFrame({name: list(values) for name, values in self.data.items()})


def from_records(records: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> dict[str, Any]:
    """The columns of rows that are dicts; also where there are no rows."""
    return {name: [record[name] for record in records] for name in columns}
