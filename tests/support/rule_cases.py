"""For each rule about a run: steps that break it, and steps that come close and do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stepstream.schemas.rules import default_rules
from tests.support.stream_bench import Bench, policy, root, step

# When a record is appended, and the record.
Sent = tuple[float, dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """A rule, a run that breaks it, and one that comes close and does not.

    ``severity``, ``message`` and ``unit`` are those of the last finding about ``breaks``.
    """

    rule: dict[str, Any]
    """The rule as a policy has it."""
    breaks: list[Sent]
    calm: list[Sent]
    severity: str
    message: str
    """A regular expression for the whole message."""
    subject: str = ""
    """The finding's subject; * stands for any text."""
    evidence: tuple[int, ...] = ()
    """The numbers of the steps that the finding names; 1 is the root."""
    unit: str = ""
    firing: int = 1
    """How many findings there are, such as one for each level."""
    wait_s: float = 0.0
    """How long the run is followed in log time; 0: ``settle_s`` after its last record."""
    settle_s: float = 0.6
    any_order: bool = False
    """Whether the findings are the same in every order of the records."""

    @property
    def alert(self) -> str:
        return str(self.rule["rule"]).replace("_", "-")

    def bench(self, **changes: Any) -> Bench:
        """A bench under a policy with this rule alone."""
        defaults = [
            {"rule": rule.rule, "enabled": False}
            for rule in default_rules("run")
            if rule.rule != self.rule["rule"]
        ]
        return Bench(policy({**self.rule, **changes}, *defaults))


def call(
    number: int,
    at_s: float,
    *,
    tool: str = "search",
    given: str = "q",
    answer: str = "a",
    **more: Any,
) -> Sent:
    """A tool call, known at its end."""
    item = step(
        number,
        "end",
        at_s,
        at_s + 0.1,
        kind="tool_call",
        name=tool,
        tool=tool,
        input=given,
        output=answer,
        **more,
    )
    return at_s + 0.1, item


def spend(number: int, at_s: float, usd: str = "0.4", tokens: int = 0) -> Sent:
    """A model call that costs something."""
    usage = {"input_tokens": tokens} if tokens else {}
    return at_s, step(number, "end", at_s, kind="llm_call", model="m", cost_usd=usd, usage=usage)


def guarded(number: int, at_s: float, action: str, guardrail: str = "limit") -> Sent:
    """The step of a guardrail's decision."""
    attributes = {"action": action, **({"guardrail": guardrail} if guardrail else {})}
    return at_s, step(
        number, "end", at_s, kind="guardrail", name="costs/limit", attributes=attributes
    )


BEGIN: Sent = (0.0, root("start", 0.0))


def done(at_s: float, **more: Any) -> Sent:
    return at_s, root("end", 0.0, at_s, **more)


