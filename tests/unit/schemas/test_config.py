"""The documents in force: the same for the worker and for the sink."""

from __future__ import annotations

import pytest

from stepstream.schemas.config import DocumentSet, UnreadableDocument
from stepstream.schemas.documents import Prices
from stepstream.schemas.policy import Policy

PRICES = b'{"kind": "Prices", "name": "ours", "models": [{"model": "m", "input_per_million": "1", "output_per_million": "2"}]}'
POLICY = b'{"kind": "Policy", "name": "p", "rules": [{"rule": "run_steps", "limit": 3}]}'


def test_a_document_comes_changes_and_goes() -> None:
    """Each change names the document that it is about; the same again changes nothing; a tombstone takes it away."""
    held = DocumentSet()
    assert isinstance(held.apply(b"prices/ours", PRICES), Prices)
    assert held.apply(b"prices/ours", PRICES) is None
    assert isinstance(held.apply(b"policy/p", POLICY), Policy)
    assert ([p.name for p in held.of(Prices)], [p.name for p in held.of(Policy)]) == (
        ["ours"],
        ["p"],
    )
    assert isinstance(held.apply(b"prices/ours", None), Prices)
    assert held.apply(b"prices/ours", None) is None
    assert list(held.of(Prices)) == []


@pytest.mark.parametrize(
    "broken", [b"{", b"{}", b'{"kind": "Prices", "name": "ours", "models": [{"model": "m"}]}']
)
def test_what_cannot_be_read_leaves_the_document_before_in_force(broken: bytes) -> None:
    """Prices do not silently go away because somebody wrote one that this program does not know."""
    held = DocumentSet()
    held.apply(b"prices/ours", PRICES)
    with pytest.raises(UnreadableDocument, match="prices/ours"):
        held.apply(b"prices/ours", broken)
    assert [document.name for document in held.of(Prices)] == ["ours"]
