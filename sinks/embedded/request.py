"""One HTTP request to ClickHouse: parameters from URL, headers and form, SQL and data from URL and body."""

from __future__ import annotations

import base64
import email
import email.message
import email.policy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import parse_qsl, urlsplit

from stepstream.sinks.embedded.errors import AUTHENTICATION_FAILED, BAD_ARGUMENTS, NOT_IMPLEMENTED, error
from stepstream.sinks.embedded.lexer import Kind, tokens
from stepstream.sinks.embedded.statement import Statement, nesting, parse

Headers: TypeAlias = "email.message.Message[str, str]"

# Parameters that say something about the request; every other one is a setting.
TRANSPORT = frozenset(
    {
        "add_http_cors_header", "buffer_size", "cancel_http_readonly_queries_on_client_close", "client_protocol_version",
        "close_session", "compress", "database", "decompress", "default_format", "enable_http_compression",
        "framing", "http_headers_progress_interval_ms", "http_zlib_compression_level", "password", "query", "query_id",
        "quota_key", "role", "send_progress_in_http_headers", "session_check", "session_id", "session_timeout",
        "stacktrace", "user", "wait_end_of_query",
    }
)  # fmt: skip
_EXTERNAL = ("_structure", "_types", "_format")
# A statement is looked for in so much of the body before all of it is read.
PEEK_BYTES = 1 << 16
MAX_STATEMENT_BYTES = 256 << 20


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

    path: str
    parameters: dict[str, str]
    headers: Headers
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
        return {name[6:]: value for name, value in self.parameters.items() if name.startswith("param_")}

    def flag(self, name: str) -> bool:
        return self.parameters.get(name, "0").lower() in ("1", "true")

    def credentials(self) -> tuple[str, str]:
        """User and password, from wherever ClickHouse takes them."""
        scheme, _, value = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
            except ValueError:
                raise error(AUTHENTICATION_FAILED, "Invalid authentication: the Basic header cannot be read") from None
            return user, password
        if scheme:
            raise error(AUTHENTICATION_FAILED, f"Invalid authentication: {scheme} is not supported, only Basic")
        if self.headers.get("X-ClickHouse-User") or self.headers.get("X-ClickHouse-Key"):
            return self.headers.get("X-ClickHouse-User") or "default", self.headers.get("X-ClickHouse-Key") or ""
        return self.first("user", default="default"), self.first("password")


def read(target: str, method: str, headers: Headers, body: Iterator[bytes]) -> Request:
    """A request from its line, headers and (already plain) body."""
    parts = urlsplit(target)
    parameters = dict(parse_qsl(parts.query, keep_blank_values=True, errors="surrogateescape"))
    files: dict[str, bytes] = {}
    if headers.get("Content-Type", "").lower().startswith("multipart/form-data"):
        fields, files = _form(headers["Content-Type"], b"".join(body))
        parameters.update(fields)
        body = iter(())
    if parameters.get("decompress") == "1" or parameters.get("compress") == "1":
        raise error(
            NOT_IMPLEMENTED,
            "ClickHouse's own compression (compress=1, decompress=1) is not supported: "
            "use HTTP compression (Content-Encoding, Accept-Encoding with enable_http_compression=1)",
        )
    external = tuple(_external(name, data, parameters) for name, data in files.items())
    return Request(parts.path, parameters, headers, body, reads_only=method in ("GET", "HEAD"), external=external)


def _form(content_type: str, body: bytes) -> tuple[dict[str, str], dict[str, bytes]]:
    """The fields of a form, which are parameters, and its files, which are external tables."""
    head = b"Content-Type: " + content_type.encode("latin-1") + b"\r\n\r\n"
    message = email.message_from_bytes(head + body, policy=email.policy.HTTP)
    fields: dict[str, str] = {}
    files: dict[str, bytes] = {}
    for part in message.iter_parts() if isinstance(message, email.message.EmailMessage) else ():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        data = content if isinstance(content, bytes) else b""
        if not isinstance(name, str):
            raise error(BAD_ARGUMENTS, "a part of the form has no name")
        if part.get_filename() is not None:
            files[name] = data
        else:
            fields[name] = data.decode("utf-8", "surrogateescape")
    return fields, files


def _external(name: str, data: bytes, parameters: dict[str, str]) -> External:
    """An external table: its columns are named in NAME_structure, or _1, _2 ... of the types in NAME_types."""
    columns = parameters.get(f"{name}_structure", "")
    if not columns and (types := parameters.get(f"{name}_types", "")):
        columns = ", ".join(f"_{number} {kind}" for number, kind in enumerate(_split_types(types), 1))
    if not columns or not name.isidentifier():
        raise error(BAD_ARGUMENTS, f"external table {name}: it needs a plain name and {name}_structure or {name}_types")
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
            inline = query[found.data :].encode("utf-8", "surrogateescape") if found.data is not None else b""
            request.data = _chain(inline, request.body)
            return found
        more = _whole(request.body)
        return parse(query + "\n" + more.decode("utf-8", "surrogateescape")) if more.strip() else found
    return _from_body(request)


def _from_body(request: Request) -> Statement:
    head = b""
    for piece in request.body:
        head += piece
        if len(head) >= PEEK_BYTES:
            break
    if head[:PEEK_BYTES].lstrip()[:6].upper() == b"INSERT" and len(head) >= PEEK_BYTES:
        beginning = head[:PEEK_BYTES].decode("utf-8", "surrogateescape")  # the rest are data, perhaps many megabytes
        try:
            found = parse(beginning)
        except Exception:
            found = None
        if found is not None and found.data is not None:
            at = len(beginning[: found.data].encode("utf-8", "surrogateescape"))
            request.data = _chain(head[at:], request.body)
            return found
    text = head.decode("utf-8", "surrogateescape") + _whole(request.body).decode("utf-8", "surrogateescape")
    found = parse(text)
    if found.data is not None:
        request.data = _chain(_bytes_from(text, found.data), iter(()))
    return found


def _bytes_from(text: str, at: int) -> bytes:
    return text[at:].encode("utf-8", "surrogateescape")


def _whole(body: Iterator[bytes]) -> bytes:
    pieces, size = [], 0
    for piece in body:
        size += len(piece)
        if size > MAX_STATEMENT_BYTES:
            raise error(BAD_ARGUMENTS, f"a statement of more than {MAX_STATEMENT_BYTES >> 20} MiB")
        pieces.append(piece)
    return b"".join(pieces)


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest
