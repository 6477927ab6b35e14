"""What the steps of a run share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stepstream.producers.control.run_control import RunControl
    from stepstream.schemas.release import Release


class Scope:
    """What the steps of a run, or of an agent inside it, share.

    ``labels`` are project, environment, agent and, where given, version, task, session and user.
    ``capture`` is the limit of contents that the program has given with ``capture_content``, in
    bytes (``schemas.capture``); None: that of the settings. ``release`` is the release of the
    agent when the run began.
    """

    __slots__ = ("capture", "control", "labels", "release", "trace_id")

    def __init__(
        self,
        trace_id: str,
        labels: dict[str, str],
        capture: int | None,
        control: RunControl | None = None,
        release: Release | None = None,
    ) -> None:
        self.trace_id = trace_id
        self.labels = labels
        self.capture = capture
        self.control = control
        self.release = release
