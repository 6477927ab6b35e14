"""Checks of values that a program passes to the SDK: wrong ones are logged and left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from stepstream.producers.misuse import misuse, shown
from stepstream.producers.values.inspection import module_of
from stepstream.producers.values.plain import nanos_of, number_of
from stepstream.schemas.money import usd_from_nanos
from stepstream.schemas.normalise import counted
from stepstream.schemas.usage import MAX_USAGE_COUNT, TokenUsage, TokenUsageStruct


def checked(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields without those whose value is unusable; each of these is logged as misuse."""
    kept = dict(fields)
    for name, (usable, instead) in CHECKED.items():
        value = kept.get(name)
        if value is not None and not usable(value):
            misuse(name, f"{name}={shown(value)} is ignored: write {instead}")
            del kept[name]
    if "reserve_usd" in kept:
        kept["reserve_usd"] = usd_from_nanos(nanos_of(kept["reserve_usd"]) or 0)
    return kept


def usage_from(counts: Mapping[str, object]) -> TokenUsage:
    """Token usage of counts as a program gave them.

    A count that is not a whole number within bounds is logged, left out, and marks the usage as
    incomplete, so that its cost is unknown instead of wrong.
    """
    known: dict[str, Any] = {}
    for name, given in counts.items():
        if given is None:
            continue
        if type(given) is int and 0 <= given <= MAX_USAGE_COUNT:
            if given:
                known[name] = given
            continue
        number = given if type(given) is int else number_of(given)
        whole = number is not None and number == number // 1
        result = counted(int(number) if whole and number is not None else None)
        known[name] = result.number
        if result.lost:
            known["incomplete"] = True
            misuse(
                f"set_usage {name}",
                f"set_usage({name}={shown(given)}) is left out: "
                f"write a number of tokens, {name}=900",
            )
    return TokenUsageStruct(**known)


def _is_bool(value: object) -> bool:
    return type(value) is bool


def _is_capture(value: object) -> bool:
    return type(value) is bool or (type(value) is int and value >= 0)


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_amount(value: object) -> bool:
    return nanos_of(value) is not None


def _is_schema(value: object) -> bool:
    modules = ("typing", "types", "typing_extensions")
    return issubclass(type(value), dict | type) or module_of(type(value)) in modules


def _is_budget(value: object) -> bool:
    # Imported here: a program that sets no budget does not pay for the module.
    from stepstream.producers.control.budget import Budget

    return issubclass(type(value), Budget)


CHECKED: Final[dict[str, tuple[Callable[[Any], bool], str]]] = {
    "budget": (_is_budget, "budget=Budget(usd=0.50)"),
    "on_command": (callable, "on_command=function, which is called with each command"),
    "cancel_on_stop": (_is_bool, "cancel_on_stop=True"),
    "capture_content": (_is_capture, "capture_content=False, True, or a number of bytes"),
    "schema": (_is_schema, "schema=Model, a type or a JSON Schema as a dictionary"),
    "reserve_usd": (_is_amount, "reserve_usd=0.05"),
    "reserve_tokens": (_is_count, "reserve_tokens=2000"),
}
"""Fields that are checked on opening: the test for a usable value, and an example of one."""

CHECKED_NAMES: Final = frozenset(CHECKED)
