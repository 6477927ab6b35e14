"""What a project's scheduler wants done: the partition turns it into records."""

from __future__ import annotations

from typing import Protocol

from stepstream.schemas.alert import Command, Finding
from stepstream.schemas.task_bindings import Binding
from stepstream.schemas.task_state import ExecutorState, TaskRefusal, TaskState


class Effects(Protocol):
    """The results of processing a record, or of time that has passed."""

    epoch: int
    """The epoch of new records and fencing numbers."""

    def task_changed(self, task: TaskState) -> None:
        """Publish the task at the end of the batch, once, whatever else changes until then."""

    def then(self, task: TaskState, binding: Binding) -> None:
        """Send a binding after the record of the task, which has to be acknowledged first."""

    def executor_changed(self, state: ExecutorState) -> None:
        """Publish an executor."""

    def send(self, binding: Binding) -> None:
        """Send a binding that no state depends on."""

    def command(self, command: Command) -> None:
        """Send a command to a run."""

    def refused(self, refusal: TaskRefusal) -> None:
        """Publish a refusal."""

    def found(self, finding: Finding) -> None:
        """Report a finding."""

    def count(self, name: str) -> None:
        """Add one to a counter of tasks."""

    def next_fence(self) -> int:
        """A fencing number that is higher than every one before."""
