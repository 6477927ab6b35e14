"""One partition under policies, with time in seconds: send records, let time pass, read what was
found."""

from __future__ import annotations

from typing import Any

import msgspec

from stepstream.schemas.alert import FindingStruct
from stepstream.schemas.alert_text import sentence
from stepstream.schemas.policy import Policy
from stepstream.schemas.prices import PriceBook
from stepstream.stream.assemble.partition import AssemblePartition
from stepstream.stream.assemble.state import decode_state, encode_state, restore_run
from stepstream.stream.core.outputs import Output
from stepstream.stream.detectors import make_detector
from stepstream.stream.run.limits import AssembleLimits
from stepstream.stream.run.rules import RuleBook
from stepstream.stream.run.run import Run
from tests.support.stream_world import START_US, Rec, event

TRACE, ROOT = "a" * 32, "1" * 16
PRICES = PriceBook()
TICK_S = 0.5


def us(seconds: float) -> int:
    """Unix microseconds of a second of the bench's time."""
    return START_US + round(seconds * 1_000_000)


def step(
    number: int, phase: str, start_s: float, end_s: float = 0.0, *, parent: str = ROOT, **more: Any
) -> dict[str, Any]:
    """A step of the bench's run by its number; the root is ``root``."""
    return event(
        TRACE, f"{number:016x}", parent, phase, us(start_s), us(max(start_s, end_s)), **more
    )


def root(phase: str, start_s: float, end_s: float = 0.0, **more: Any) -> dict[str, Any]:
    """The root of the bench's run."""
    return event(TRACE, ROOT, "", phase, us(start_s), us(max(start_s, end_s)), **more)


def policy(*rules: dict[str, Any], name: str = "p", **more: Any) -> Policy:
    """A policy with these rules."""
    return Policy.model_validate({"name": name, "rules": list(rules), **more})


def sentence_of(finding: dict[str, Any]) -> str:
    """The sentence about a finding, as people read it."""
    return sentence(msgspec.convert(finding, FindingStruct))


class Bench:
    """Everything that is sent is acknowledged at once."""

    def __init__(self, *policies: Policy, limits: AssembleLimits | None = None) -> None:
        self.rules = RuleBook(policies, make_detector)
        self.limits = limits or AssembleLimits(max_run_age_us=10**15)
        self.logic = self._new_logic()
        self.outputs: list[Output] = []
        self.now_s = 0.0
        self.offset = 0

    @property
    def run(self) -> Run:
        """The bench's run."""
        return self.logic.runs[TRACE].run

    def send(self, item: dict[str, Any], at_s: float) -> None:
        """Append a record at a time and process it alone; time passes until then."""
        self.wait(at_s)
        self.process(item, at_s)
        self._turn()

    def process(self, item: dict[str, Any], at_s: float) -> None:
        """Append a record and process it, without the end of a batch."""
        self.now_s = max(self.now_s, at_s)
        self.logic.process(
            Rec(self.offset, us(at_s) // 1000, item["trace_id"].encode(), msgspec.json.encode(item))
        )
        self.offset += 1

    def wait(self, until_s: float) -> None:
        """Let time pass, watching."""
        while self.now_s + TICK_S <= until_s:
            self.now_s += TICK_S
            self.tick(self.now_s)

    def tick(self, at_s: float) -> None:
        """A fetch comes back at the high watermark."""
        self.now_s = at_s
        self.logic.tick(us(at_s))
        self._turn()

    def swap(self) -> None:
        """Every run is written down and read again."""
        for active in self.logic.runs.values():
            active.run = restore_run(
                decode_state(encode_state(active.run, active.checkpoint.merged_through)), self.rules
            )

    def values(self, topic: str) -> list[dict[str, Any]]:
        """What was sent to a topic."""
        return [
            msgspec.json.decode(output.value or b"")
            for output in self.outputs
            if output.topic == topic
        ]

    def findings(self, state: str = "firing", alert: str = "") -> list[dict[str, Any]]:
        """Findings in a state, of one alert or of all."""
        return [
            value
            for value in self.values("findings")
            if value.get("state", "firing") == state and (not alert or value["alert"] == alert)
        ]

    def _turn(self) -> None:
        self.logic.flush()
        while outputs := self.logic.take_outputs():
            self.outputs += outputs
            for output in outputs:
                self.logic.acknowledged(output)

    def _new_logic(self) -> AssemblePartition:
        return AssemblePartition(0, 1, rules=self.rules, prices=PRICES, limits=self.limits)
