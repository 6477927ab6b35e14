"""Fields that a program gives when it opens a step or run, where a wrong type would do harm: told of and left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

from stepstream.producers.misuse import misuse, shown
from stepstream.producers.values.inspection import module_of
from stepstream.producers.values.plain import label, number_of
from stepstream.schemas.money import nanos_from_usd, usd_from_nanos

_AMOUNT_CHARS: Final = 64


def checked(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields without those that are of no use; each of these is told of."""
    kept = dict(fields)
    for name, (usable, instead) in CHECKED.items():
        value = kept.get(name)
        if value is not None and not usable(value):
            misuse(name, f"{name}={shown(value)} is ignored: write {instead}")
            del kept[name]
    if "reserve_usd" in kept:
        kept["reserve_usd"] = usd_from_nanos(nanos_of(kept["reserve_usd"]) or 0)
    return kept


def nanos_of(value: object) -> int | None:
    """Nano-dollars of an amount of dollars that a program gave, None for what is none."""
    if issubclass(type(value), str):
        amount: Any = label(value, _AMOUNT_CHARS)
    else:
        amount = value if type(value) is Decimal else number_of(value)
    try:
        return None if amount is None else nanos_from_usd(amount)
    except ValueError:
        return None


def _is_count(value: object) -> bool:
    number = number_of(value)
    return number is not None and number >= 0 and type(value) is int


def _is_schema(value: object) -> bool:
    return issubclass(type(value), dict | type) or module_of(type(value)) in (
        "typing",
        "types",
        "typing_extensions",
    )


def _is_budget(value: object) -> bool:
    from stepstream.producers.control.budget import Budget

    return issubclass(type(value), Budget)


CHECKED: Final[dict[str, tuple[Callable[[Any], bool], str]]] = {
    "budget": (_is_budget, "budget=Budget(usd=0.50)"),
    "on_command": (callable, "on_command=function, which is called with each command"),
    "cancel_on_stop": (lambda value: type(value) is bool, "cancel_on_stop=True"),
    "capture_content": (lambda value: type(value) is bool, "capture_content=False"),
    "schema": (_is_schema, "schema=Model, a type or a JSON Schema as a dictionary"),
    "reserve_usd": (lambda value: nanos_of(value) is not None, "reserve_usd=0.05"),
    "reserve_tokens": (_is_count, "reserve_tokens=2000"),
}
"""Fields that are checked, what makes their value usable, and how they are written."""
