"""One HTTP request to ClickHouse: parameters from URL, headers and form, SQL and data from URL and
body."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.types import Scope

from stepstream.common.web.access import Pair, basic
from stepstream.common.web.errors import WebError
from stepstream.local.clickhouse_server.errors import (
    BAD_ARGUMENTS,
    NOT_IMPLEMENTED,
    TOO_LARGE,
    error,
)
from stepstream.local.clickhouse_server.form import fields_and_files
from stepstream.local.clickhouse_server.lexer import Kind, tokens
from stepstream.local.clickhouse_server.statement import Statement, nesting, parse

# Parameters about the request; every other one is a setting.
TRANSPORT = frozenset(
    {
        "add_http_cors_header", "buffer_size", "cancel_http_readonly_queries_on_client_close",
        "client_protocol_version",
        "close_session", "compress", "database", "decompress", "default_format",
        "enable_http_compression",
        "framing", "http_headers_progress_interval_ms", "http_zlib_compression_level", "password",
        "query", "query_id",
        "quota_key", "role", "send_progress_in_http_headers", "session_check", "session_id",
        "session_timeout",
        "stacktrace", "user", "wait_end_of_query",
    }
)  # fmt: skip
_EXTERNAL = ("_structure", "_types", "_format")
# A statement is looked for in so much of the body before all of it is read.
PEEK_BYTES: Final = 1 << 16
STATEMENT_BYTES: Final = 1 << 20
"""More than the engine itself takes (its max_query_size); what follows an INSERT is data and not
counted."""
FORM_BYTES: Final = 16 << 20
_QUERY_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


@dataclass(frozen=True)
class External:
    """Rows that came with a query, to be a table of it."""

    name: str
    columns: str
    format: str
    data: bytes


@dataclass
class Request:
    """What a client asks for."""

    parameters: dict[str, str]
    headers: Mapping[str, str]
    body: Iterator[bytes]
    reads_only: bool = False
    data: Iterator[bytes] = field(default_factory=lambda: iter(()))
    external: tuple[External, ...] = ()

    def first(self, *names: str, header: str = "", default: str = "") -> str:
        """The first given of some parameters, then of a header."""
        for name in names:
            if self.parameters.get(name):
                return self.parameters[name]
        return self.headers.get(header, "") if header and self.headers.get(header) else default

    @property
    def database(self) -> str:
        return self.first("database", header="X-ClickHouse-Database", default="default")

    @property
    def default_format(self) -> str:
        return self.first("default_format", header="X-ClickHouse-Format")

    @property
    def settings(self) -> dict[str, str]:
        of_external = {f"{table.name}{end}" for table in self.external for end in _EXTERNAL}
        return {
            name: value
            for name, value in self.parameters.items()
            if name not in TRANSPORT and not name.startswith("param_") and name not in of_external
        }

    @property
    def query_parameters(self) -> dict[str, str]:
        return {
            name[6:]: value for name, value in self.parameters.items() if name.startswith("param_")
        }

    def flag(self, name: str) -> bool:
        return self.parameters.get(name, "0").lower() in ("1", "true")

    @property
    def query_id(self) -> str:
        """The id that the client gave, where it is one; it comes back in a header of the answer."""
        given = self.first("query_id")
        return given if _QUERY_ID.fullmatch(given) else ""


def parameters_of(scope: Scope) -> dict[str, str]:
    """The parameters in a request's URL; of several with one name the last one counts."""
    query: bytes = scope["query_string"]
    try:
        pairs = parse_qsl(
            query.decode("latin-1"),
            keep_blank_values=True,
            errors="surrogateescape",
            max_num_fields=1000,
        )
    except ValueError:
        raise WebError(400, "the URL has more than 1000 parameters") from None
    return dict(pairs)


def credentials(scope: Scope) -> Pair | None:
    """User and password from a request's head, from wherever ClickHouse takes them; a form is no
    place for them."""
    headers = Headers(scope=scope)
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        return basic(value)
    if scheme:
        raise WebError(401, "Invalid authentication: only Basic is supported")
    for name in ("x-clickhouse-user", "x-clickhouse-key"):
        if len(headers.getlist(name)) > 1:
            raise WebError(400, f"the header {name} is there twice")
    user, key = headers.get("x-clickhouse-user", ""), headers.get("x-clickhouse-key", "")
    if user or key:
        return user or "default", key
    parameters = parameters_of(scope)
    if "user" in parameters or "password" in parameters:
        return parameters.get("user", "default"), parameters.get("password", "")
    return None


