"""Arguments that cannot be right.

They break the tool's schema, name what it does not have, or an identifier from nowhere.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from stepstream.schemas.json_schema import ToolSchema
from stepstream.schemas.rule_base import RuleBase
from stepstream.schemas.rules import detector_for
from stepstream.stream.detectors.base import NOTHING, Observation, Observations
from stepstream.stream.detectors.content.base import CALLS, DeferringDetector, excerpt
from stepstream.stream.detectors.content.failures import failure_in
from stepstream.stream.detectors.content.known import Known, identifiers, identity_words, numbers
from stepstream.stream.run.contents import Contents, json_of
from stepstream.stream.run.rules import Applied
from stepstream.stream.run.run import Run
from stepstream.stream.run.steps import StepInfo


class DeclaredTool(BaseModel):
    """The schema of a tool's parameters, as a policy gives it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tool: str = Field(
        min_length=1, description="the tool's name, or the value of its steps' field tool_schema"
    )
    parameters: str = Field(description="JSON Schema: an object, or its JSON text")

    @field_validator("parameters", mode="before")
    @classmethod
    def _kept_as_text(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        try:
            read = json.loads(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"parameters is no JSON: {error}") from error
        if not isinstance(read, dict):
            raise ValueError("parameters must be a JSON object")
        return value


class ToolArguments(RuleBase):
    """A call's arguments break the tool's schema, or name an unknown parameter or identifier."""

    reads_contents = True
    fires_when = (
        "arguments break the tool's schema, use a parameter it does not have, or an "
        "identifier that appeared nowhere before"
    )
    usual_severity = "error, warning"

    rule: Literal["tool_arguments"]
    schemas: tuple[DeclaredTool, ...] = Field(
        (), description="schemas of tools whose steps do not bring their own"
    )
    identifiers: bool = Field(
        True, description="report identifiers that appear in no input or output before the call"
    )
    numbers: bool = Field(
        False,
        description="report numbers of three digits and more that appear in nothing before the "
        "call",
    )
    rejected: bool = Field(
        False, description="report calls that the tool itself refused for what it was given"
    )


_MAX_SCHEMAS: Final = 1_000
_MAX_ASKED: Final = 200
_ABOUT_ARGUMENTS: Final = re.compile(
    r"argument|parameter|keyword|payload|field|schema|format\b|invalid|malformed|missing|required|"
    r"must be|mismatch|"
    r"not (?:a )?(?:valid|match|supported|eligible|enough|found|allowed|exist)|"
    r"does(?: not|n't) (?:match|exist|add up)|unknown|unexpected|unsupported|unrecogni[sz]ed|"
    r"insufficient|exceed|"
    r"too (?:long|large|many|small|short|few)|out of range|type ?error",
    re.IGNORECASE,
)

# What the world does not have at the moment is no fault of the arguments.
_ABOUT_SUPPLY: Final = re.compile(
    r"not (?:currently )?available|unavailable|sold out|out of stock|fully booked|no longer|"
    r"(?:not enough|no|insufficient) (?:\w+ )?"
    r"(?:seats?|stock|rooms?|places?|slots?|capacity|inventory|items?|units?|tickets?|space)\b|"
    r"time[d]? ?out|rate limit|try again|connection|network|internal (?:server )?error|service",
    re.IGNORECASE,
)


@detector_for(ToolArguments)
class ToolArgumentsDetector(DeferringDetector[ToolArguments]):
    """One finding per call and kind of error.

    Schemas are checked at once, identifiers once earlier records have settled.

    An identifier is reported when neither an input from outside nor any output before the call
    contains it. Nothing is reported where that cannot be known: inputs were not captured, or one
    was cut off.
    """

    def __init__(self, applied: Applied) -> None:
        super().__init__(applied)
        self._identifiers = self.rule.identifiers
        self._numbers = self.rule.numbers
        self._rejected = self.rule.rejected
        self.kinds = frozenset() if self.rule.identifiers or self.rule.numbers else CALLS
        self._given = {
            declared.tool: ToolSchema(json_of(declared.parameters))
            for declared in self.rule.schemas
        }
        self._read: dict[str, ToolSchema] = {}

    def on_content(self, run: Run, step: StepInfo, contents: Contents, now_us: int) -> Observations:
        """Learn the identifiers in the step, and check a call."""
        if self._identifiers or self._numbers:
            Known(self.own(run)).learn(step, contents)
        if step.kind not in CALLS:
            return NOTHING
        found: list[Observation] = []
        arguments = contents.arguments
        schema = self._schema(contents, step)
        if schema is not None and (arguments is not None or not contents.input):
            found += self._schema_observation(step, schema.errors(arguments or {}))
        if arguments and (self._identifiers or self._numbers):
            self._ask(run, step, arguments, now_us)
        if self._rejected:
            found += self._rejection(step, contents, arguments)
        return found

    def _schema(self, contents: Contents, step: StepInfo) -> ToolSchema | None:
        """The schema from the policy, by reference or by the tool's name, or from the step."""
        stated = contents.step.tool_schema
        found = self._given.get(stated) or self._given.get(step.label)
        if found is None and stated[:1] == "{":
            found = self._read.get(stated)
            if found is None:
                # Schemas come with the steps: a producer that changes them in each step must not
                # fill the memory.
                if len(self._read) >= _MAX_SCHEMAS:
                    self._read.clear()
                found = self._read[stated] = ToolSchema(json_of(stated))
        return None if found is None or found.is_empty else found

    def _ask(self, run: Run, step: StepInfo, arguments: dict[str, Any], now_us: int) -> None:
        candidates = identifiers(step.label, arguments) if self._identifiers else []
        if self._numbers:
            candidates += numbers(arguments)
        if not candidates:
            return
        asked: dict[str, list[list[str]]] = self.own(run).setdefault("asked", {})
        if len(asked) < _MAX_ASKED:
            asked[step.step_id] = [list(pair) for pair in candidates]
            self.defer(run, step.step_id, now_us)

    def evaluate(self, run: Run, key: str, *, at_close: bool) -> list[Observation]:
        """Which of a call's identifiers come from nowhere."""
        own = self.own(run)
        candidates = own.get("asked", {}).pop(key, [])
        step = run.steps.get(key)
        known = Known(own)
        if step is None or not known.is_complete(step.start_us):
            return []
        # The user's own id is known to the agent without having appeared in a step.
        ours = identity_words(run)
        invented = [
            (name, value)
            for name, value in candidates
            if not known.has(value, step.start_us)
            and value.lower().encode("utf-8", "replace") not in ours
        ]
        return [self._invented_observation(step, invented)] if invented else []

    def _schema_observation(self, step: StepInfo, errors: list[str]) -> list[Observation]:
        if not errors:
            return []
        return [
            Observation(
                message=f"{step.label} was called with arguments that its schema does not allow",
                quoted=excerpt(errors[0]),
                detail="; ".join(errors),
                # A tool that refused the call has prevented the damage.
                severity=self.severity("error" if step.status == "ok" else "warning"),
                subject=step.label,
                level=f"schema:{step.step_id}",
                step_ids=(step.step_id,),
                value=float(len(errors)),
                threshold=0.0,
                unit="count",
            )
        ]

    def _invented_observation(self, step: StepInfo, invented: list[tuple[str, str]]) -> Observation:
        listed = ", ".join(
            f"{name} {value!r}" if name else repr(value) for name, value in invented[:3]
        )
        return Observation(
            message=f"{step.label} was called with what neither the user nor any step has named "
            "before",
            quoted=excerpt(listed),
            detail="the model may have made it up; compare it with its input",
            severity=self.severity("warning"),
            subject=step.label,
            level=f"invented:{step.step_id}",
            step_ids=(step.step_id,),
            value=float(len(invented)),
            threshold=0.0,
            unit="count",
        )

    def _rejection(
        self, step: StepInfo, contents: Contents, arguments: dict[str, Any] | None
    ) -> list[Observation]:
        if step.status == "error":
            message = step.error_message or step.error_type
        else:
            failure = failure_in(contents, step.label) if contents.output else None
            message = failure.message if failure else ""
        if not message or _ABOUT_SUPPLY.search(message):
            return []
        if not _ABOUT_ARGUMENTS.search(message) and not _echoes(message, arguments):
            return []
        return [
            Observation(
                message=f"{step.label} refused what it was given",
                quoted=excerpt(message),
                severity=self.severity("warning"),
                subject=step.label,
                level=f"rejected:{step.step_id}",
                step_ids=(step.step_id,),
            )
        ]


def _echoes(message: str, arguments: dict[str, Any] | None) -> bool:
    """Whether an error names an argument or what was passed."""
    if not arguments:
        return False
    return any(
        (len(name) > 3 and name in message)
        or (isinstance(value, str) and 3 < len(value) < 64 and value in message)
        for name, value in arguments.items()
    )
