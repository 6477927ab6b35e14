"""``never_raises``: keeps the SDK's own errors out of the program that calls it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec

from stepstream.producers.misuse import arguments_do_not_fit, log_wrong_call
from stepstream.producers.sdk_log import internal_error

P = ParamSpec("P")


def never_raises(function: Callable[P, None]) -> Callable[P, None]:
    """Return the function with every ``Exception`` from inside it logged instead of raised.

    A call whose arguments do not fit the signature is logged as misuse, with the correct call.
    """

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except Exception as error:
            try:
                if arguments_do_not_fit(error):
                    log_wrong_call(function, args, kwargs)
                    return
            except Exception as inner:
                error = inner
            internal_error(function.__qualname__, error)

    return guarded
