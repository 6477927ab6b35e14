"""The checks of ``stepstream doctor``: this machine, Kafka, ClickHouse and the processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from stepstream.common.extras import EXTRAS
from stepstream.common.settings import Resolved
from stepstream.doctor import local
from stepstream.doctor.check import Check, fail, warn

__all__ = ["Check", "examine"]


def examine(resolved: Resolved) -> Iterator[Check]:
    """Run the checks one after the other and yield each result as soon as it is known.

    Changes nothing.
    """
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
            text = f"not checked: the package {error.name} is not installed"
            yield warn(name, text, f"pip install 'stepstream[{extra}]' to check it from here")
        except Exception as error:  # the other parts are still checked
            words = (str(error).strip().splitlines() or [""])[0]
            yield fail(
                name,
                f"the check itself failed: {type(error).__name__}: {words}",
                "stepstream --debug doctor",
            )


def _kafka(resolved: Resolved) -> Iterator[Check]:
    # Imported here, so that a missing extra becomes one line and the other parts still run.
    from stepstream.doctor import kafka

    yield from kafka.checks(resolved.settings)


def _store(resolved: Resolved) -> Iterator[Check]:
    from stepstream.doctor import store

    yield from store.checks(resolved.settings)
