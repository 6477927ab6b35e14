"""Promotes a release and rolls back: sends the command, and waits for the worker's decision."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import Final

from stepstream.admin import documents
from stepstream.releases import gates
from stepstream.releases.topic import await_decision, read_log, send_promotion
from stepstream.schemas.documents import WrongDocument, decode_document
from stepstream.schemas.policy import Policy
from stepstream.schemas.promotion import (
    DEFAULT_LABEL,
    Decision,
    LabelHead,
    Promotion,
    required_gates,
)
from stepstream.schemas.release import Release
from stepstream.schemas.release_log import ReleaseLog
from stepstream.schemas.settings import Settings
from stepstream.schemas.suggestions import did_you_mean

WAIT_S: Final = 30.0


class NoSuchRelease(Exception):
    """A release that was never published."""


class NotExpected(Exception):
    """The label names another release than the user expected."""


@dataclass(frozen=True)
class Request:
    """What a person asks for."""

    agent: str
    by: str
    label: str = DEFAULT_LABEL
    reason: str = ""
    expect: str = ""
    """The version that the label must name now; empty: whatever it names."""
    override: str = ""
    """The gate that is overridden."""


def find(log: ReleaseLog, agent: str, name: str) -> Release:
    """The release that a version, a hash or a label names. Raises ``NoSuchRelease``."""
    found = log.find(agent, name)
    if found is not None:
        return found
    versions = [one.release.version for one in log.releases(agent)]
    if not versions:
        hint = did_you_mean(agent, log.agents(), otherwise=_published(log))
        raise NoSuchRelease(f"{agent} has no releases; {hint}")
    raise NoSuchRelease(f"there is no release {agent}@{name}; {did_you_mean(name, versions)}")


def _published(log: ReleaseLog) -> str:
    names = ", ".join(log.agents())
    return f"these have: {names}" if names else "`stepstream build PATH --publish` publishes one"


def promote(
    settings: Settings, request: Request, version: str, *, wait_s: float = WAIT_S
) -> Decision:
    """Put a release under the label; returns what the worker decided.

    Raises ``NoSuchRelease``, ``NotExpected``, ``Undecided`` and ``KafkaUnreachable``.
    """
    log = read_log(settings)
    release = find(log, request.agent, version)
    current = _current(log, request)
    names = required_gates(_policies(settings), release.agent, release.version, request.label)
    baseline = None if current is None else log.find(release.agent, current.release)
    asked = gates.GateRequest(settings, release, baseline, request.label)
    # An override is for a gate that cannot answer, too: it is not asked then.
    verdicts = gates.ask([name for name in names if name != request.override], asked)
    promotion = _command(request, current).model_copy(
        update={"release": release.hash, "version": release.version, "verdicts": verdicts}
    )
    return _decided(settings, promotion, wait_s)


def rollback(
    settings: Settings, request: Request, version: str = "", *, wait_s: float = WAIT_S
) -> Decision:
    """Put the release under the label that it named before, or an earlier one.

    No gate is asked: it must always be possible. Raises as ``promote``.
    """
    log = read_log(settings)
    current = _current(log, request)
    target = find(log, request.agent, version) if version else None
    promotion = _command(request, current).model_copy(
        update={
            "action": "rollback",
            "release": "" if target is None else target.hash,
            "version": "" if target is None else target.version,
        }
    )
    return _decided(settings, promotion, wait_s)


def _current(log: ReleaseLog, request: Request) -> LabelHead | None:
    current = log.label(request.agent, request.label)
    if request.expect:
        expected = find(log, request.agent, request.expect)
        if current is None or current.release != expected.hash:
            now = "none" if current is None else current.version
            raise NotExpected(
                f"{request.label} of {request.agent} is {now}, not {expected.version}"
            )
    return current


def _command(request: Request, current: LabelHead | None) -> Promotion:
    return Promotion(
        id=uuid.uuid4().hex,
        action="promote",
        agent=request.agent,
        label=request.label,
        expected=0 if current is None else current.change,
        by=request.by,
        at=time.time_ns() // 1_000,
        reason=request.reason,
        override=request.override,
    )


def _decided(settings: Settings, promotion: Promotion, wait_s: float) -> Decision:
    send_promotion(settings, promotion)
    return await_decision(settings, promotion, wait_s)


def _policies(settings: Settings) -> list[Policy]:
    found = []
    for stored in documents.in_force(settings).values():
        try:
            document = decode_document(stored.value)
        except WrongDocument:  # of a newer version; the worker ignores it too
            continue
        if isinstance(document, Policy):
            found.append(document)
    return found
