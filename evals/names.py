"""Names in Criteria documents that no run has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from stepstream.schemas.criteria import Criteria, NeverCheck
from stepstream.schemas.suggestions import did_you_mean


def unseen_tools(criteria: Iterable[Criteria], called: Iterable[str]) -> Iterator[str]:
    """A sentence for each tool that a document requires and no run called."""
    seen = sorted(set(called))
    for document in criteria:
        named = dict.fromkeys(
            tool
            for check in document.checks
            # That a forbidden tool was never called is what the document wants.
            if not isinstance(check, NeverCheck)
            for tool in check.named_tools
        )
        for tool in named:
            if seen and tool not in seen:
                hint = did_you_mean(tool, seen)
                yield f"{document.name}: no run called {tool}; {hint}"
