"""The data dictionary: the public views and their columns as the store itself describes them.

``python -m stepstream.sinks.clickhouse.dictionary > docs/data-dictionary.md`` writes it, from any store that is up to date.
"""

from __future__ import annotations

import sys

from clickhouse_connect.driver.client import Client

from stepstream.sinks.clickhouse import descriptions
from stepstream.sinks.clickhouse.public_views import VIEW_NAMES, without_fingerprint

HEAD = """\
# Data dictionary

What `stepstream sql` and every other ClickHouse client find in the database. These views are a contract: columns are only
ever added. The tables behind them (`*_raw`) may change. Times are UTC; `DESCRIBE runs` shows the same comments.

This file is written by `python -m stepstream.sinks.clickhouse.dictionary`; do not edit it.
"""


def dictionary(client: Client) -> str:
    """The document, in Markdown."""
    return "\n".join([HEAD, *(_view(client, name) for name in VIEW_NAMES)])


def _view(client: Client, name: str) -> str:
    comment = client.query(
        "SELECT comment FROM system.tables WHERE database = currentDatabase() AND name = {name:String}",
        parameters={"name": name},
    ).result_rows[0][0]
    lines = [
        f"## {name}",
        "",
        without_fingerprint(comment),
        "",
        "| column | type | meaning |",
        "|---|---|---|",
    ]
    lines += [
        f"| `{column}` | {kind} | {meaning} |" for column, kind, meaning in _columns(client, name)
    ]
    return "\n".join(lines) + "\n"


def _columns(client: Client, name: str) -> list[tuple[str, str, str]]:
    """Name, type and meaning; a view with parameters cannot hold comments, so its columns are explained from here."""
    source = f"(SELECT * FROM {name}(id = ''))" if name == "trace" else name
    explained = descriptions.columns()["steps"] | {
        "offset_us": "microseconds since the run's first step started"
    }
    rows = client.query(f"DESCRIBE {source}").result_rows
    return [(row[0], _plain(row[1]), row[4] or explained.get(row[0], "")) for row in rows]


def _plain(kind: str) -> str:
    """A type as people read it."""
    one_line = " ".join(kind.split()).replace("( ", "(")
    for wrapper in ("LowCardinality(String)", "Nullable(LowCardinality(String))"):
        one_line = one_line.replace(wrapper, "String")
    return one_line.replace(", 'UTC')", ")").replace("('UTC')", "")


def main() -> None:
    """Print the document for the store of the settings."""
    from stepstream.common.settings import load
    from stepstream.sinks.clickhouse.client import connect

    sys.stdout.write(dictionary(connect(load())))


if __name__ == "__main__":
    main()
