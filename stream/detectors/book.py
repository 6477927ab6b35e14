"""The rules of policies and Criteria documents together."""

from __future__ import annotations

from collections.abc import Iterable

from stepstream.schemas.criteria import Criteria
from stepstream.schemas.policy import Policy
from stepstream.stream.detectors import make_detector
from stepstream.stream.detectors.content.criteria import rule_of
from stepstream.stream.run.rules import Applied, Further, RuleBook


def rule_book(policies: Iterable[Policy], criteria: Iterable[Criteria] = ()) -> RuleBook:
    """The book of the policies, in which each Criteria document is a rule of its own."""
    further = [Further(one.match, Applied(rule_of(one), one.name)) for one in criteria]
    return RuleBook(policies, make_detector, further)
