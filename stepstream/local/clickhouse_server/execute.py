"""A request becomes an answer: whose, on which connection, with which settings, as a whole or in
pieces."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

from stepstream.local.clickhouse_server.engine import Connection, Engine, Totals, quote, quote_name
from stepstream.local.clickhouse_server.errors import (
    BAD_ARGUMENTS,
    READONLY,
    RESULT_TOO_LARGE,
    ClickHouseError,
    error,
)
from stepstream.local.clickhouse_server.guard import check, check_reads
from stepstream.local.clickhouse_server.reach import (
    INSPECTED_BYTES,
    check_format,
    check_no_string_is_a_table,
    may_evaluate,
    with_marked_strings,
)
from stepstream.local.clickhouse_server.request import External, Request, statement_of
from stepstream.local.clickhouse_server.sessions import DEFAULT_SECONDS, Session, Sessions
from stepstream.local.clickhouse_server.statement import Statement, parse
from stepstream.local.clickhouse_server.users import User, settings_for

# Formats whose pieces, put one after the other, are the whole: those without a head or a tail.
STREAMED = frozenset(
    {
        "csv", "jsoncompacteachrow", "jsoncompactstringseachrow", "jsoneachrow", "jsonl",
        "jsonlines",
        "jsonstringseachrow", "lineasstring", "native", "ndjson", "rowbinary", "tabseparated",
        "tabseparatedraw", "tskv",
        "tsv", "tsvraw", "raw",
    }
)  # fmt: skip
# For data in which the engine must not evaluate anything.
LITERALS_ONLY = (
    "input_format_values_interpret_expressions = 0, "
    "input_format_values_deduce_templates_of_expressions = 0"
)
STREAMING_VERBS = frozenset({"SELECT", "WITH", "FROM", "("})
CONTENT_TYPES = {
    "json": "application/json; charset=UTF-8",
    "tabseparated": "text/tab-separated-values; charset=UTF-8",
    "tsv": "text/tab-separated-values; charset=UTF-8",
    "csv": "text/csv; charset=UTF-8; header=absent",
    "csvwithnames": "text/csv; charset=UTF-8; header=present",
    "jsoneachrow": "application/x-ndjson; charset=UTF-8",
    "xml": "application/xml; charset=UTF-8",
}


@dataclass
class Answer:
    """``pieces`` may be read once; after their end ``totals`` are final."""

    pieces: Generator[bytes, None, None]
    totals: Totals
    query_id: str
    format: str
    started: float

    @property
    def content_type(self) -> str:
        name = self.format.lower()
        if name.startswith("json") and not name.endswith("eachrow"):
            name = "json"
        return CONTENT_TYPES.get(
            name, "text/plain; charset=UTF-8" if not name else "application/octet-stream"
        )

    def summary(self) -> str:
        """The value of X-ClickHouse-Summary, numbers as strings as ClickHouse writes them."""
        done = self.totals
        values = {
            "read_rows": done.rows,
            "read_bytes": done.bytes,
            "written_rows": done.written_rows,
            "written_bytes": done.written_bytes,
            "total_rows_to_read": done.rows,
            "result_rows": done.written_rows or done.rows,
            "result_bytes": done.written_bytes or done.bytes,
            "elapsed_ns": int((time.monotonic() - self.started) * 1e9),
        }
        return json.dumps({name: str(value) for name, value in values.items()})


class Executor:
    """Runs requests on the engine for its users."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._sessions = Sessions()

    @contextlib.contextmanager
    def execute(
        self, request: Request, user: User, begins: Callable[[str], None]
    ) -> Iterator[Answer]:
        """The answer, good until the context ends. Raises ClickHouseError at once, or while its
        pieces are read.

        ``begins`` receives the tag by which the engine can cancel the query, before the query
        begins.
        """
        statement = statement_of(request)
        check(statement, request.query_parameters, self.engine.known)
        settings = settings_for(user, request.settings)
        reads_only = user.reader or settings.get("readonly", "0") != "0"
        if request.external and (reads_only or request.reads_only):
            raise error(
                READONLY,
                "read-only access cannot bring external tables: Cannot execute query in readonly "
                "mode",
            )
        if reads_only:
            check_reads(statement, "read-only access cannot")
        elif request.reads_only:
            check_reads(statement, "GET and HEAD can only read, use POST to")
            settings["readonly"] = "2"
        with self._connection(request, user, statement, settings) as connection:
            begins(connection.tag)
            connection.parameters(request.query_parameters)
            _check_strings(statement, connection)
            with self._brought(request.external, connection):
                answer = self._answer(request, statement, connection)
                answer.pieces = _bounded(answer.pieces, user.limits.max_result_bytes)
                try:
                    yield answer
                finally:
                    answer.pieces.close()

    def _answer(self, request: Request, statement: Statement, connection: Connection) -> Answer:
        started = time.monotonic()
        connection.totals = Totals()
        check_format(request.default_format)
        form = statement.format or request.default_format or "TabSeparated"
        query_id = request.query_id or str(uuid.uuid4())
        answer = Answer(_pieces(), connection.totals, query_id, "", started)
        if statement.verb == "INSERT" and (statement.data is not None or not _selects(statement)):
            form = statement.format or request.default_format or "Values"
            self._insert(connection, *statement.at_settings, form, request.data)
        elif not statement.reads:
            # Most have no result; BACKUP, KILL or CHECK answer with rows.
            rows = connection.run(statement.sql, form)
            answer.format, answer.pieces = form if rows else "", _pieces(rows)
        elif statement.verb in STREAMING_VERBS and form.lower() in STREAMED:
            answer.format, answer.pieces = form, connection.stream(statement.sql, form)
        elif statement.verb in STREAMING_VERBS and form.isidentifier():
            answer.format, answer.pieces = (
                form,
                connection.document(lambda path: statement.into(path, form)),
            )
        else:
            answer.format, answer.pieces = form, _pieces(connection.run(statement.sql, form))
        return answer

    def _insert(
        self,
        connection: Connection,
        statement: str,
        settings: str,
        form: str,
        data: Iterator[bytes],
    ) -> None:
        check_format(form)
        pieces: Iterable[bytes] = data
        if form.lower() == "values":
            pieces_read = _up_to(data, INSPECTED_BYTES)
            if not may_evaluate(b"".join(pieces_read), self.engine.known.refused_functions):
                settings = (
                    f"{settings}, {LITERALS_ONLY}" if settings else f" SETTINGS {LITERALS_ONLY}"
                )
            pieces = itertools.chain(pieces_read, data)
        connection.insert(statement, settings, form, pieces)

    @contextlib.contextmanager
    def _brought(self, tables: Sequence[External], connection: Connection) -> Iterator[None]:
        """Temporary tables of what came with the query, for as long as it runs."""
        with contextlib.ExitStack() as stack:
            for table in tables:
                made = parse(
                    f"CREATE TEMPORARY TABLE `{table.name}` ({table.columns}) ENGINE = Memory"
                )
                check(made, {}, self.engine.known)
                _check_strings(made, connection)
                connection.run(made.sql)
                stack.callback(_drop, table, connection)
                self._insert(
                    connection, f"INSERT INTO `{table.name}`", "", table.format, iter([table.data])
                )
            yield

    @contextlib.contextmanager
    def _connection(
        self, request: Request, user: User, statement: Statement, settings: dict[str, str]
    ) -> Iterator[Connection]:
        name = request.first("session_id")
        if not name:
            with contextlib.closing(self.engine.connect(settings, request.database)) as connection:
                yield connection
            return
        seconds, must_exist = _seconds(request), request.flag("session_check")
        with self._sessions.use(user.name, name, seconds=seconds, must_exist=must_exist) as session:
            yield from self._in_session(session, request, statement, settings)
        if request.flag("close_session"):
            self._sessions.end(user.name, name)

    def _in_session(
        self, session: Session, request: Request, statement: Statement, settings: dict[str, str]
    ) -> Iterator[Connection]:
        if session.connection is not None:
            with _temporarily(session.connection, settings, request):
                yield session.connection
            return
        if statement.keeps_state:
            # Only the effect of the statement is kept, not the settings of this one request.
            connection = self.engine.connect({}, request.database)
            self._sessions.keep(session, connection)
            with _temporarily(connection, settings, request):
                yield connection
            return
        with contextlib.closing(self.engine.connect(settings, request.database)) as connection:
            yield connection

    def close(self) -> None:
        """Close everything. Nothing may run any more."""
        self._sessions.close()
        self.engine.close()


