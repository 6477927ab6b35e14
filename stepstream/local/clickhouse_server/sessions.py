"""HTTP sessions: a connection is kept only for a session that has something to remember (SET, USE,
temporary tables)."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from stepstream.local.clickhouse_server.engine import Connection
from stepstream.local.clickhouse_server.errors import (
    SESSION_IS_LOCKED,
    SESSION_NOT_FOUND,
    TOO_MANY_QUERIES,
    error,
)

DEFAULT_SECONDS = 60.0
MOST_SECONDS = 3600.0
MOST_SESSIONS = 64
"""Sessions with something to remember."""
MOST_NAMES = 1000


@dataclass
class Session:
    """One session; ``connection`` stays None until there is state to keep."""

    expires: float
    connection: Connection | None = None
    busy: threading.Lock = field(default_factory=threading.Lock)


class Sessions:
    """Sessions by (user, id)."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._guard = threading.Lock()
        self._sessions: dict[tuple[str, str], Session] = {}

    @contextlib.contextmanager
    def use(self, user: str, name: str, *, seconds: float, must_exist: bool) -> Iterator[Session]:
        """The session, locked for this request. It ends ``seconds`` after its last use."""
        session = self._find((user, name), must_exist)
        if not session.busy.acquire(blocking=False):
            raise error(SESSION_IS_LOCKED, f"Session {name} is locked by a concurrent client")
        try:
            yield session
        finally:
            session.expires = self._now() + min(max(seconds, 1.0), MOST_SECONDS)
            session.busy.release()

    def _find(self, key: tuple[str, str], must_exist: bool) -> Session:
        with self._guard:
            self._end_old()
            session = self._sessions.get(key)
            if session is None:
                if must_exist:
                    raise error(SESSION_NOT_FOUND, f"Session {key[1]} not found or it has expired")
                self._make_room()
                session = Session(self._now() + MOST_SECONDS)
                self._sessions[key] = session
            return session

    def _make_room(self) -> None:
        """Forget the names of sessions that remember nothing, the oldest first, where there are
        many."""
        spare = [
            key
            for key, one in self._sessions.items()
            if one.connection is None and not one.busy.locked()
        ]
        for key in spare[: max(0, len(self._sessions) - MOST_NAMES + 1)]:
            del self._sessions[key]

    def keep(self, session: Session, connection: Connection) -> None:
        """From now on the session's statements run on this connection."""
        with self._guard:
            kept = sum(1 for other in self._sessions.values() if other.connection is not None)
            if kept >= MOST_SESSIONS:
                raise error(
                    TOO_MANY_QUERIES,
                    f"{kept} sessions with temporary tables or settings are open already",
                )
        session.connection = connection

    def end(self, user: str, name: str) -> None:
        with self._guard:
            session = self._sessions.pop((user, name), None)
        if session is not None and session.connection is not None:
            session.connection.close()

    def _end_old(self) -> None:
        now = self._now()
        for key, session in list(self._sessions.items()):
            if session.expires < now and not session.busy.locked():
                del self._sessions[key]
                if session.connection is not None:
                    session.connection.close()

    def close(self) -> None:
        with self._guard:
            for session in self._sessions.values():
                if session.connection is not None:
                    session.connection.close()
            self._sessions.clear()
