"""A release in the agent: its prompts, tools and parameters, as they are now."""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from stepstream.producers.exceptions import ReleaseUnavailable
from stepstream.producers.forks import call_after_fork, fork_lock
from stepstream.producers.releases.sources import NotPublished, ReleaseSource
from stepstream.producers.sdk_log import sdk_log, suppressed
from stepstream.producers.steps import current
from stepstream.schemas.release import (
    Prompt,
    PromptError,
    Release,
    WrongRelease,
    decode_release,
)
from stepstream.schemas.suggestions import did_you_mean

if TYPE_CHECKING:
    from stepstream.producers.releases.cache import ReleaseCache

FIRST_RETRY_S: Final = 1.0
LONGEST_RETRY_S: Final = 30.0
Form = Literal["plain", "openai", "anthropic"]


class AgentRelease:
    """The release of an agent that a label or version names.

    With ``follow`` it changes when the label does. Within a run it stays what it was when the run
    began, so that a run never mixes two releases.
    """

    def __init__(self, loader: ReleaseLoader) -> None:
        self._loader = loader

    @property
    def document(self) -> Release:
        """The whole document: that of the current run, else the newest one."""
        step = current.get()
        if step is not None and step.trace_id:
            pinned = step._scope.release
            if pinned is not None and pinned.agent == self.agent:
                return pinned
        return self._loader.now()

    @property
    def agent(self) -> str:
        return self._loader.agent

    @property
    def version(self) -> str:
        return self.document.version

    @property
    def hash(self) -> str:
        return self.document.hash

    @property
    def model(self) -> dict[str, Any]:
        """The model parameters; a copy."""
        return copy.deepcopy(self.document.model)

    def model_for(self, name: str) -> dict[str, Any]:
        """The model parameters with those of a prompt in their place. Raises ``PromptError``."""
        document = self.document
        return copy.deepcopy({**document.model, **_prompt(document, name).model})

    @property
    def tools(self) -> list[dict[str, Any]]:
        """The tools, each with name, description and parameters; copies."""
        return self.tools_for("plain")

    def tools_for(self, form: Form) -> list[dict[str, Any]]:
        """The tools in the form of a model provider. Raises ``ValueError`` for an unknown one."""
        declare = _FORMS.get(form)
        if declare is None:
            raise ValueError(f"there is no form {form!r}; {did_you_mean(form, _FORMS)}")
        return [declare(tool.model_dump(mode="json")) for tool in self.document.tools]

    @property
    def criteria(self) -> tuple[dict[str, Any], ...]:
        return copy.deepcopy(self.document.criteria)

    def prompt(self, name: str, /, **variables: object) -> str:
        """The text of a prompt. Template syntax in a variable is text and is not evaluated.

        Raises ``PromptError`` for an unknown prompt, an unknown or missing variable, and a value
        that is no text, number, list or mapping.
        """
        try:
            with fork_lock.importing():
                from stepstream.common.prompts import prompt_set
        except ImportError as error:
            raise PromptError(f"{error}: pip install 'stepstream[releases]'") from None
        document = self.document
        _check_variables(name, _prompt(document, name), variables)
        templates = {key: one.template for key, one in document.prompts.items()}
        return prompt_set(templates).render(name, variables)

    def __repr__(self) -> str:
        document = self.document
        return f"<AgentRelease {document.title} {document.short_hash}>"


def _prompt(document: Release, name: str) -> Prompt:
    found = document.prompts.get(name)
    if found is None:
        hint = did_you_mean(name, document.prompts)
        raise PromptError(f"{document.title} has no prompt {name!r}; {hint}")
    return found


def _check_variables(name: str, prompt: Prompt, given: dict[str, object]) -> None:
    for variable in given:
        if variable not in prompt.variables:
            hint = did_you_mean(variable, prompt.variables)
            raise PromptError(f"prompt {name!r} has no variable {variable!r}; {hint}")
    missing = [variable for variable in prompt.variables if variable not in given]
    if missing:
        raise PromptError(f"prompt {name!r} needs {', '.join(missing)}")


def _plain(tool: dict[str, Any]) -> dict[str, Any]:
    return tool