def _check_strings(statement: Statement, connection: Connection) -> None:
    """Refuse a statement in which a string is a table: it would be a file."""
    sql, marks = with_marked_strings(statement)
    if marks:
        check_no_string_is_a_table(connection.syntax_tree(sql), marks)


def _drop(table: External, connection: Connection) -> None:
    with contextlib.suppress(ClickHouseError):
        connection.run(f"DROP TEMPORARY TABLE IF EXISTS `{table.name}`")


def _up_to(data: Iterator[bytes], size: int) -> list[bytes]:
    """Pieces until they are more than ``size``, or all of them."""
    pieces_read: list[bytes] = []
    while size >= 0 and (piece := next(data, None)) is not None:
        pieces_read.append(piece)
        size -= len(piece)
    return pieces_read


def _bounded(pieces: Generator[bytes, None, None], most: int) -> Generator[bytes, None, None]:
    """The same pieces, up to this many bytes; 0 is no limit."""
    left = most
    with contextlib.closing(pieces):
        for piece in pieces:
            left -= len(piece)
            if most and left < 0:
                raise error(
                    RESULT_TOO_LARGE,
                    f"Limit for result exceeded: the answer is larger than {most} bytes",
                )
            yield piece


def _pieces(*pieces: bytes) -> Generator[bytes, None, None]:
    yield from pieces


def _selects(statement: Statement) -> bool:
    return any(token.upper in ("SELECT", "WITH", "FROM") for token in statement.tokens)


def _seconds(request: Request) -> float:
    text = request.first("session_timeout", default=str(DEFAULT_SECONDS))
    try:
        return float(text)
    except ValueError:
        raise error(
            BAD_ARGUMENTS, f"session_timeout must be a number of seconds, not {text}"
        ) from None


@contextlib.contextmanager
def _temporarily(
    connection: Connection, settings: dict[str, str], request: Request
) -> Iterator[None]:
    """Settings for one request of a session, put back afterwards. Its reads are checked by the
    guard, not readonly: nothing could be set after that."""
    wanted = {name: value for name, value in settings.items() if name != "readonly"}
    before = _values(connection, wanted) if wanted else {}
    connection.set(wanted)
    if request.parameters.get("database"):
        connection.run(f"USE {quote_name(request.database)}")
    try:
        yield
    finally:
        connection.set(before)


def _values(connection: Connection, names: dict[str, str]) -> dict[str, str]:
    listed = ", ".join(quote(name) for name in names)
    found = connection.run(
        f"SELECT name, value FROM system.settings WHERE name IN ({listed})", "JSONCompactEachRow"
    )
    return dict(json.loads(line) for line in found.decode().splitlines())
