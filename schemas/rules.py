"""The rules that policies may name.

A registry that detectors fill, each with the model of its rule.

A detector's module defines the rule's model, a subclass of ``RuleBase``, and registers both with
the decorator ``detector_for``. Detectors of other packages are found by the entry point group
``stepstream.detectors``, whose entry points name the module.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Final, TypeVar

from pydantic import TypeAdapter

from stepstream.schemas.extensions import Registry
from stepstream.schemas.open_union import OpenUnion, tag_of
from stepstream.schemas.rule_base import RuleBase, Scope

_Class = TypeVar("_Class", bound=type)

GROUP: Final = "stepstream.detectors"
"""The entry point group of packages that define detectors."""


@dataclass(frozen=True, slots=True)
class RuleKind:
    """A rule that policies may name."""

    model: type[RuleBase]
    detector: Any
    """The class that evaluates it. What it is depends on ``model.scope``."""


RULES: Final[Registry[RuleKind]] = Registry(
    "rule",
    group=GROUP,
    packages=(
        "stepstream.stream.detectors",
        "stepstream.stream.detectors.content",
        "stepstream.stream.usage.detectors",
        "stepstream.schemas.store_rules",
    ),
)
"""Every rule by name."""


def detector_for(model: type[RuleBase]) -> Callable[[_Class], _Class]:
    """A class decorator that registers a detector together with the model of its rule.

    Raises:
        DuplicateExtensionError: another rule has the name.
        TypeError: the model does not name its rule.
    """
    name = tag_of(model, "rule")
    if name is None:
        raise TypeError(f"{model.__qualname__} needs a field like: rule: Literal['my_rule']")

    def add(detector: _Class) -> _Class:
        RULES.add(name, RuleKind(model, detector))
        return detector

    return add


def rule_models() -> tuple[type[RuleBase], ...]:
    """The models of all rules, sorted by the rules' names."""
    return tuple(kind.model for _, kind in RULES.items())


AnyRule = Annotated[RuleBase, OpenUnion("rule", RULES, rule_models)]
"""Any registered rule, chosen by its field ``rule``."""
_RULE: Final[TypeAdapter[RuleBase]] = TypeAdapter(AnyRule)


def rule_from(data: Any) -> RuleBase:
    """The rule that a document or a state record contains.

    Raises:
        pydantic.ValidationError: no such rule, or a field of it is wrong.
    """
    return _RULE.validate_python(data)


def default_rules(scope: Scope) -> tuple[RuleBase, ...]:
    """The rules of a scope that apply without any policy, in the order of their evaluation."""
    return _defaults(scope, rule_models())


@lru_cache(maxsize=64)
def _defaults(scope: Scope, models: tuple[type[RuleBase], ...]) -> tuple[RuleBase, ...]:
    # Cached by the models themselves: an installed package may add rules after the first call.
    chosen = [model for model in models if model.scope == scope and model.on_by_default]
    # Rules that read contents come last: they report less where another rule has already reported.
    chosen.sort(key=lambda model: model.reads_contents)
    return tuple(model.model_validate({"rule": tag_of(model, "rule")}) for model in chosen)


def markdown() -> str:
    """The table of all rules for docs/detection.md, with those of installed packages."""
    lines = [
        "| rule | over | without a policy | fires when | severity |",
        "|---|---|---|---|---|",
    ]
    for name, kind in sorted(RULES.items(), key=lambda item: (item[1].model.scope, item[0])):
        model = kind.model
        over = {"window": "windows", "store": "the store"}.get(model.scope, "a run")
        if model.reads_contents:
            over += ", contents"
        on = "on" if model.on_by_default else "off"
        lines.append(f"| `{name}` | {over} | {on} | {model.fires_when} | {model.usual_severity} |")
    return "\n".join(lines)


if __name__ == "__main__":
    # Run as a program this module is a second copy of itself: the detectors fill the imported one.
    from stepstream.schemas import rules

    print(rules.markdown())