def _openai(tool: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": tool}


def _anthropic(tool: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": tool["name"],
        "description": tool["description"],
        "input_schema": tool["parameters"],
    }


_FORMS: Final[dict[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "plain": _plain,
    "openai": _openai,
    "anthropic": _anthropic,
}


class ReleaseLoader:
    """Loads a release once, or follows it in a thread.

    The first load waits for the endpoint for some seconds, then takes what is on disk, then the
    file that came with the program.
    """

    def __init__(
        self,
        agent: str,
        name: str,
        *,
        connect: Callable[[], ReleaseSource] | None,
        cache: ReleaseCache | None,
        file: Path | None = None,
        follow: bool = False,
    ) -> None:
        """``connect`` is None without an endpoint."""
        self.agent = agent
        self._name = name
        self._connect = connect
        self._cache = cache
        self._file = file
        self._destination = None if cache is None else cache.folder
        self._follow = follow
        self._release: Release | None = None
        self._answered = threading.Event()
        """Set once the endpoint has given the release, or a final refusal."""
        self._tried = threading.Event()
        """Set once it has answered or failed."""
        self._failure = ""
        self._is_fixed = False
        self._thread: threading.Thread | None = None
        self._left_to_parent: list[object] = []
        self._source: ReleaseSource | None = None
        self.handle = AgentRelease(self)
        call_after_fork(self)

    def same_as(self, other: ReleaseLoader) -> bool:
        """Whether it was made for the same release of the same endpoint."""
        return (self._name, self._follow, self._file, self._destination) == (
            other._name,
            other._follow,
            other._file,
            other._destination,
        )

    def after_fork(self) -> None:
        """The thread is not in the child: ``now`` starts another one."""
        self._left_to_parent.append(self._source)
        self._thread = self._source = None
        self._answered, self._tried = threading.Event(), threading.Event()

    def load(self, wait_s: float) -> None:
        """Load the release. Raises ``ReleaseUnavailable``."""
        kept = self._from_cache() or self._from_file()
        reason = "there is no endpoint"
        if self._connect is not None:
            self._start()
            # With a release from before, the first failure is enough; without, there are retries.
            (self._answered if kept is None else self._tried).wait(wait_s)
            reason = self._failure or f"no answer within {wait_s:g} s"
        release = self._release
        if release is None and kept is None:
            self._thread = None  # it ends: the program may call again, with another loader
            raise ReleaseUnavailable(
                f"{self.agent}@{self._name} cannot be loaded: {reason}; and there is neither a "
                "cached one nor a file"
            )
        if release is None and self._connect is not None:
            sdk_log.log(
                f"release {self.agent}",
                f"stepstream: {self.agent}@{self._name}: {reason}; the one from before is used",
            )
        # The thread may have had an answer meanwhile, which is newer.
        self._release = self._release or kept
        self._is_fixed = not self._follow

    def now(self) -> Release:
        """The newest release that is known."""
        release = self._release
        if release is None:
            raise ReleaseUnavailable(f"{self.agent}@{self._name} is not loaded")
        if self._follow and self._thread is None and self._connect is not None:
            self._start()
        return release

    # -- what was kept --

    def _from_cache(self) -> Release | None:
        if self._cache is None:
            return None
        try:
            return self._cache.read(self.agent, self._name)
        except WrongRelease as error:
            sdk_log.log("release cache", f"stepstream: the cached release is not used: {error}")
            return None

    def _from_file(self) -> Release | None:
        if self._file is None:
            return None
        try:
            release = decode_release(self._file.read_bytes())
        except (OSError, WrongRelease) as error:
            raise ReleaseUnavailable(f"{self._file} is no release: {error}") from None
        if release.agent != self.agent:
            raise ReleaseUnavailable(f"{self._file} is a release of {release.agent}")
        return release

    # -- in the thread --

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name="stepstream-release", daemon=True)
        self._thread = thread
        fork_lock.connecting(self)
        try:
            thread.start()
        except RuntimeError:  # the interpreter shuts down
            fork_lock.connected(self)
            self._failure = "the program ends"
            self._noted(is_final=True)

    def _work(self) -> None:
        suppressed.set(True)
        pause_s = FIRST_RETRY_S
        while self._thread is threading.current_thread():
            try:
                self._read()
                pause_s = FIRST_RETRY_S
                if self._answered.is_set() and not self._follow:
                    return
            except Exception as error:
                self._failed(error)
                # Without `follow` an answer that there is no such release is final.
                if isinstance(error, NotPublished) and not self._follow:
                    return
                threading.Event().wait(pause_s)
                pause_s = min(LONGEST_RETRY_S, 2 * pause_s)

    def _read(self) -> None:
        """Read until something fails; without ``follow`` once."""
        assert self._connect is not None
        source = self._source = self._connect()
        try:
            while self._thread is threading.current_thread():
                release = source.newest()
                if release is not None:
                    self._take(release)
                self._noted(is_final=True)
                if not self._follow:
                    return
                if release is None and source.pause_s:
                    threading.Event().wait(source.pause_s)
        finally:
            self._source = None
            source.close()

    def _take(self, release: Release) -> None:
        if release.agent != self.agent:
            raise WrongRelease(f"the endpoint answered with a release of {release.agent}")
        before = self._release
        # A program that does not follow keeps what it began with; the next one gets this release.
        if not self._is_fixed:
            self._release = release
        if not self._is_fixed and before is not None and before.hash != release.hash:
            sdk_log.log(
                f"release {release.hash}",
                f"stepstream: {self.agent}@{self._name} is {release.version} now",
                level=logging.INFO,
            )
        if self._cache is not None:
            try:
                self._cache.write(self._name, release)
            except OSError as error:
                sdk_log.log("release cache", f"stepstream: the release is not cached: {error}")

    def _noted(self, *, is_final: bool) -> None:
        fork_lock.connected(self)
        self._tried.set()
        if is_final:
            self._answered.set()

    def _failed(self, error: Exception) -> None:
        self._failure = f"{error}" or type(error).__name__
        self._noted(is_final=isinstance(error, NotPublished | WrongRelease))
        if self._release is not None:
            sdk_log.log(
                f"release {self.agent}",
                f"stepstream: {self.agent}@{self._name} cannot be read: {self._failure}; "
                f"{self._release.version} stays in use",
            )
