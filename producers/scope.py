"""What steps have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stepstream.producers.control.run_control import RunControl


class Scope:
    """What the steps of a run, or of an agent inside it, have in common."""

    __slots__ = ("capture", "control", "trace_id", "whose")

    def __init__(
        self, trace_id: str, whose: dict[str, str], capture: bool, control: RunControl | None = None
    ) -> None:
        self.trace_id = trace_id
        self.whose = whose
        self.capture = capture
        self.control = control
