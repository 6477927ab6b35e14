"""Costs by agent and model, from the store with SQL.

Start `stepstream up`, run a traced program (`python examples/first_run.py`), then this one. The
views `runs` and `steps` are a public contract: docs/data-dictionary.md lists their columns.
"""

from __future__ import annotations

import subprocess
import sys

import clickhouse_connect

COSTS = """
    SELECT agent, model, count() AS calls, sum(input_tokens + output_tokens) AS tokens,
           sum(cost_usd) AS usd
    FROM steps
    WHERE kind = 'llm_call' AND start_time > now() - INTERVAL 1 DAY
    GROUP BY agent, model
    ORDER BY usd DESC
    LIMIT 20
"""


def store_url() -> str:
    """The store of a running `stepstream up`, or of the settings: a login that may only read."""
    command = [sys.executable, "-m", "stepstream", "store", "url"]
    return subprocess.check_output(command, text=True).strip()


def main(database: str = "stepstream") -> None:
    client = clickhouse_connect.get_client(dsn=store_url(), database=database)
    print(f"{'agent':<16}{'model':<24}{'calls':>8}{'tokens':>10}{'usd':>12}")
    for agent, model, calls, tokens, usd in client.query(COSTS).result_rows:
        print(f"{agent:<16}{model:<24}{calls:>8}{tokens:>10}{usd or 0:>12.6f}")
    client.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
