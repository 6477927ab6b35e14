"""One run as a page of its own: the console's renderer with the data in the page."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from stepstream.schemas.times import us_of

STATIC: Final = Path(__file__).parent / "static"
"""The built pages; see web_build/bundle.py."""

CONTENTS: Final = ("input", "output", "documents", "attributes", "tool_schema")
"""Columns of a step that are written only where contents are wanted."""


class PagesMissing(Exception):
    """The pages have not been built; the message states how to build them."""


def page(
    run: Mapping[str, Any],
    steps: Sequence[Mapping[str, Any]],
    *,
    written_at_us: int,
    contents: bool,
) -> str:
    """An HTML document with everything in it.

    ``run`` is a row of the view ``runs``, ``steps`` are rows of ``trace()``. Their values appear
    as JSON and are drawn as text. Raises ``PagesMissing``.
    """
    script = _asset("run.js").replace("</script", r"<\/script").replace("<!--", r"<\!--")
    style = _asset("run.css")
    data = {
        "written_at": written_at_us,
        "run": {name: value for name, value in run.items() if name not in {"path", "path_json"}},
        "steps": _columns(steps),
    }
    if contents:
        data["contents"] = {step["step_id"]: _contents(step) for step in steps}
    policy = (
        f"default-src 'none'; script-src {_source(script)}; style-src {_source(style)}; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="dark light">'
        f"<title>{_title(run)}</title><style>{style}</style></head>\n"
        '<body><div id="app"></div>\n'
        f'<script type="application/json" id="stepstream-data">{_json(data)}</script>\n'
        f"<script>{script}</script></body></html>\n"
    )


def _asset(name: str) -> str:
    try:
        return (STATIC / "export" / name).read_text(encoding="utf-8")
    except OSError as error:
        raise PagesMissing(
            "the console's pages are not built: `make setup` builds them, or "
            "`python web_build/bundle.py`"
        ) from error


def _source(text: str) -> str:
    """What names an inline script or style in a content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _title(run: Mapping[str, Any]) -> str:
    # Hex digits only: an id from elsewhere must not end the title.
    digits = "".join(c for c in str(run.get("trace_id", "")) if c in "0123456789abcdef")
    return f"Run {digits[:6]} · Stepstream"


def _columns(steps: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    names = [name for name in (steps[0] if steps else {}) if name not in CONTENTS]
    return {name: [step[name] for step in steps] for name in names}


def _contents(step: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: step[name] for name in CONTENTS if step.get(name)}
    documents = [_document(document) for document in found.pop("documents", ())]
    sizes = {name: step.get(name) for name in ("input_bytes", "output_bytes")}
    return {**found, **sizes, "documents": documents}


def _document(document: Any) -> dict[str, Any]:
    if isinstance(document, Mapping):
        return dict(document)
    return dict(zip(("id", "score", "content"), document, strict=False))


def _json(data: Any) -> str:
    text = json.dumps(data, default=_plain, separators=(",", ":"), ensure_ascii=False)
    # A less-than sign in a value must not end the element that the data is in. A lone surrogate
    # cannot be encoded; the escape of it can.
    return "".join(
        f"\\u{ord(c):04x}" if c == "<" or 0xD800 <= ord(c) <= 0xDFFF else c for c in text
    )


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return us_of(value)
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)
