"""What two sets of policies find in the same runs, side by side. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from stepstream.backtest.pipeline import Outcome, Raised
from stepstream.schemas.alert import AlertStruct
from stepstream.schemas.times import us_of

STOPPING: Final = frozenset({"pause", "stop"})
SUCCESS: Final = "ok"


class AlertKey(NamedTuple):
    """What makes two alerts of two evaluations the same one."""

    alert: str
    trace_id: str
    subject: str


@dataclass(frozen=True)
class Stopped:
    """A run that a policy would have stopped or paused, and what it used afterwards."""

    trace_id: str
    alert: str
    time_us: int
    cost_nanos: int
    saved_nanos: int
    status: str


@dataclass(frozen=True)
class Agreement:
    """How far an evaluation agrees with the alerts that were really raised."""

    same: int
    missing: tuple[AlertKey, ...]
    """Raised by the worker at the time, and not found by this evaluation."""
    extra: tuple[AlertKey, ...]
    """Found by this evaluation, and not raised by the worker at the time."""

    @property
    def share(self) -> float | None:
        """The share of alerts that both have, of all that either has; None without alerts."""
        whole = self.same + len(self.missing) + len(self.extra)
        return self.same / whole if whole else None


@dataclass(frozen=True)
class Comparison:
    """Two evaluations of the same runs."""

    before: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Number of alerts by alert name and severity, with the policies in force."""
    after: Counter[tuple[str, str]] = field(default_factory=Counter)
    new: tuple[AlertStruct, ...] = ()
    gone: tuple[AlertStruct, ...] = ()
    stopped: tuple[Stopped, ...] = ()

    @property
    def saved_nanos(self) -> int:
        """What the stopped runs used after they would have been stopped."""
        return sum(one.saved_nanos for one in self.stopped)

    @property
    def stopped_in_error(self) -> int:
        """Stopped runs that went on to succeed."""
        return sum(one.status == SUCCESS for one in self.stopped)


def key_of(alert: AlertStruct) -> AlertKey:
    """The key of an alert."""
    return AlertKey(alert.alert, alert.trace_id, alert.subject)


def compared(before: Outcome, after: Outcome, ends: Mapping[str, tuple[str, int]]) -> Comparison:
    """The difference. ``ends`` has the status and the nano-dollars of each run as it ended."""
    old, new = _by_key(before), _by_key(after)
    return Comparison(
        before=_counted(before),
        after=_counted(after),
        new=tuple(alert for key, alert in new.items() if key not in old),
        gone=tuple(alert for key, alert in old.items() if key not in new),
        stopped=tuple(_stopped(after.raised, ends)),
    )


def agreement(
    outcome: Outcome, raised: Iterable[Mapping[str, Any]], complete_until_us: int
) -> Agreement:
    """The agreement with alerts about single runs that were really raised.

    ``raised`` are rows of the view ``alerts``, which has all alerts that were opened before
    ``complete_until_us``; later ones are left out. So are alerts over many runs: whether they open
    depends on runs outside the window.
    """
    times = {key: alert.opened_at for key, alert in _by_key(outcome).items() if key.trace_id}
    found, real = set(times), set[AlertKey]()
    for row in raised:
        key = AlertKey(row["alert"], row["trace_id"], row["subject"])
        if key.trace_id:
            real.add(key)
            times[key] = min(us_of(row["opened_at"]), times.get(key, complete_until_us))
    # A run that hangs now raises its alert in some minutes, here as well as there.
    compared = {key for key, opened_at in times.items() if opened_at < complete_until_us}
    found, real = found & compared, real & compared
    return Agreement(len(found & real), tuple(sorted(real - found)), tuple(sorted(found - real)))


def _by_key(outcome: Outcome) -> dict[AlertKey, AlertStruct]:
    # A withdrawn alert counts: people had been notified of it.
    return {
        key_of(alert): alert
        for alert in sorted(outcome.alerts.values(), key=lambda alert: alert.opened_at)
    }


def _counted(outcome: Outcome) -> Counter[tuple[str, str]]:
    return Counter((alert.alert, alert.severity) for alert in outcome.alerts.values())


def _stopped(raised: Iterable[Raised], ends: Mapping[str, tuple[str, int]]) -> Iterable[Stopped]:
    """The first stop or pause of each run."""
    # What a run did after its first stop is not known, so later ones are not counted.
    seen: set[str] = set()
    for one in raised:
        finding = one.finding
        is_first = finding.trace_id not in seen
        if finding.state == "firing" and finding.action in STOPPING and is_first:
            seen.add(finding.trace_id)
            status, cost_nanos = ends.get(finding.trace_id, ("", one.cost_nanos))
            yield Stopped(
                finding.trace_id,
                finding.alert,
                finding.time,
                one.cost_nanos,
                max(0, cost_nanos - one.cost_nanos),
                status,
            )
