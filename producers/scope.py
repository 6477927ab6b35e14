"""What the steps of a run share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from stepstream.schemas.step import Step as StepRecord

if TYPE_CHECKING:
    from stepstream.producers.control.run_control import RunControl
    from stepstream.schemas.guardrail_check import Selection
    from stepstream.schemas.release import Release


class Scope:
    """What the steps of a run, or of an agent inside it, share.

    ``labels`` are project, environment, agent and, where given, version, task, session and user.
    ``capture`` is the limit of contents that the program has given with ``capture_content``, in
    bytes (``schemas.capture``); None: that of the settings. ``release`` is the release of the
    agent when the run began.
    """

    __slots__ = (
        "_template",
        "capture",
        "control",
        "guardrails",
        "labels",
        "release",
        "trace_id",
    )

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
        # Selected at the first call, and again after a change of policies.
        self.guardrails: Selection | None = None
        self._template: StepRecord | None = None

    def new_record(self) -> StepRecord:
        """The record of a new step: the trace id, the labels, and otherwise the defaults."""
        template = self._template
        if template is None:
            template = self._template = StepRecord(
                trace_id=self.trace_id,
                step_id="",
                phase="start",
                kind="other",
                name="",
                start_time=0,
                **cast(Any, self.labels),
            )
        # A copy takes a fifth of the time of a record from its fields. List and dictionary are
        # those of the template: they are replaced, never changed.
        return template.__copy__()
