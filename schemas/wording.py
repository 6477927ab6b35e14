"""Sentences about invalid input, the same for files, commands, calls and the API. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError

from stepstream.schemas.suggestions import did_you_mean

Path = tuple[int | str, ...]
_ALTERNATIVES: Final = re.compile(r"\^\(([\w|-]+)\)\$")
CUTOFF: Final = 0.65
"""How like a known name must be to be guessed: a guess that is far off misleads."""
MAX_SHOWN: Final = 80
"""Characters of a wrong value that are repeated."""


def reasons(
    error: ValidationError,
    kinds: Any,
    value: Any,
    *,
    hidden: Callable[[Path], bool] = lambda _path: False,
    under: str = "",
) -> list[tuple[Path, str]]:
    """Each problem: its path, and a sentence that names the path as the user wrote it.

    ``kinds`` is the model, or the union of models, that was tried on ``value``, which is at the
    path ``under``. For ``hidden`` paths the value is not quoted, because it may be a secret.
    """
    models = _models(kinds)
    listed = error.errors(include_url=False)
    return [
        (
            wrong["loc"],
            _reason(wrong, models, value, show_input=not hidden(wrong["loc"]), under=under),
        )
        for wrong in listed
    ]


def sentences(
    error: ValidationError,
    kinds: Any,
    value: Any,
    *,
    hidden: Callable[[Path], bool] = lambda _path: False,
    under: str = "",
) -> str:
    """The sentences of ``reasons`` in one text."""
    return "; ".join(
        sentence for _, sentence in reasons(error, kinds, value, hidden=hidden, under=under)
    )


def _reason(
    wrong: Any, models: list[type[BaseModel]], value: Any, *, show_input: bool, under: str
) -> str:
    visible = _visible(wrong["loc"], value, last=wrong["type"] == "missing")
    where = ".".join(map(str, [under, *visible] if under else visible))
    context, given = wrong.get("ctx", {}), wrong["input"]
    match wrong["type"]:
        case "extra_forbidden":
            known = _fields_at(models, wrong["loc"][:-1])
            text = f"{where} is unknown; {did_you_mean(str(wrong['loc'][-1]), known)}"
        case "missing":
            text = f"{where} is missing"
        case "union_tag_not_found" | "union_tag_invalid":
            text = _tag_sentence(where, context, _tags(models, wrong["loc"]))
        case "literal_error" | "enum":
            expected = str(context["expected"]).replace(" or ", ", ").split(",")
            names = [name.strip("' ") for name in expected]
            text = f"{where}{_is(given, show_input)}; {_choice(given, names)}"
        case "value_error" | "assertion_error":
            text = f"{where}: {context['error']}" if where else str(context["error"])
        case "string_pattern_mismatch":
            text = f"{where}{_is(given, show_input)}{_pattern_hint(given, context['pattern'])}"
        case "too_long" | "too_short":
            text = f"{where} takes {_size_limit(wrong['type'], context)}"
        case _:
            wanted = _wanted(wrong["type"], context) or _plain(wrong["msg"])
            # Only scalars are quoted: a mapping may contain secrets and fill the message.
            is_shown = show_input and not isinstance(given, dict | list | tuple | bytes | BaseModel)
            text = f"{where or 'the document'} {wanted}"
            text += f", not {_shown(given)}" if is_shown else ""
    return text


def _tag_sentence(where: str, context: Mapping[str, Any], tags: list[str]) -> str:
    """About the field that chooses the model of a union."""
    field, of = str(context["discriminator"]).strip("'"), where or "the document"
    if "tag" not in context:
        return f"{field} of {of} is missing (one of {', '.join(tags)})"
    return f"{field} of {of} is {context['tag']!r}; {_choice(context['tag'], tags)}"


def _pattern_hint(given: Any, pattern: str) -> str:
    """The alternatives of a pattern that is a list of words, else the pattern."""
    if words := _ALTERNATIVES.fullmatch(pattern):
        return f"; {_choice(given, words[1].split('|'))}"
    return f": it must match {pattern}"


def _size_limit(kind: str, context: Mapping[str, Any]) -> str:
    """``at most 3 entries``."""
    is_minimum = kind == "too_short"
    bound = context["min_length" if is_minimum else "max_length"]
    word = "entry" if bound == 1 else "entries"
    return f"at {'least' if is_minimum else 'most'} {bound} {word}"


_KINDS: Final = (
    ("int", "must be a whole number"),
    ("float", "must be a number"),
    ("finite_number", "must be a number"),
    ("decimal", "must be a number"),
    ("bool", "must be true or false"),
    ("string_type", "must be text"),
    ("tuple_type", "must be a list"),
    ("list_type", "must be a list"),
    ("set_type", "must be a list"),
    ("frozen_set_type", "must be a list"),
    ("dict_type", "must be a mapping of names to values"),
    ("mapping_type", "must be a mapping of names to values"),
    ("model_", "must be a mapping of names to values"),
    ("datetime", "must be a time such as 2026-03-01T12:00:00Z"),
    ("date", "must be a date such as 2026-03-01"),
    ("none_required", "must be empty"),
    ("json_invalid", "is not JSON"),
)
"""Requirements by the beginning of pydantic's error type."""
_BOUNDS: Final = {
    "greater_than": ("gt", "must be more than {}"),
    "greater_than_equal": ("ge", "must be at least {}"),
    "less_than": ("lt", "must be less than {}"),
    "less_than_equal": ("le", "must be at most {}"),
    "string_too_short": ("min_length", "must have at least {} characters"),
    "string_too_long": ("max_length", "must have at most {} characters"),
}


