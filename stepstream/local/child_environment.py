"""The environment variables that the processes of ``stepstream up`` inherit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from stepstream.schemas.channels import listed_variables, may_name
from stepstream.schemas.settings import ENV_PREFIX, Settings

_NEEDED: Final = re.compile(
    r"PATH|HOME|USER|LOGNAME|LANG|LANGUAGE|LC_\w+|TZ|TZDIR|TMPDIR|TEMP|TMP|SYSTEMROOT|COMSPEC|PATHEXT|APPDATA|LOCALAPPDATA|"
    r"USERPROFILE|XDG_\w+_HOME|XDG_RUNTIME_DIR|PYTHON\w*|VIRTUAL_ENV|LD_LIBRARY_PATH|DYLD_\w+|SSL_CERT_(FILE|DIR)|COVERAGE_\w+|"
    r"MALLOC_\w+|NO_COLOR|TERM",
    re.IGNORECASE,
)
"""Variables by which a Python process finds its files, libraries and language."""


def inherited(name: str, settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that the process ``name`` gets besides its settings.

    The notifier gets only what a Python process needs and the variables that documents may name:
    who may write a document decides where their values are sent. With a token hook, code of the
    user that may need any variable, it gets all of them.
    """
    if name != "notify":
        return {key: value for key, value in environ.items() if not key.startswith(ENV_PREFIX)}
    listed = listed_variables(settings.notify_secret_variables)
    found = {
        key: value
        for key, value in environ.items()
        if _NEEDED.fullmatch(key) or may_name(key, listed)
    }
    if settings.kafka_token_hook:
        found |= {key: value for key, value in environ.items() if not key.startswith(ENV_PREFIX)}
    return found
