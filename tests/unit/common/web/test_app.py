"""Paths without parameters are looked up, with the answers that the routes alone would give."""

from __future__ import annotations

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, Router
from starlette.testclient import TestClient

from stepstream.common.web.app import ExactPaths


def answering(name: str, path: str, method: str = "GET") -> Route:
    async def endpoint(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"{name} {dict(request.path_params)}")

    return Route(path, endpoint, methods=[method])


ROUTES = [
    answering("first", "/a"),
    answering("second", "/a"),
    answering("other method", "/a", "POST"),
    answering("any", "/b/{name}"),
    answering("never", "/b/c"),
    answering("last", "/d"),
]


@pytest.mark.parametrize("path", ["/a", "/b/c", "/b/x", "/d", "/d/", "/none"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT"])
def test_an_answer_is_that_of_the_routes(path: str, method: str) -> None:
    """The first one that matches, its parameters, 404 and 405."""
    plain = Router(ROUTES, redirect_slashes=False)
    found = TestClient(ExactPaths(plain, ROUTES)).request(method, path)
    wanted = TestClient(plain).request(method, path)
    assert (found.status_code, found.text) == (wanted.status_code, wanted.text)
    assert found.headers == wanted.headers
