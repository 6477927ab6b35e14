"""The exceptions that people asked for: the only ones that the SDK raises into a program.

Exception
+-- RunStopped            somebody, or a policy, stopped the run
|   +-- BudgetExceeded    a budget that was given to the run is used up
+-- ValueError
    +-- ArgumentsRefused  arguments that a tool's schema does not allow
"""

from __future__ import annotations


class RunStopped(Exception):
    """The run is to do nothing more. Every step that it begins raises this, until a person approves that it goes on."""

    def __init__(
        self, reason: str, *, by: str = "", command_id: str = "", trace_id: str = ""
    ) -> None:
        super().__init__(f"the run was stopped{f' by {by}' if by else ''}: {reason}")
        self.reason = reason
        self.by = by
        self.command_id = command_id
        self.trace_id = trace_id


class BudgetExceeded(RunStopped):
    """The next step does not fit into the run's budget. ``what`` is usd, tokens, steps or seconds."""

    def __init__(self, what: str, limit: str, wanted: str, *, trace_id: str = "") -> None:
        super().__init__(
            f"{wanted} would exceed the budget of {limit}", by="budget", trace_id=trace_id
        )
        self.what = what
        self.limit = limit
        self.wanted = wanted


class ArgumentsRefused(ValueError):
    """A tool was called with arguments that its schema does not allow; the tool was not called."""

    def __init__(self, tool: str, problems: list[str]) -> None:
        super().__init__(f"{tool}: {'; '.join(problems)}")
        self.tool = tool
        self.problems = problems
