"""Wrong calls of the SDK: one log line with what is wrong, where, and what to write instead.

Nothing is raised. Each wrong place in the program is logged at most once a minute.
"""

from __future__ import annotations

import functools
import inspect
import logging
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar, cast

from stepstream.producers.sdk_log import internal_error, sdk_log
from stepstream.producers.values.plain import label
from stepstream.schemas.suggestions import nearest_name

F = TypeVar("F", bound=Callable[..., Any])

OURS: Final = "stepstream"
NAME_CHARS: Final = 1_024
_SHOWN_CHARS: Final = 40
# A bound for the search of the program's innermost frame.
_MOST_FRAMES: Final = 30
_FUNCTIONS: Final = (types.FunctionType, types.BuiltinFunctionType, types.MethodType)
# Names that other libraries use for the same thing.
_OTHER_NAMES: Final = {
    "prompt_tokens": "input_tokens",
    "completion_tokens": "output_tokens",
    "cached_tokens": "cached_input_tokens",
    "cache_read_input_tokens": "cached_input_tokens",
    "cache_creation_input_tokens": "cache_write_tokens",
    "prompt": "input",
    "messages": "input",
    "query": "input",
    "question": "input",
    "args": "input",
    "arguments": "input",
    "params": "input",
    "inputs": "input",
    "metadata": "attributes",
    "tags": "attributes",
    "session": "session_id",
    "conversation_id": "session_id",
    "thread_id": "session_id",
    "user": "user_id",
    "version": "agent_version",
    "env": "environment",
    "cost": "usd",
    "price": "usd",
    "cost_usd": "usd",
    "dollars": "usd",
    "max_usd": "usd",
    "limit_usd": "usd",
    "max_steps": "steps",
    "max_tokens": "tokens",
    "timeout": "seconds",
    "duration": "seconds",
}


def misuse(kind: str, message: str, *, level: int = logging.WARNING) -> None:
    """Log a wrong call with its place in the program, once a minute for each place and kind."""
    try:
        place = _place()
        sdk_log.log(f"misuse:{place}:{kind}", f"stepstream: {message} (at {place})", level=level)
    except Exception as error:
        internal_error("misuse", error)


def hint(name: str, known: Iterable[str]) -> str:
    """``: did you mean 'input_tokens'?``; empty if no known name is similar."""
    meant = meant_name(name, known)
    return f": did you mean {meant!r}?" if meant else ""


def meant_name(name: str, known: Iterable[str]) -> str:
    """The known name that means the same or is most similar; empty if there is none."""
    names = list(known)
    other = _OTHER_NAMES.get(name.lower(), "")
    return other if other in names else nearest_name(name, names)


def shown(value: object) -> str:
    """A short form of a value for a message. No code of the value runs."""
    text = label(value, _SHOWN_CHARS)
    return repr(text) if issubclass(type(value), str) else text


def log_wrong_call(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> None:
    """Log that the arguments of a call do not fit the function, and the call that was meant."""
    parameters = list(inspect.signature(function).parameters.values())
    if parameters and parameters[0].name == "self":
        parameters, args = parameters[1:], args[1:]
    names = [
        one.name for one in parameters if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)
    ]
    unknown = [name for name in kwargs if name not in names]
    given = ", ".join(
        [*map(shown, args), *(f"{name}={shown(value)}" for name, value in kwargs.items())]
    )
    hints = "".join(f"there is no {name!r}{hint(name, names)}; " for name in unknown)
    name = function.__name__
    example = _corrected_call(parameters, names, args, kwargs)
    misuse(
        f"{name}:{','.join(unknown)}", f"{name}({given}) is ignored: {hints}write {name}({example})"
    )


def _corrected_call(
    parameters: list[inspect.Parameter],
    names: list[str],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> str:
    """The arguments as they should be written, as far as that can be derived from the call."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [one.name for one in parameters if one.kind in kinds]
    by_keyword = [name for name in names if name not in positional and name not in kwargs]
    # More arguments than parameters: the parameter names are the best hint.
    if len(args) > len(positional) + len(by_keyword):
        return ", ".join(positional or [f"{name}=..." for name in names[:2]])
    meant = {name: name if name in names else meant_name(name, names) for name in kwargs}
    written = [shown(value) for value in args[: len(positional)]]
    surplus = args[len(positional) :]
    written += [f"{name}={shown(value)}" for name, value in zip(by_keyword, surplus, strict=False)]
    written += [f"{meant[name]}={shown(value)}" for name, value in kwargs.items() if meant[name]]
    required = [
        one.name
        for one in parameters[len(args) :]
        if one.default is one.empty and one.name in names
    ]
    taken = set(meant.values())
    written += [f"{name}=..." for name in required if name not in taken]
    return ", ".join(written or [f"{name}=..." for name in names[:2]])


def arguments_do_not_fit(error: BaseException) -> bool:
    """True if a caught error is the ``TypeError`` of a call whose arguments do not fit.

    Such an error comes from the call itself: its traceback has no frame inside the function.
    """
    return (
        isinstance(error, TypeError)
        and error.__traceback__ is not None
        and error.__traceback__.tb_next is None
    )


def text_name(name: object) -> str:
    """A step's name as text. Anything else is logged as misuse and replaced by a text for it."""
    if type(name) is str:
        return name
    if name is None:
        return ""
    text = cast(Any, name).__name__ if issubclass(type(name), _FUNCTIONS) else name
    if not issubclass(type(name), str):
        example = shown(text) if type(text) is str else "'search'"
        misuse(
            "name",
            f"the name of a step must be a string, and {shown(name)} is not: write tool({example})",
        )
    return label(text, NAME_CHARS)


def opens(fields: type, kind: str = "") -> Callable[[F], F]:
    """Decorate a method that opens a step from a name and the keyword arguments ``fields``.

    Arguments that do not fit are logged and left out; the step is opened without them. ``help``
    and ``inspect.signature`` show every field. ``kind`` is that of the steps if it is fixed.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            # The usual call, ``tool("search", input=...)``, has nothing to check: what follows
            # takes three times as long as making the step.
            if kind and len(args) == 1 and type(args[0]) is str and "name" not in kwargs:
                return self._opening(kind, args[0], kwargs)
            if "name" in kwargs and type(kwargs["name"]) is not str:
                kwargs["name"] = text_name(kwargs["name"])
            try:
                return function(self, *args, **kwargs)
            except TypeError as error:
                if not arguments_do_not_fit(error):
                    raise
            log_wrong_call(call, (self, *args), kwargs)
            return function(self, *args[:1])

        parameters = inspect.signature(function).parameters.values()
        own = [one for one in parameters if one.kind is not one.VAR_KEYWORD]
        keywords = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=..., annotation=kind)
            for name, kind in fields.__annotations__.items()
        ]
        call.__signature__ = inspect.Signature([*own, *keywords])  # type: ignore[attr-defined]
        return cast(F, call)

    return decorate


def _place() -> str:
    """``file:line`` of the innermost frame that is the program's own."""
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
