"""Signed texts are valid as they were made, for their kind and until their time."""

from __future__ import annotations

import pytest

from stepstream.console.signing import LINK, SESSION, BadSignature, Expired, opened, signed


def test_a_signed_text_gives_its_fields_back() -> None:
    text = signed("secret", LINK, {"user": "ada@host", "n": 1}, 100.0)

    assert opened("secret", LINK, text, 99.0) == {"user": "ada@host", "n": 1}


def test_it_is_invalid_from_its_time_on() -> None:
    with pytest.raises(Expired):
        opened("secret", LINK, signed("secret", LINK, {}, 100.0), 100.0)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-2] + ("AA" if not text.endswith("AA") else "BB"),
        lambda text: "A" + text,
        lambda text: text.partition(".")[0],
        lambda _text: "",
        lambda _text: "é.ß",
        lambda _text: "....",
    ],
)
def test_a_changed_text_is_refused(change) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BadSignature):
        opened("secret", LINK, change(signed("secret", LINK, {"user": "ada"}, 100.0)), 1.0)


def test_a_link_is_no_session_and_another_secret_is_refused() -> None:
    text = signed("secret", LINK, {}, 100.0)

    with pytest.raises(BadSignature):
        opened("secret", SESSION, text, 1.0)
    with pytest.raises(BadSignature):
        opened("other", LINK, text, 1.0)
