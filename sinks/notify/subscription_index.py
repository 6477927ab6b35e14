"""Finds the subscriptions that may match an alert without checking each of them. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import chain

from stepstream.schemas.alert import AlertStruct
from stepstream.schemas.documents import Subscription

_Named = tuple[str, Subscription]


class SubscriptionIndex:
    """Subscriptions by the agent they name. An alert's agent never changes, unlike its severity."""

    def __init__(self, subscriptions: Mapping[str, Subscription]) -> None:
        self._by_agent: dict[str, list[_Named]] = defaultdict(list)
        self._with_patterns: list[_Named] = []
        for named in subscriptions.items():
            pattern = named[1].match.agent
            is_pattern = any(sign in pattern for sign in "*?[")
            (self._with_patterns if is_pattern else self._by_agent[pattern]).append(named)

    def candidates(self, alert: AlertStruct) -> Iterator[_Named]:
        """The subscriptions whose agent is the alert's, and those with a pattern."""
        return chain(self._by_agent.get(alert.agent, ()), self._with_patterns)
