"""Promotion gates: what a policy can require before a release gets a label.

A package registers a gate with the entry point group ``stepstream.promotion_gates``::

    from stepstream.releases.gates import GATES, GateRequest, Verdict

    @GATES.register("few_tools")
    class FewTools:
        def check(self, request: GateRequest) -> Verdict:
            ...
            return Verdict(gate="few_tools", outcome="pass", detail="12 tools of at most 20")

Gates run in the process of ``stepstream promote``, where the agent's code is, and not in the
worker, which would wait for them. The worker checks what they answered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from stepstream.schemas.extensions import Registry
from stepstream.schemas.promotion import MAX_TEXT, Verdict
from stepstream.schemas.release import Release
from stepstream.schemas.settings import Settings

__all__ = ["GATES", "GateRequest", "PromotionGate", "Verdict", "ask"]


@dataclass(frozen=True)
class GateRequest:
    """What is asked of a gate."""

    settings: Settings
    candidate: Release
    baseline: Release | None
    """The release that the label names now; None where it names none."""
    label: str


class PromotionGate(Protocol):
    """Decides whether a release may get a label."""

    def check(self, request: GateRequest) -> Verdict:
        """Pass, fail or inconclusive, with the figures behind it. May take minutes."""


GATES: Final[Registry[Callable[[], PromotionGate]]] = Registry(
    "promotion gate",
    group="stepstream.promotion_gates",
    packages=("stepstream.releases.own_gates",),
)


def ask(names: Iterable[str], request: GateRequest) -> tuple[Verdict, ...]:
    """The verdicts of the gates. One that is not registered or raises has the outcome missing."""
    return tuple(_verdict(name, request) for name in names)


def _verdict(name: str, request: GateRequest) -> Verdict:
    make = GATES.find(name)
    if make is None:
        failed = "; ".join(map(str, GATES.failures()))
        detail = "no package has registered it" + (f" (not loaded: {failed})" if failed else "")
        return Verdict(gate=name, outcome="missing", detail=detail[:MAX_TEXT])
    try:
        verdict = make().check(request)
        return verdict.model_copy(update={"gate": name, "detail": verdict.detail[:MAX_TEXT]})
    except Exception as error:  # code of another package: its failure must not pass the gate
        detail = f"it raised {type(error).__name__}: {error}"
        return Verdict(gate=name, outcome="missing", detail=detail[:MAX_TEXT])