def _wanted(kind: str, context: Mapping[str, Any]) -> str:
    if kind in _BOUNDS:
        name, text = _BOUNDS[kind]
        return text.format(context[name])
    return next((text for beginning, text in _KINDS if kind.startswith(beginning)), "")


_MESSAGES: Final = (
    (r"Input should be a valid integer.*", "must be a whole number"),
    (r"Input should be a (?:valid|finite) number.*", "must be a number"),
    (r"Input should be a valid boolean.*", "must be true or false"),
    (r"Input should be greater than or equal to (\S+)", r"must be at least \1"),
    (r"Input should be greater than (\S+)", r"must be more than \1"),
    (r"Input should be less than or equal to (\S+)", r"must be at most \1"),
    (r"Input should be less than (\S+)", r"must be less than \1"),
)


def reworded(text: str) -> str:
    """A message of another library with pydantic's words replaced by ours."""
    for pattern, ours in _MESSAGES:
        text = re.sub(pattern, ours, text)
    return _plain(text)


def _plain(message: str) -> str:
    """A message of pydantic without wording here, as the rest of a sentence."""
    return (
        message.replace("Input should be", "must be")
        .replace("Value error, ", "")
        .replace("Input", "it")
        .strip()
    )


def _choice(given: Any, names: Sequence[str]) -> str:
    return did_you_mean(str(given), names, otherwise=f"one of {', '.join(names)}")


def _is(given: Any, show_input: bool) -> str:
    return f" is {_shown(given)}" if show_input else " is not what it can be"


def _shown(given: Any) -> str:
    text = repr(given)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."


def _visible(path: tuple[int | str, ...], value: Any, *, last: bool) -> Iterator[int | str]:
    """The path without parts that validation adds (kinds, rules); ``last``: keep the last part."""
    for position, part in enumerate(path):
        if isinstance(value, dict):
            if part in value:
                value = value[part]
            elif not (last and position == len(path) - 1):
                continue
        elif isinstance(value, list | tuple) and isinstance(part, int) and part < len(value):
            value = value[part]
        yield part


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models named somewhere in an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    # A union that is read from a registry names its models when it is asked.
    if callable(late := getattr(annotation, "models", None)):
        return list(late())
    return [model for part in get_args(annotation) for model in _models(part)]


def _tag_of(model: type[BaseModel]) -> list[str]:
    """The words by which a model of a union is chosen: of its field kind, rule, fault or check."""
    for name in ("kind", "rule", "fault", "check"):
        field = model.model_fields.get(name)
        if field is not None and get_origin(field.annotation) is Literal:
            return [str(word) for word in get_args(field.annotation)]
    return []


def _models_at(models: list[type[BaseModel]], path: tuple[int | str, ...]) -> list[type[BaseModel]]:
    """The models at a path."""
    for part in path:
        if isinstance(part, int):
            continue
        tagged = [model for model in models if part in _tag_of(model)]
        if len(models) > 1 and tagged:
            models = tagged
        else:
            models = [
                deep
                for model in models
                if part in model.model_fields
                for deep in _models(_annotation(model, part))
            ]
    return models


def _annotation(model: type[BaseModel], name: str) -> Any:
    return model.model_fields[name].annotation


def _fields_at(models: list[type[BaseModel]], path: tuple[int | str, ...]) -> list[str]:
    return [
        info.alias or name
        for model in _models_at(models, path)
        for name, info in model.model_fields.items()
    ]


def _tags(models: list[type[BaseModel]], path: tuple[int | str, ...]) -> list[str]:
    return [tag for model in _models_at(models, path) for tag in _tag_of(model)]
