"""Which of many subscriptions may want an alert, without asking each: by the agent that most of them name. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import chain

from stepstream.schemas.alert import AlertStruct
from stepstream.schemas.documents import Subscription

_Named = tuple[str, Subscription]


class SubscriptionIndex:
    """Subscriptions by the one agent that they want, and those that want several. An alert's agent never changes."""

    def __init__(self, subscriptions: Mapping[str, Subscription]) -> None:
        self._by_agent: dict[str, list[_Named]] = defaultdict(list)
        self._others: list[_Named] = []
        for item in subscriptions.items():
            pattern = item[1].match.agent
            (
                self._others if any(sign in pattern for sign in "*?[") else self._by_agent[pattern]
            ).append(item)

    def candidates(self, alert: AlertStruct) -> Iterator[_Named]:
        """Those that may want it."""
        return chain(self._by_agent.get(alert.agent, ()), self._others)
