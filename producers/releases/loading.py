"""Makes the loader of a release from the settings."""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from stepstream.producers.engine import destination_of
from stepstream.producers.exceptions import ReleaseUnavailable
from stepstream.producers.releases.agent_release import ReleaseLoader
from stepstream.producers.releases.cache import ReleaseCache
from stepstream.producers.releases.sources import source_of
from stepstream.schemas.endpoint import is_http
from stepstream.schemas.release import AGENT_PATTERN, VERSION_PATTERN

if TYPE_CHECKING:
    from stepstream.schemas.settings import Settings

_NAMES: Final = re.compile(f"(?:{VERSION_PATTERN})|(?:^[0-9a-f]{{64}}$)")


def loader_of(
    settings: Settings,
    agent: str,
    name: str,
    *,
    follow: bool,
    file: str | os.PathLike[str] | None,
) -> ReleaseLoader:
    """A loader that has loaded nothing yet. Raises ``ReleaseUnavailable`` for impossible names."""
    if not (isinstance(agent, str) and re.fullmatch(AGENT_PATTERN, agent)):
        raise ReleaseUnavailable(f"{agent!r} is no name of an agent with releases")
    if not (isinstance(name, str) and _NAMES.fullmatch(name)):
        raise ReleaseUnavailable(f"{name!r} is neither a label nor a version of a release")
    # Not at the top: settings are read when a program runs, not when it is imported.
    from stepstream.common.settings import state_dir

    has_endpoint = bool(settings.kafka_brokers) or is_http(settings.endpoint)
    return ReleaseLoader(
        agent,
        name,
        connect=functools.partial(source_of, settings, agent, name) if has_endpoint else None,
        cache=ReleaseCache(state_dir(settings), destination_of(settings)) if has_endpoint else None,
        file=None if file is None else Path(file),
        follow=follow,
    )
