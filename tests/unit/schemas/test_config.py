"""The documents in force: the same for the worker and for the sink."""

from __future__ import annotations

import pytest

from stepstream.schemas.config import DocumentSet, UnreadableDocument
from stepstream.schemas.documents import Prices
from stepstream.schemas.policy import Policy

PRICES = (
    b'{"kind": "Prices", "name": "ours", "models": '
    b'[{"model": "m", "input_per_million": "1", "output_per_million": "2"}]}'
)
POLICY = b'{"kind": "Policy", "name": "p", "rules": [{"rule": "run_steps", "limit": 3}]}'


def test_a_document_comes_changes_and_goes() -> None:
    """A change names its document; an equal one changes nothing; a tombstone removes it."""
    documents = DocumentSet()
    assert isinstance(documents.apply(b"prices/ours", PRICES), Prices)
    assert documents.apply(b"prices/ours", PRICES) is None
    assert isinstance(documents.apply(b"policy/p", POLICY), Policy)
    assert ([p.name for p in documents.of(Prices)], [p.name for p in documents.of(Policy)]) == (
        ["ours"],
        ["p"],
    )
    assert isinstance(documents.apply(b"prices/ours", None), Prices)
    assert documents.apply(b"prices/ours", None) is None
    assert list(documents.of(Prices)) == []


@pytest.mark.parametrize(
    "broken", [b"{", b"{}", b'{"kind": "Prices", "name": "ours", "models": [{"model": "m"}]}']
)
def test_what_cannot_be_read_leaves_the_document_before_in_force(broken: bytes) -> None:
    """Prices are not silently dropped because of one that this program does not know."""
    documents = DocumentSet()
    documents.apply(b"prices/ours", PRICES)
    # As from a newer release: a program that is updated later must keep its prices.
    with pytest.raises(UnreadableDocument, match="prices/ours"):
        documents.apply(b"prices/ours", broken)
    assert [document.name for document in documents.of(Prices)] == ["ours"]


def test_a_kept_revision_is_not_in_force() -> None:
    """Only the record without a number is; the kept ones are for people."""
    documents = DocumentSet()
    assert documents.apply(b"policy/p@1", POLICY) is None
    assert list(documents.of(Policy)) == []
