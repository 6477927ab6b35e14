"""The pytest plugin: cases of a suite as tests, each with several trials of an agent.

Installed with the package (entry point ``pytest11``). It registers the marker ``suite``, the
fixtures ``trials`` and ``recorded``, and options that begin with ``--stepstream``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from stepstream.testing.plugin import recorded

if TYPE_CHECKING:
    from stepstream.evals.cases import Case, Suite
    from stepstream.evals.gate.trials import Trial
    from stepstream.schemas.criteria import Criteria

__all__ = ["recorded", "trials"]

MARKER: Final = (
    "suite(file, agent, criteria=(), timeout=60.0): one test for each case of the file; the "
    "fixture `trials` has the trials of the agent on it"
)
_FIXTURE: Final = "_stepstream_case"
_WORKER: Final = "stepstream_trials"


@dataclass(frozen=True)
class MarkedSuite:
    """What a marker stands for."""

    suite: Suite
    agent: Callable[[Any], Any]
    agent_name: str
    criteria: tuple[Criteria, ...]
    timeout_s: float


class Trials(list["Trial"]):
    """The trials of one case."""

    @property
    def share(self) -> float | None:
        """The share of trials that succeeded, of those that are known; None without such."""
        known = [trial.outcome for trial in self if trial.outcome is not None]
        return sum(known) / len(known) if known else None

    def assert_success(self, at_least: float = 1.0) -> None:
        """Raises ``AssertionError`` with the reasons where a smaller share succeeded.

        A case without a known outcome has not succeeded.
        """
        share = self.share
        if share is not None and share >= at_least:
            return
        reasons = dict.fromkeys(trial.reason for trial in self if trial.outcome is not True)
        good = sum(trial.outcome is True for trial in self)
        raise AssertionError(f"{good} of {len(self)} trials succeeded: {'; '.join(reasons)}")


@dataclass
class _Collected:
    """The trials of this session, by suite, for the file of results."""

    suites: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    trials: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def add(self, marked: MarkedSuite, found: Sequence[Trial]) -> None:
        import msgspec

        name = marked.suite.name
        self.suites[name] = (Path(name).stem, marked.suite.version, marked.agent_name)
        self.trials.setdefault(name, []).extend(map(msgspec.to_builtins, found))

    def merge(self, suites: dict[str, Any], trials: dict[str, list[dict[str, Any]]]) -> None:
        self.suites |= {name: tuple(header) for name, header in suites.items()}
        for name, found in trials.items():
            self.trials.setdefault(name, []).extend(found)


_COLLECTED: Final = pytest.StashKey[_Collected]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("stepstream", "stepstream: suites of agents")
    group.addoption(
        "--stepstream-trials",
        type=_positive,
        default=1,
        metavar="INT",
        help="Trials of each case of a suite (default: 1).",
    )
    group.addoption(
        "--stepstream-results",
        metavar="FILE",
        help="File for the results of the suite, which `stepstream eval gate` reads.",
    )
    group.addoption(
        "--stepstream-record",
        metavar="FOLDER",
        help="Record the calls of each trial here, for `stepstream eval replay`.",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)
    config.stash[_COLLECTED] = _Collected()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("suite")
    if marker is None:
        return
    if "trials" not in metafunc.fixturenames:
        raise pytest.UsageError(
            f"{metafunc.definition.nodeid}: a test with the marker suite takes the fixture trials"
        )
    marked = _marked(marker, metafunc)
    metafunc.parametrize(
        _FIXTURE,
        [(marked, case) for case in marked.suite.cases],
        ids=[case.id for case in marked.suite.cases],
        indirect=True,
    )


def _marked(marker: pytest.Mark, metafunc: pytest.Metafunc) -> MarkedSuite:
    """The suite of a marker. Raises ``pytest.UsageError`` with what is wrong and where."""
    from stepstream.evals.cases import CasesError, parse_suite

    where = metafunc.definition.nodeid
    try:
        made = _Marker(*marker.args, **marker.kwargs)
    except TypeError as error:
        raise pytest.UsageError(f"{where}: {error}; write @pytest.mark.{MARKER}") from None
    file = Path(made.file)
    if not file.is_absolute():
        file = metafunc.definition.path.parent / file
    if not callable(made.agent):
        raise pytest.UsageError(f"{where}: agent is a function, not {made.agent!r}")
    try:
        suite = parse_suite(str(file), file.read_text(encoding="utf-8"), made.criteria)
    except (CasesError, OSError, UnicodeDecodeError) as error:
        raise pytest.UsageError(f"{where}: {error}") from None
    name = f"{made.agent.__module__}:{getattr(made.agent, '__qualname__', 'agent')}"
    return MarkedSuite(suite, made.agent, name, tuple(made.criteria), made.timeout)


@dataclass(frozen=True)
class _Marker:
    """The arguments of the marker."""

    file: str | Path
    agent: Any
    criteria: Sequence[Criteria] = ()
    timeout: float = 60.0


@pytest.fixture
def _stepstream_case(request: pytest.FixtureRequest) -> tuple[MarkedSuite, Case]:
    """One case of a marked suite, by ``pytest_generate_tests``."""
    found: tuple[MarkedSuite, Case] = request.param
    return found


@pytest.fixture
def trials(_stepstream_case: tuple[MarkedSuite, Case], pytestconfig: pytest.Config) -> Trials:
    """The trials of the case that the test is about, each run in a process of its own."""
    from stepstream.evals.cases import Suite
    from stepstream.suites.runner import Plan, run_suite

    marked, case = _stepstream_case
    folder = pytestconfig.getoption("--stepstream-record")
    plan = Plan(
        trials=pytestconfig.getoption("--stepstream-trials"),
        timeout_s=marked.timeout_s,
        recordings=str(Path(folder).absolute()) if folder else "",
    )
    one = Suite(marked.suite.name, [case], marked.suite.version)
    done = run_suite(one, marked.agent, marked.agent_name, marked.criteria, plan)
    found = Trials(done.results.cases[case.id])
    pytestconfig.stash[_COLLECTED].add(marked, found)
    return found


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    collected = config.stash[_COLLECTED]
    if hasattr(config, "workeroutput"):  # a process of pytest-xdist
        config.workeroutput[_WORKER] = [collected.suites, collected.trials]
        return
    file = config.getoption("--stepstream-results")
    if file and collected.suites:
        _write(Path(file), collected)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Take the trials of a process of pytest-xdist that has ended."""
    found = getattr(node, "workeroutput", {}).get(_WORKER)
    if found:
        node.config.stash[_COLLECTED].merge(*found)


def _write(file: Path, collected: _Collected) -> None:
    from stepstream.evals.gate.trials import (
        RESULTS_VERSION,
        Header,
        Trial,
        lines_of,
        results_of,
    )

    if len(collected.suites) > 1:
        names = ", ".join(sorted(collected.suites))
        raise pytest.UsageError(
            f"--stepstream-results takes one suite, and these were run: {names}; select one with -k"
        )
    ((name, (suite, version, agent)),) = collected.suites.items()
    found = [Trial(**trial) for trial in collected.trials[name]]
    results = results_of(agent, found, Header(RESULTS_VERSION, suite, version, agent))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines_of(results)) + "\n", encoding="utf-8")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(f"{text} is less than 1")
    return number


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for line in _summary(config):
        terminalreporter.write_line(line)


def _summary(config: pytest.Config) -> Iterator[str]:
    for name, found in sorted(config.stash[_COLLECTED].trials.items()):
        good = sum(trial["success"] is True and not trial["crashed"] for trial in found)
        unknown = sum(trial["success"] is None and not trial["crashed"] for trial in found)
        outcomes = f"{good} of {len(found)} trials succeeded, {unknown} unknown"
        yield f"stepstream: {Path(name).name}: {outcomes}"
