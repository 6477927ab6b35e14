"""What ``stepstream doctor`` looks at: this machine, Kafka, ClickHouse, and the processes between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from stepstream.common.extras import EXTRAS
from stepstream.common.settings import Resolved
from stepstream.doctor import local
from stepstream.doctor.check import Check, fail, warn

__all__ = ["Check", "examine"]


def examine(resolved: Resolved) -> Iterator[Check]:
    """Every check, one after the other, as it is done. Nothing is changed anywhere."""
    parts: list[tuple[str, Callable[[], Iterator[Check]]]] = [
        ("this machine", lambda: local.checks(resolved)),
        ("kafka", lambda: _kafka(resolved)),
        ("clickhouse", lambda: _store(resolved)),
    ]
    for name, part in parts:
        try:
            yield from part()
        except ModuleNotFoundError as error:
            extra = EXTRAS.get((error.name or "").partition(".")[0], "all")
            text = f"not looked at: the package {error.name} is not installed"
            yield warn(
                name, text, f"pip install 'stepstream[{extra}]' where you want to look at it"
            )
        except Exception as error:  # the other parts are still worth looking at
            words = (str(error).strip().splitlines() or [""])[0]
            yield fail(
                name,
                f"the check itself failed: {type(error).__name__}: {words}",
                "stepstream --debug doctor",
            )


def _kafka(resolved: Resolved) -> Iterator[Check]:
    from stepstream.doctor import kafka

    yield from kafka.checks(resolved.settings)


def _store(resolved: Resolved) -> Iterator[Check]:
    from stepstream.doctor import store

    yield from store.checks(resolved.settings)
