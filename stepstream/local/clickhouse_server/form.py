"""multipart/form-data, as clients of ClickHouse send it: a few fields, and files that are external
tables."""

from __future__ import annotations

import re
from typing import Final

from stepstream.local.clickhouse_server.errors import BAD_ARGUMENTS, error

MOST_PARTS: Final = 1000
_BOUNDARY: Final = re.compile(r"boundary=(?:\"([^\"]{1,70})\"|([^\s;]{1,70}))", re.IGNORECASE)
_PARAMETER: Final = re.compile(
    r"; *(name|filename)=(?:\"((?:[^\"\\]|\\.)*)\"|([^\s;\"]+))", re.IGNORECASE
)


def fields_and_files(content_type: str, body: bytes) -> tuple[dict[str, str], dict[str, bytes]]:
    """The fields of a form, which are parameters, and its files.

    Raises BAD_ARGUMENTS for what is no form.
    """
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise error(BAD_ARGUMENTS, "the form has no boundary")
    mark = b"--" + (found[1] or found[2]).encode("latin-1")
    parts = (b"\r\n" + body).split(b"\r\n" + mark, MOST_PARTS + 1)
    if len(parts) > MOST_PARTS:
        raise error(BAD_ARGUMENTS, f"the form has more than {MOST_PARTS} parts")
    if len(parts) < 2 or not parts[-1].startswith(b"--"):
        raise error(BAD_ARGUMENTS, "the form ends too early")
    fields: dict[str, str] = {}
    files: dict[str, bytes] = {}
    for part in parts[1:-1]:
        name, is_file, data = _part(part)
        if is_file:
            files[name] = data
        else:
            fields[name] = data.decode("utf-8", "surrogateescape")
    return fields, files


def _part(part: bytes) -> tuple[str, bool, bytes]:
    """Name, whether it is a file, and what is in it."""
    head, blank, data = part.partition(b"\r\n\r\n")
    for line in head.decode("utf-8", "surrogateescape").split("\r\n"):
        if line.lower().startswith("content-disposition:"):
            given = {
                kind.lower(): quoted or plain for kind, quoted, plain in _PARAMETER.findall(line)
            }
            if blank and "name" in given:
                return re.sub(r"\\(.)", r"\1", given["name"]), "filename" in given, data
    raise error(BAD_ARGUMENTS, "a part of the form has no name")