CASES = (
    Case(
        {"rule": "run_cost", "limit_usd": "1"},
        [BEGIN, spend(2, 1), spend(3, 2), spend(4, 3, "0.21")],
        # Exactly the limit: only more than it is a finding.
        [BEGIN, spend(2, 1), spend(3, 2), spend(4, 3, "0.2")],
        "error",
        r"cost \$1\.01 so far, the limit is \$1\.00",
        evidence=(2, 3, 4),
        unit="usd",
        any_order=True,
    ),
    Case(
        {"rule": "run_cost", "limit_usd": "1", "warn_usd": "0.5"},
        [BEGIN, spend(2, 1), spend(3, 2), spend(4, 3)],
        [BEGIN, spend(2, 1), spend(3, 2, "0.1")],
        "error",
        r"cost \$1\.20 so far, the limit is \$1\.00",
        evidence=(2, 3, 4),
        unit="usd",
        firing=2,
        any_order=True,
    ),
    Case(
        {"rule": "run_tokens", "limit": 1000},
        [BEGIN, spend(2, 1, tokens=600), spend(3, 2, tokens=401)],
        [BEGIN, spend(2, 1, tokens=600), spend(3, 2, tokens=400)],
        "error",
        r"1,001 tokens so far, the limit is 1,000",
        evidence=(2, 3),
        unit="tokens",
        any_order=True,
    ),
    Case(
        {"rule": "run_steps", "limit": 3},
        [BEGIN, spend(2, 1), spend(3, 2), spend(4, 3)],
        [BEGIN, spend(2, 1), spend(3, 2)],
        "error",
        r"4 steps so far, the limit is 3",
        evidence=(4,),
        unit="steps",
    ),
    Case(
        {"rule": "run_duration", "limit": "10s"},
        [BEGIN, (1.0, step(2, "start", 1.0, kind="tool_call", tool="search"))],
        [BEGIN, (1.0, step(2, "end", 1.0, 2.0)), done(9.9)],
        "error",
        r"10(\.\d+)? s, the limit is 10 s",
        evidence=(2,),
        unit="us",
        wait_s=12,
    ),
    Case(
        {"rule": "run_duration", "limit": "10s"},
        # Without a start: the duration is known only when the end arrives.
        [(0.1, step(2, "end", 0.05, 0.06)), (0.1, root("end", -11.0, 0.0))],
        [(0.1, step(2, "end", 0.05, 0.06)), (0.1, root("end", -10.0, 0.0))],
        "error",
        r"11 s, the limit is 10 s",
        unit="us",
        any_order=True,
    ),
    Case(
        {"rule": "step_duration", "limit": "10s", "kind": "tool_call", "tool": "sea*"},
        [BEGIN, (1.0, step(2, "start", 1.0, kind="tool_call", tool="search"))],
        [
            BEGIN,
            # Hung as well, but of a tool that the rule does not name.
            (1.0, step(2, "start", 1.0, kind="tool_call", tool="fetch")),
            call(3, 2.0),
            done(20.0),
        ],
        "warning",
        r"tool_call search has been running for 10(\.\d+)? s, the limit is 10 s",
        subject=f"{2:016x}",
        evidence=(2,),
        unit="us",
        wait_s=13,
    ),
    Case(
        {"rule": "step_duration", "limit": "10s"},
        [BEGIN, (1.0, step(2, "end", -11.0, 1.0, kind="tool_call", tool="search"))],
        [BEGIN, (1.0, step(2, "end", -9.0, 1.0, kind="tool_call", tool="search"))],
        "warning",
        r"tool_call search took 12 s, the limit is 10 s",
        subject=f"{2:016x}",
        evidence=(2,),
        unit="us",
        any_order=True,
    ),
    Case(
        {"rule": "hung_step", "after": "20s"},
        [BEGIN, (1.0, step(2, "start", 1.0, kind="tool_call", tool="search"))],
        [
            BEGIN,
            (1.0, step(2, "start", 1.0, kind="tool_call", tool="search")),
            # Something else happens in the run: the step is slow, and the run is alive.
            (18.0, step(3, "end", 17.0, 18.0)),
            done(21.5),
        ],
        "error",
        r"tool_call search started 20(\.\d+)? s ago, has not ended, and nothing else happens in "
        r"the run",
        subject=f"{2:016x}",
        evidence=(2,),
        unit="us",
        wait_s=25,
    ),
    Case(
        {"rule": "stuck_run", "after": "20s"},
        [BEGIN, (1.0, step(2, "end", 0.5, 1.0))],
        [BEGIN, (1.0, step(2, "end", 0.5, 1.0)), (20.0, step(3, "end", 19.0, 20.0)), done(30.0)],
        "error",
        r"nothing has happened for 20(\.\d+)? s, and the run has not ended",
        evidence=(1,),
        unit="us",
        wait_s=25,
    ),
    Case(
        {"rule": "loop", "repeats": 3},
        [BEGIN, call(2, 1), call(3, 2), call(4, 3)],
        # A new answer, and a new input: neither of them is the same call with the same result.
        [BEGIN, call(2, 1), call(3, 2), call(4, 3, answer="another"), call(5, 4, given="another")],
        "warning",
        r"search was called 3 times with the same input and gave the same answer",
        subject="search:*",
        evidence=(2, 3, 4),
        unit="count",
    ),
    Case(
        {"rule": "loop", "repeats": 3},
        [BEGIN, *(call(n, n, answer="", status="error", error_type="Timeout") for n in (2, 3, 4))],
        [BEGIN, *(call(n, n, answer="", status="error" if n < 4 else "ok") for n in (2, 3, 4))],
        "warning",
        r"search was called 3 times with the same input and failed the same way",
        subject="search:*",
        evidence=(2, 3, 4),
        unit="count",
    ),
    Case(
        {"rule": "tool_error_ignored"},
        [
            BEGIN,
            call(2, 1, status="error", error_type="Timeout"),
            call(3, 2, tool="other"),
            done(3),
        ],
        [BEGIN, call(2, 1, status="error", error_type="Timeout"), call(3, 2), done(3)],
        "warning",
        r"search failed, no later call made up for it, and the run went on as if it had succeeded",
        subject="search",
        evidence=(2,),
        settle_s=3.0,
    ),
    Case(
        {"rule": "tool_error_ignored"},
        [
            BEGIN,
            call(2, 1, status="error", error_message="no route"),
            (2.1, step(3, "end", 2.0, 2.1, kind="output", output="All done.")),
        ],
        [
            BEGIN,
            call(2, 1, status="error"),
            # The SDK's own mark for an alternative, though its tool is another one.
            (1.5, step(4, "start", 1.5, kind="llm_call", fallback_of=f"{2:016x}")),
            (2.1, step(3, "end", 2.0, 2.1, kind="output", output="All done.")),
            done(3),
        ],
        "error",
        r"search failed, no later call made up for it, "
        r"and the agent answered without mentioning it",
        subject="search",
        evidence=(2, 3),
        settle_s=3.0,
    ),
    Case(
        {"rule": "tool_error_ignored"},
        [BEGIN, call(2, 1, status="error"), done(3)],
        # The run itself failed: the error was not ignored.
        [BEGIN, call(2, 1, status="error"), done(3, status="error")],
        "warning",
        r"search failed, no later call made up for it, and the run went on as if it had succeeded",
        subject="search",
        evidence=(2,),
        settle_s=3.0,
    ),
    Case(
        {"rule": "tool_error_recovered"},
        [BEGIN, call(2, 1, status="error", error_type="Timeout"), call(3, 2), done(3)],
        [
            BEGIN,
            call(2, 1, status="error", error_type="Timeout"),
            call(3, 2, tool="other"),
            done(3),
        ],
        "note",
        r"search failed; it was called again",
        subject="search",
        evidence=(2, 3),
        settle_s=3.0,
    ),
    Case(
        {"rule": "unpriced_model"},
        [
            BEGIN,
            (
                1.0,
                step(
                    2, "end", 1.0, kind="llm_call", model="made-up-1", usage={"input_tokens": 1200}
                ),
            ),
        ],
        [
            BEGIN,
            (
                1.0,
                step(
                    2,
                    "end",
                    1.0,
                    kind="llm_call",
                    model="made-up-1",
                    usage={"input_tokens": 1200},
                    # A cost of 0 that was given is known; it is no missing price.
                    cost_usd="0",
                ),
            ),
        ],
        "warning",
        r"no price is known for model made-up-1: its 1,200 tokens count as cost unknown, not as "
        r"free",
        subject="made-up-1",
        evidence=(2,),
        unit="tokens",
        any_order=True,
    ),
    Case(
        {"rule": "expr", "when": "run.calls['search'] > 2 && run.cost_usd > 0.3"},
        [BEGIN, call(2, 1), spend(3, 1.5), call(4, 2), call(5, 3)],
        [BEGIN, call(2, 1), spend(3, 1.5), call(4, 2), call(5, 3, tool="other")],
        "warning",
        r"run\.calls\['search'\] > 2 && run\.cost_usd > 0\.3 is true",
        evidence=(5,),
    ),
    Case(
        {
            "rule": "expr",
            "when": "step.status == 'error' && run.failed_calls[step.tool] >= 2",
            "message": "it failed twice",
            "per": "tool",
        },
        [BEGIN, call(2, 1, status="error"), call(3, 2, status="error"), call(4, 3), done(4)],
        [BEGIN, call(2, 1, status="error"), call(3, 2), call(4, 3, tool="b", status="error")],
        "warning",
        r"it failed twice",
        subject="search",
        evidence=(3,),
    ),
    Case(
        {"rule": "guardrail"},
        [BEGIN, guarded(2, 1, "refused"), guarded(3, 2, "refused"), guarded(4, 3, "observed")],
        # A guardrail of the program's own, and a decision of a newer release.
        [BEGIN, guarded(2, 1, "refused", guardrail=""), guarded(3, 2, "postponed")],
        "note",
        r"guardrail costs/limit would not have let a call through as it was \(mode observe\)",
        subject="costs/limit",
        evidence=(4,),
        firing=2,
    ),
)
