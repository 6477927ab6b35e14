"""chdb as this server uses it: a fresh connection for each query, settings included, nothing left
behind."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import threading
import uuid
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepstream.local.clickhouse_server import config
from stepstream.local.clickhouse_server.errors import (
    UNKNOWN_FORMAT,
    ClickHouseError,
    error,
    from_engine,
)
from stepstream.local.clickhouse_server.guard import ENGINES, Known
from stepstream.local.clickhouse_server.memory import drop_startup_pages, leave_out_data_frames
from stepstream.local.clickhouse_server.reach import check_reach
from stepstream.local.clickhouse_server.statement import parse

# These make chdb behave like a server instead of a command-line tool; a request may override them.
DEFAULTS = {
    "implicit_select": "0",
    "async_insert": "0",
    "allow_introspection_functions": "0",
    "storage_file_read_method": "pread",
}


# Results are sent in pieces of this size: large enough that the cost of a piece does not matter.
PIECE_BYTES = 1 << 20


@dataclass
class Totals:
    """What a query did."""

    rows: int = 0
    bytes: int = 0
    written_rows: int = 0
    written_bytes: int = 0


class EngineError(Exception):
    """The engine cannot be opened; ``in_use`` when another process has the folder."""

    def __init__(self, message: str, in_use: bool) -> None:
        super().__init__(message)
        self.in_use = in_use


def _import_chdb() -> Any:
    leave_out_data_frames()
    try:
        import chdb
    except ImportError as problem:
        raise EngineError(
            f"the package chdb is missing ({problem}): pip install 'stepstream[embedded]'", False
        ) from None
    return chdb


def _is_in_use(status: Path) -> bool:
    """Whether a process has the engine's lock on its folder."""
    import fcntl

    try:
        with status.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


class Engine:
    """The one engine of this process, on one directory. Calls block; chdb releases the GIL."""

    def __init__(self, folder: Path, memory_bytes: int) -> None:
        self._path = str(folder / "store")
        settings = folder / "engine.xml"
        settings.write_text(config.render(config.server_settings(memory_bytes, folder / "backups")))
        self._chdb = _import_chdb()
        # Keeps the engine open while no query runs.
        self._keeper = self._open(f"{self._path}?config-file={settings}", folder)
        functions = self._names("SELECT lower(name) FROM system.table_functions")
        self.known = Known(
            table_functions=functions,
            settings=self._names(
                "SELECT name FROM system.settings WHERE type = 'Bool' "
                "UNION ALL SELECT name FROM system.merge_tree_settings WHERE type = 'Bool'"
            ),
            foreign=self._foreign(Known(table_functions=functions).refused_functions),
        )
        self.version = next(iter(self._names("SELECT version()")))
        self.timezone = next(iter(self._names("SELECT timezone()")))
        drop_startup_pages()

    def _open(self, path: str, folder: Path) -> Any:
        try:
            return self._chdb.connect(path)
        except RuntimeError as problem:
            # The engine has written the reason to stderr.
            in_use = _is_in_use(folder / "store" / "status")
            why = "another process works on it" if in_use else str(problem)
            raise EngineError(f"the engine cannot open {folder}: {why}", in_use) from None

    def _names(self, sql: str) -> frozenset[str]:
        return frozenset(self._keeper.query(sql, "TSV").bytes().decode().split())

    def _foreign(self, refused: frozenset[str]) -> frozenset[str]:
        """Tables and views of an earlier release that read from elsewhere; no statement may name
        them."""
        engines = ", ".join(quote(name) for name in sorted(ENGINES))
        sql = (
            f"SELECT name, lower(engine) IN ({engines}), create_table_query FROM system.tables "
            "WHERE NOT startsWith(engine, 'System') AND database NOT IN ('system', "
            "'INFORMATION_SCHEMA', 'information_schema')"
        )
        found = [
            json.loads(line)
            for line in self._keeper.query(sql, "JSONCompactEachRow").bytes().decode().splitlines()
        ]
        return frozenset(name for name, ours, made in found if not ours or _reaches(made, refused))

    def connect(self, settings: Mapping[str, str], database: str) -> Connection:
        """A connection of its own session."""
        try:
            raw = self._chdb.connect(self._path)
        except RuntimeError as problem:
            raise from_engine(problem) from None
        connection = Connection(raw)
        try:
            # The tag comes last: by it the query is found when its client leaves.
            connection.set({**DEFAULTS, **settings, "log_comment": connection.tag})
            if database and database != "default":
                connection.run(f"USE {quote_name(database)}")
        except BaseException:
            connection.close()
            raise
        return connection

    def cancel(self, tag: str) -> None:
        """Ask the query of that connection to end; the engine checks between blocks."""
        killer = self._chdb.connect(self._path)
        with contextlib.suppress(Exception):
            killer.query(f"KILL QUERY WHERE Settings['log_comment'] = {quote(tag)} ASYNC", "TSV")
        killer.close()

    def release_memory(self) -> None:
        """Give back what past queries needed."""
        with contextlib.suppress(Exception):
            self._keeper.query("SYSTEM JEMALLOC PURGE", "TSV")
        drop_startup_pages()

    def end_queries(self) -> None:
        """Cancel everything that runs, and wait until it has ended."""
        with contextlib.suppress(Exception):
            self._keeper.query("KILL QUERY WHERE query NOT ILIKE 'KILL QUERY%' SYNC", "TSV")

    def close(self) -> None:
        """Let the directory go. Nothing may run any more."""
        self._keeper.close()


