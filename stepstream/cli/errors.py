"""Errors as users see them: one line (what, where, what to do), an exit code, no traceback."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable
from typing import Any, Final

import typer

from stepstream.common.extras import EXTRAS
from stepstream.common.listen import AddressTaken
from stepstream.common.terminal import remark

FAILED: Final = 1
USAGE: Final = 2
PORT_TAKEN: Final = 3
INTERRUPTED: Final = 130


class Failure(Exception):
    """An error with a message for users; ``code`` is the exit code."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


def complain(message: str) -> None:
    """Print an error on stderr; further lines of the message are indented."""
    first, *rest = message.strip().splitlines() or [""]
    remark(f"error: {first}", *(f"       {line}" for line in rest))


def guarded(action: Callable[[], int], *, debug: bool = False) -> int:
    """Run ``action`` and return its exit code; an exception is printed as one line."""
    try:
        code = action()
        sys.stdout.flush()  # here, where BrokenPipeError is handled
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return _reader_left()
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # as the argument parser handles it
            return _reader_left()
        raise
    except typer.Exit as end:
        return end.exit_code
    except typer.Abort:
        return INTERRUPTED
    except Exception as error:
        if debug:
            traceback.print_exc()
        message, code = describe(error)
        if message:  # it is empty when the help has been printed
            complain(message)
        return code


def _reader_left() -> int:
    """The reader (head, less) has closed the pipe: no error.

    Without another stdout Python would print an error about it at exit.
    """
    sys.stdout = sys.__stdout__
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0


# Exceptions whose message is written for users. By name: most of these modules are not imported.
_EXPLAINED: Final = (
    "stepstream.local.embedded.errors:LocalError",
    "stepstream.common.kafka:KafkaUnreachable",
    "stepstream.admin.topics:TopicsError",
    "stepstream.admin.documents:DocumentsError",
    "stepstream.local.supervisor:PipelineError",
    "stepstream.sinks.clickhouse.errors:StoreError",
    "stepstream.producers.replay.replay:ReplayError",
    "stepstream.producers.tasks.ways:TaskNotSent",
    "stepstream.producers.transport.spool:SpoolError",
    "stepstream.releases.topic:ReleaseConflict",
    "stepstream.releases.topic:Undecided",
    "stepstream.releases.promote:NoSuchRelease",
    "stepstream.releases.promote:NotExpected",
)


def describe(error: Exception) -> tuple[str, int]:
    """The message for an exception, and the exit code."""
    if isinstance(error, Failure):
        return str(error), error.code
    if hasattr(error, "format_message"):
        return _usage_error(error)
    if _is_one_of(error, "stepstream.common.settings:SettingsError"):
        return str(error), USAGE
    if isinstance(error, AddressTaken):
        return str(error), PORT_TAKEN
    return _failure(error), FAILED


def _usage_error(error: Any) -> tuple[str, int]:
    """An error of the argument parser; empty where it has printed the help."""
    text = error.format_message()
    context = getattr(error, "ctx", None)
    where = f" ({context.command_path} --help explains)" if context is not None else ""
    return f"{_choice(text)}{where}" if text else "", getattr(error, "exit_code", USAGE)


def _failure(error: Exception) -> str:
    package = type(error).__module__.partition(".")[0]
    extra = EXTRAS.get((getattr(error, "name", "") or "").partition(".")[0])
    if isinstance(error, ModuleNotFoundError) and extra:
        text = f"the package {error.name} is not installed: pip install 'stepstream[{extra}]'"
    elif _is_one_of(error, *_EXPLAINED):
        text = str(error)
    elif package in {"confluent_kafka", "cimpl"}:
        text = f"Kafka: {_kafka_words(error)}; `stepstream doctor` finds the cause"
    elif package == "clickhouse_connect":
        first = str(error).strip().splitlines()[0]
        text = f"ClickHouse: {first}; `stepstream doctor` finds the cause"
    elif isinstance(error, OSError) and error.filename is not None:
        text = f"{error.filename}: {(error.strerror or str(error)).lower()}"
    else:
        kind = type(error).__name__
        text = f"unexpected {kind}: {error} (stepstream --debug ... prints the traceback)"
    return text


_NOT_ONE_OF: Final = re.compile(r"(?:Value error, )?'([^']*)' is not one of ('.*')\.?")


def _choice(text: str) -> str:
    """The argument parser's message about a wrong word, with the nearest valid one."""
    found = _NOT_ONE_OF.search(text)
    from stepstream.schemas.suggestions import did_you_mean
    from stepstream.schemas.wording import reworded

    if found is None:
        return reworded(text)

    known = re.findall(r"'([^']*)'", found[2])
    hint = did_you_mean(found[1], known, otherwise=f"one of {', '.join(known)}")
    return f"{text[: found.start()]}{found[1]}: {hint}{text[found.end() :]}"


def _kafka_words(error: Exception) -> str:
    inner: Any = error.args[0] if error.args else None
    return str(inner.str()) if hasattr(inner, "str") else str(error)


def _is_one_of(error: Exception, *names: str) -> bool:
    """Whether the exception has one of these classes, without importing them."""
    for name in names:
        module, _, kind = name.partition(":")
        found = getattr(sys.modules.get(module), kind, None)
        if found is not None and isinstance(error, found):
            return True
    return False