def read(scope: Scope, body: Iterator[bytes]) -> Request:
    """A request from its head and its (already plain) body."""
    headers = Headers(scope=scope)
    parameters = parameters_of(scope)
    files: dict[str, bytes] = {}
    kind = headers.get("content-type", "")
    if kind.lower().startswith("multipart/form-data"):
        fields, files = fields_and_files(kind, _whole(body, FORM_BYTES, "a form"))
        parameters.update(fields)
        body = iter(())
    if parameters.get("decompress") == "1" or parameters.get("compress") == "1":
        raise error(
            NOT_IMPLEMENTED,
            "ClickHouse's own compression (compress=1, decompress=1) is not supported: "
            "use HTTP compression (Content-Encoding, Accept-Encoding with "
            "enable_http_compression=1)",
        )
    external = tuple(_external(name, data, parameters) for name, data in files.items())
    return Request(
        parameters, headers, body, reads_only=scope["method"] in ("GET", "HEAD"), external=external
    )


def _external(name: str, data: bytes, parameters: dict[str, str]) -> External:
    """An external table: its columns are named in NAME_structure, or _1, _2 ... of the types in
    NAME_types."""
    columns = parameters.get(f"{name}_structure", "")
    if not columns and (types := parameters.get(f"{name}_types", "")):
        columns = ", ".join(
            f"_{number} {kind}" for number, kind in enumerate(_split_types(types), 1)
        )
    if not columns or not name.isidentifier():
        raise error(
            BAD_ARGUMENTS,
            f"external table {name}: it needs a plain name and {name}_structure or {name}_types",
        )
    return External(name, columns, parameters.get(f"{name}_format", "TabSeparated"), data)


def _split_types(types: str) -> list[str]:
    """At commas that are not within parentheses or quotes."""
    parts, depth, start = [], 0, 0
    for token in tokens(types):
        depth += nesting(token)
        if token.kind is Kind.MARK and token.text == "," and depth == 0:
            parts.append(types[start : token.start])
            start = token.end
    return [*parts, types[start:]]


def statement_of(request: Request) -> Statement:
    """The request's statement; ``request.data`` then yields the data that follow it.

    As in ClickHouse, the text is the parameter ``query`` followed by the body.
    """
    query = request.parameters.get("query", "")
    if query.strip():
        found = parse(query)
        if found.verb == "INSERT":
            inline = (
                query[found.data :].encode("utf-8", "surrogateescape")
                if found.data is not None
                else b""
            )
            request.data = _chain(inline, request.body)
            return found
        more = _whole(request.body, STATEMENT_BYTES, "a statement")
        return (
            parse(query + "\n" + more.decode("utf-8", "surrogateescape")) if more.strip() else found
        )
    return _from_body(request)


def _from_body(request: Request) -> Statement:
    head = bytearray()
    for piece in request.body:
        head += piece
        if len(head) >= PEEK_BYTES:
            break
    if head[:PEEK_BYTES].lstrip()[:6].upper() == b"INSERT" and len(head) >= PEEK_BYTES:
        # The rest are data, perhaps many megabytes.
        beginning = bytes(head[:PEEK_BYTES]).decode("utf-8", "surrogateescape")
        try:
            found = parse(beginning)
        except Exception:
            found = None
        if found is not None and found.data is not None:
            at = len(beginning[: found.data].encode("utf-8", "surrogateescape"))
            request.data = _chain(bytes(head[at:]), request.body)
            return found
    rest = _whole(request.body, STATEMENT_BYTES, "a statement")
    text = (head + rest).decode("utf-8", "surrogateescape")
    if len(text) > STATEMENT_BYTES:
        raise error(TOO_LARGE, f"a statement of more than {STATEMENT_BYTES >> 20} MiB")
    found = parse(text)
    if found.data is not None:
        request.data = _chain(_bytes_from(text, found.data), iter(()))
    return found


def _bytes_from(text: str, at: int) -> bytes:
    return text[at:].encode("utf-8", "surrogateescape")


def _whole(body: Iterator[bytes], most: int, what: str) -> bytes:
    pieces, size = [], 0
    for piece in body:
        size += len(piece)
        if size > most:
            raise error(TOO_LARGE, f"{what} of more than {most >> 20} MiB")
        pieces.append(piece)
    return b"".join(pieces)


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest
