"""What a usage stage takes over from the fleet topic, each checked as it is read.

Windows, checkpoints, days, baselines.

What is taken here is used for weeks: what would raise or make no sense then is refused now.
"""

from __future__ import annotations

import msgspec

from stepstream.schemas.fleet import FleetBaselineStruct, FleetWindowStruct, LearntDayStruct
from stepstream.schemas.misfits import MAX_TIME_US
from stepstream.schemas.normalise import MAX_COUNT
from stepstream.schemas.times import HOUR_US
from stepstream.stream.baselines.records import checked_baseline, checked_day
from stepstream.stream.usage.windows.checkpoint import (
    KEY_PREFIX,
    Checkpoint,
    checkpoint_key,
    decode_checkpoint,
)

_decode_window = msgspec.json.Decoder(FleetWindowStruct).decode
_decode_day = msgspec.json.Decoder(LearntDayStruct).decode
_decode_baseline = msgspec.json.Decoder(FleetBaselineStruct).decode


class FleetRecords:
    """Records of one partition, by what they are."""

    def __init__(self) -> None:
        self.windows: list[FleetWindowStruct] = []
        self.checkpoints: list[Checkpoint] = []
        self.days: list[LearntDayStruct] = []
        self.baselines: list[FleetBaselineStruct] = []

    def take(self, key: bytes, value: bytes, latest_us: int = MAX_TIME_US) -> None:
        """Add a record.

        A checkpoint must not lie after ``latest_us``: nothing would be evaluated or sealed until
        then.

        Raises:
            UnknownCheckpoint: a newer worker wrote the checkpoint.
            ValueError: the record is invalid.
        """
        if key.startswith(KEY_PREFIX):
            checkpoint = _checked_checkpoint(decode_checkpoint(value), latest_us)
            _check(
                key == checkpoint_key(checkpoint.through),
                f"the checkpoint {checkpoint.through} under {key[:100]!r}",
            )
            self.checkpoints.append(checkpoint)
            return
        # Keys of newer workers, which this one does not know, are left alone.
        if key.startswith(b"!"):
            return
        kind = key.split(b"|", 2)[1:2]
        if kind == [b"window"]:
            self.windows.append(checked_window(_decode_window(value)))
        elif kind == [b"learnt"]:
            self.days.append(checked_day(_decode_day(value)))
        elif kind == [b"baseline"]:
            self.baselines.append(checked_baseline(_decode_baseline(value)))
        elif not kind:
            raise ValueError(f"no key of the fleet topic: {key[:100]!r}")


def _check(is_right: bool, what: str) -> None:
    if not is_right:
        raise ValueError(what)


def _checked_checkpoint(checkpoint: Checkpoint, latest_us: int) -> Checkpoint:
    times = {
        name: getattr(checkpoint, name) for name in ("sealed_until", "watermark_us", "evaluated_us")
    }
    times |= {
        f"progress of partition {number}": time_us
        for number, time_us in checkpoint.progress.items()
    }
    for name, time_us in times.items():
        _check(0 <= time_us <= latest_us, f"{name} is no time until {latest_us}: {time_us}")
    _check(0 <= checkpoint.through <= MAX_COUNT, f"through is no offset: {checkpoint.through}")
    return checkpoint


def checked_window(window: FleetWindowStruct) -> FleetWindowStruct:
    """The window, if it is one. Raises ``ValueError``."""
    is_right = 0 <= window.start < window.end < MAX_TIME_US and window.end - window.start <= HOUR_US
    _check(is_right, f"no stretch of an hour: {window.start} to {window.end}")
    for minute in window.minutes:
        for bucket, count in minute.latency.items():
            _check(
                bucket.isascii() and bucket.lstrip("-").isdigit(),
                f"no bucket of a duration: {bucket[:40]!r}",
            )
            _check(
                len(bucket) < 6 and 0 <= count <= MAX_COUNT,
                f"no count of a duration: {bucket[:40]}: {count}",
            )
    return window
