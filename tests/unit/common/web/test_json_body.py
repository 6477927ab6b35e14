"""A body with a JSON object, and bodies that are none."""

from __future__ import annotations

import pytest

from stepstream.common.web.body import json_object
from stepstream.common.web.errors import WebError


def test_an_object_and_an_empty_body() -> None:
    assert json_object(rb'{"a": "\ud83d\ude00\u0000", "b": [1.5]}') == {"a": "😀\0", "b": [1.5]}
    assert json_object(b"") == {}


@pytest.mark.parametrize(
    "sent",
    [
        b"{",
        b"[]",
        b"null",
        b'{"a": NaN}',
        b'{"a": ' + b"1" * 5_000 + b"}",
        b"[" * 50_000,
        b'{"a": "\xff"}',
        rb'{"a": "\ud800"}',
        rb'{"a": "\udc00 text"}',
        rb'{"\ud800": 1}',
    ],
    ids=lambda sent: sent[:16].decode("latin-1"),
)
def test_everything_else_is_refused(sent: bytes) -> None:
    with pytest.raises(WebError) as caught:
        json_object(sent)
    assert caught.value.status == 400
    str(caught.value).encode()