def _reaches(made: str, refused: frozenset[str]) -> bool:
    """Whether a table or view that was made so reads from elsewhere."""
    if not made:
        return False
    try:
        check_reach(parse(made), {}, refused, frozenset())
    except ClickHouseError:
        return True
    return False


class Connection:
    """One session of the engine; one query at a time."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self.tag = uuid.uuid4().hex
        self.totals = Totals()

    def set(self, settings: Mapping[str, str]) -> None:
        """Apply settings for all that follows.

        ``readonly`` comes last, because nothing can be set after it.
        """
        ordered = sorted(settings.items(), key=lambda item: item[0] == "readonly")
        if ordered:
            self.run(
                "SET "
                + ", ".join(f"{quote_name(name)} = {quote(value)}" for name, value in ordered)
            )

    def parameters(self, values: Mapping[str, str]) -> None:
        """Values of {name:Type} in what follows."""
        for name, value in values.items():
            self.run(f"SET {quote_name('param_' + name)} = {quote(value)}")

    def run(self, sql: str, form: str = "TabSeparated") -> bytes:
        """Run one statement; the whole answer in that format."""
        try:
            answer = self._raw.query(sql, form)
            self.totals.rows += answer.rows_read()
            self.totals.bytes += answer.bytes_read()
            return answer.bytes() or b""
        except Exception as problem:
            raise from_engine(problem) from None

    def stream(self, sql: str, form: str) -> Generator[bytes, None, None]:
        """Run one query; the answer in pieces, each of them whole rows."""
        try:
            pieces = self._raw.send_query(sql, form)
        except Exception as problem:
            raise from_engine(problem) from None
        try:
            while (piece := pieces.fetch()) is not None:
                self.totals.rows += piece.rows_read()
                self.totals.bytes += piece.bytes_read()
                yield piece.bytes()
        except GeneratorExit:
            raise
        except Exception as problem:
            raise from_engine(problem) from None
        finally:
            with contextlib.suppress(Exception):
                pieces.close()

    def syntax_tree(self, sql: str) -> str:
        """What the engine's parser makes of one statement; it does not run."""
        return self.run(f"EXPLAIN AST {sql}").decode("utf-8", "replace")

    def document(self, into: Callable[[str], str]) -> Generator[bytes, None, None]:
        """Run one query that writes a document to the path that ``into`` receives; yields its
        pieces.

        The document goes through a pipe and is never in memory as a whole. The first piece is
        yielded when no error can follow, or when there is a full piece.
        """
        source, sink = os.pipe()
        failed: list[Exception] = []
        writing = threading.Thread(
            target=self._write_to, args=(into(f"/dev/fd/{sink}"), sink, failed)
        )
        writing.start()
        try:
            pending: list[bytes] = []
            size = 0
            while piece := os.read(source, PIECE_BYTES):
                pending.append(piece)
                size += len(piece)
                if size >= PIECE_BYTES:
                    yield b"".join(pending)
                    pending, size = [], 0
            if failed:
                raise from_engine(failed[0]) from None
            yield b"".join(pending)
        finally:
            os.close(source)  # a query that still writes ends by that
            writing.join()

    def _write_to(self, sql: str, sink: int, failed: list[Exception]) -> None:
        try:
            answer = self._raw.query(sql)
            self.totals.rows += answer.rows_read()
            self.totals.bytes += answer.bytes_read()
        except Exception as problem:
            failed.append(problem)
        finally:
            os.close(sink)

    def insert(self, statement: str, settings: str, form: str, data: Iterable[bytes]) -> None:
        """Insert what ``data`` yields, in that format, all or nothing as far as one block goes.

        The data are taken whole first: a client that leaves in between inserts nothing. chdb's own
        ``send_insert`` is not used: its ``finish`` reports success where writing failed (a
        constraint, a view, a full disk).
        """
        if not form.isidentifier():
            raise error(UNKNOWN_FORMAT, f"Unknown format {form}")
        with tempfile.TemporaryFile() as body:
            for piece in data:
                body.write(piece)
            body.flush()
            body.seek(0)
            try:
                done = self._raw.query(
                    f"{statement} FROM INFILE '/dev/fd/{body.fileno()}' {settings} FORMAT {form}"
                )
            except Exception as problem:
                raise from_engine(problem) from None
        self.totals.written_rows += done.rows_read()
        self.totals.written_bytes += done.bytes_read()

    def close(self) -> None:
        self._raw.close()


def quote(value: str) -> str:
    """As a string in SQL."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def quote_name(name: str) -> str:
    """As a name in SQL."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"
