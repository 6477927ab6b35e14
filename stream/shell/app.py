"""The faust app of a worker, with the settings that differ from faust's defaults."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

import faust

from stepstream.schemas.settings import Settings
from stepstream.stream.shell.connection import broker_urls, credentials

COMMIT_INTERVAL_S: Final = 0.5

METADATA_MS: Final = 5_000
"""A broker that has just started may not know the topics yet, and then the group's leader assigns
none: ask again soon.
"""


def make_app(settings: Settings, group: str) -> faust.App:
    """The app of one worker; the caller replaces its transport."""
    session_s = settings.session_timeout / 1e6
    return faust.App(
        group,
        broker=broker_urls(settings),
        broker_credentials=credentials(settings),
        store="memory://",
        datadir=Path(tempfile.gettempdir()) / "stepstream-worker",
        processing_guarantee="at_least_once",
        stream_wait_empty=False,
        stream_buffer_maxsize=64,
        broker_max_poll_records=5_000,
        consumer_max_fetch_size=4 * 1_048_576,
        broker_commit_interval=COMMIT_INTERVAL_S,
        broker_session_timeout=session_s,
        broker_heartbeat_interval=max(0.5, session_s / 6),
        broker_rebalance_timeout=max(session_s, 10.0),
        broker_request_timeout=max(1.5 * session_s, 15.0),
        consumer_metadata_max_age_ms=METADATA_MS,
        topic_disable_leader=True,
        topic_allow_declare=False,
        web_enabled=False,
    )
