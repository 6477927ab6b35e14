"""The exceptions that the SDK raises into a program.

``CommandNotSent`` of ``stepstream.send_command`` is the seventh; it is in ``stepstream.admin``.

Exception
+-- RunStopped            a person or a policy stopped the run
|   +-- BudgetExceeded    the run's budget is used up
+-- StepRefused           a guardrail of a policy refuses the step
+-- ReleaseUnavailable    ``stepstream.release`` found no release
+-- ValueError
    +-- ArgumentsRefused  the tool's schema does not allow the arguments
    +-- PromptError       a prompt of a release cannot be rendered (``schemas.release``)
"""

from __future__ import annotations

from typing import Any


class RunStopped(Exception):
    """The run was stopped. Every step that it begins raises this until it is resumed.

    ``by`` is the name of the person or policy that stopped it.
    """

    def __init__(
        self, reason: str, *, by: str = "", command_id: str = "", trace_id: str = ""
    ) -> None:
        super().__init__(f"the run was stopped{f' by {by}' if by else ''}: {reason}")
        self.reason = reason
        self.by = by
        self.command_id = command_id
        self.trace_id = trace_id


class BudgetExceeded(RunStopped):
    """The next step would exceed the run's budget. ``what`` is usd, tokens, steps or seconds."""

    def __init__(self, what: str, limit: str, wanted: str, *, trace_id: str = "") -> None:
        super().__init__(
            f"{wanted} would exceed the budget of {limit}", by="budget", trace_id=trace_id
        )
        self.what = what
        self.limit = limit
        self.wanted = wanted


class StepRefused(Exception):
    """A guardrail of a policy refuses the step; the tool or model was not called.

    Other steps of the run may go on. ``reason`` states why without contents of the call, ``detail``
    may quote its arguments. ``repaired`` are the arguments with which it would be allowed, where
    the guardrail repairs arguments and the program makes the call itself; else None.
    """

    def __init__(
        self,
        tool: str,
        reason: str,
        *,
        detail: str = "",
        guardrail: str = "",
        policy: str = "",
        repaired: dict[str, Any] | None = None,
    ) -> None:
        more = f" ({detail})" if detail else ""
        super().__init__(f"{tool} is refused by guardrail {policy}/{guardrail}: {reason}{more}")
        self.tool = tool
        self.reason = reason
        self.detail = detail
        self.guardrail = guardrail
        self.policy = policy
        self.repaired = repaired


class ArgumentsRefused(ValueError):
    """A tool's schema does not allow the arguments; the tool was not called."""

    def __init__(self, tool: str, problems: list[str]) -> None:
        super().__init__(f"{tool}: {'; '.join(problems)}")
        self.tool = tool
        self.problems = problems


class ReleaseUnavailable(Exception):
    """A release can be loaded neither from the endpoint nor from the cache or a file."""
