"""What is said when a program calls the SDK in a way that cannot be meant: what is wrong, where, and what to write instead.

Nothing is raised. Each place in the program that is wrong is told of, each at most once a minute.
"""

from __future__ import annotations

import functools
import inspect
import logging
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar, cast

from stepstream.producers.error_guard import internal_error, sdk_log
from stepstream.producers.values.plain import label
from stepstream.schemas.suggestions import nearest_name

F = TypeVar("F", bound=Callable[..., Any])

OURS: Final = "stepstream"
NAME_CHARS: Final = 1_024
_SHOWN_CHARS: Final = 40
_MOST_FRAMES: Final = 30
_FUNCTIONS: Final = (types.FunctionType, types.BuiltinFunctionType, types.MethodType)
_OTHER_NAMES: Final = {
    "prompt_tokens": "input_tokens", "completion_tokens": "output_tokens", "cached_tokens": "cached_input_tokens",
    "cache_read_input_tokens": "cached_input_tokens", "cache_creation_input_tokens": "cache_write_tokens",
    "prompt": "input", "messages": "input", "query": "input", "question": "input", "args": "input", "arguments": "input",
    "params": "input", "inputs": "input", "metadata": "attributes", "tags": "attributes", "session": "session_id",
    "conversation_id": "session_id", "thread_id": "session_id", "user": "user_id", "version": "agent_version",
    "env": "environment", "cost": "usd", "price": "usd", "cost_usd": "usd", "dollars": "usd", "max_usd": "usd",
    "limit_usd": "usd", "max_steps": "steps", "max_tokens": "tokens", "timeout": "seconds", "duration": "seconds",
}  # fmt: skip
"""Names that other libraries use for the same thing."""


def misuse(kind: str, message: str, *, level: int = logging.WARNING) -> None:
    """Say it on the logger, with the place in the program, unless this kind was said of this place within a minute."""
    try:
        place = _place()
        sdk_log.log(f"misuse:{place}:{kind}", f"stepstream: {message} (at {place})", level=level)
    except Exception as error:
        internal_error("misuse", error)


def hint(name: str, known: Iterable[str]) -> str:
    """``: did you mean 'input_tokens'?``; empty where nothing is like it."""
    meant = meant_by(name, known)
    return f": did you mean {meant!r}?" if meant else ""


def meant_by(name: str, known: Iterable[str]) -> str:
    """The known name that is most likely meant; empty where none is."""
    names = list(known)
    other = _OTHER_NAMES.get(name.lower(), "")
    if other in names:
        return other
    return nearest_name(name, names)


def shown(value: object) -> str:
    """A value as it stands in a message: short, and nothing of it called."""
    text = label(value, _SHOWN_CHARS)
    return repr(text) if issubclass(type(value), str) else text


def wrong_call(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> None:
    """Say that the arguments of a call do not fit the function, and how to write it."""
    parameters = list(inspect.signature(function).parameters.values())
    if parameters and parameters[0].name == "self":
        parameters, args = parameters[1:], args[1:]
    names = [
        one.name
        for one in parameters
        if one.kind is not one.VAR_KEYWORD and one.kind is not one.VAR_POSITIONAL
    ]
    positional = [
        one.name
        for one in parameters
        if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
    ]
    given = ", ".join(
        [*map(shown, args), *(f"{name}={shown(value)}" for name, value in kwargs.items())]
    )
    unknown = [name for name in kwargs if name not in names]
    hints = [f"there is no {name!r}{hint(name, names)}" for name in unknown]
    free = iter([name for name in names if name not in positional and name not in kwargs])
    written = [shown(value) for value in args[: len(positional)]]
    written += [
        f"{name}={shown(value)}" for name, value in zip(free, args[len(positional) :], strict=False)
    ]
    written += [f"{meant_by(name, names) if name in unknown else name}={shown(value)}" for name, value in kwargs.items()
                if name not in unknown or meant_by(name, names)]  # fmt: skip
    missing = [
        one.name
        for one in parameters[len(args) :]
        if one.default is one.empty and one.name in names
    ]
    taken = {name if name in names else meant_by(name, names) for name in kwargs}
    written += [f"{name}=..." for name in missing if name not in taken]
    if len(args) > len(positional) + len(
        [name for name in names if name not in positional and name not in kwargs]
    ):
        written = positional  # more than there is a place for: the names say what is taken
    example = ", ".join(written or [f"{name}=..." for name in names[:2]])
    message = f"{function.__name__}({given}) is ignored: {'; '.join(hints) + '; ' if hints else ''}"
    misuse(
        f"{function.__name__}:{','.join(unknown)}", f"{message}write {function.__name__}({example})"
    )


def misfit(error: BaseException) -> bool:
    """Whether an error that was just caught says that the arguments do not fit: it comes from the call, not from inside."""
    return (
        isinstance(error, TypeError)
        and error.__traceback__ is not None
        and error.__traceback__.tb_next is None
    )


def text_name(name: object) -> str:
    """A name as text. What is none is told of, and recorded by its value or type, a function by its name."""
    if type(name) is str:
        return name
    if name is None:
        return ""
    text = cast(Any, name).__name__ if issubclass(type(name), _FUNCTIONS) else name
    if not issubclass(type(name), str):
        example = shown(text) if type(text) is str else "'search'"
        misuse(
            "name",
            f"the name of a step is a text, and {shown(name)} is none: write tool({example})",
        )
    return label(text, NAME_CHARS)


def opens(fields: type) -> Callable[[F], F]:
    """For methods that open a step by a name and ``fields``: arguments beyond the name are told of and left out.

    ``help`` shows every field.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            if "name" in kwargs and type(kwargs["name"]) is not str:
                kwargs["name"] = text_name(kwargs["name"])
            try:
                return function(self, *args, **kwargs)
            except TypeError as error:
                if not misfit(error):
                    raise
            wrong_call(call, (self, *args), kwargs)
            return function(self, *args[:1])

        own = [
            one
            for one in inspect.signature(function).parameters.values()
            if one.kind is not one.VAR_KEYWORD
        ]
        shown_fields = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=..., annotation=annotation
            )
            for name, annotation in fields.__annotations__.items()
        ]
        call.__signature__ = inspect.Signature([*own, *shown_fields])  # type: ignore[attr-defined]
        return cast(F, call)

    return decorate


def _place() -> str:
    """File and line of the program's innermost frame."""
    frame = sys._getframe(1)
    for _ in range(_MOST_FRAMES):
        module = frame.f_globals.get("__name__")
        if not (
            isinstance(module, str)
            and (module == OURS or module.startswith((f"{OURS}.", "contextlib", "functools")))
        ):
            break
        if frame.f_back is None:
            break
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
