"""The documents in force, read from the records of the config topic."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from stepstream.schemas.documents import Prices, WrongDocument, decode_document
from stepstream.schemas.prices import PriceBook

_Kind = TypeVar("_Kind")


class UnreadableDocument(ValueError):
    """A record of the config topic that is not a document of this version; the message names it."""


class DocumentSet:
    """Documents by key, as the config topic has them."""

    def __init__(self) -> None:
        self._by_key: dict[str, object] = {}

    def apply(self, key: bytes | None, value: bytes | None) -> object | None:
        """Apply one record. Returns the document that changed or was deleted, None without a
        change.

        Raises ``UnreadableDocument``; the previous document then stays in force.
        """
        name = (key or b"").decode("utf-8", "replace")
        if "@" in name:
            return None  # a revision that is kept; the record without @ is in force
        if name.startswith("subscription/"):
            # Only notifiers use subscriptions. The package of a subscription's channel may be
            # installed only where a notifier runs, and is not loaded elsewhere.
            return None
        before = self._by_key.get(name)
        try:
            after = decode_document(value) if value else None
        except WrongDocument as error:
            raise UnreadableDocument(
                f"document {name} on the config topic is ignored: {error}"
            ) from error
        if after is None:
            self._by_key.pop(name, None)
        else:
            self._by_key[name] = after
        return None if before == after else after or before

    def of(self, kind: type[_Kind]) -> Iterator[_Kind]:
        """The documents of one kind."""
        return (document for document in self._by_key.values() if isinstance(document, kind))

    def price_book(self) -> PriceBook:
        """The prices in force."""
        return PriceBook(tuple(self.of(Prices)))
