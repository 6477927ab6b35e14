"""``stepstream simulate``: load with faults, sent to Kafka, written to a file, or checked."""

from __future__ import annotations

import gzip
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, cast

import typer

from stepstream.cli import errors
from stepstream.cli.common import print_json
from stepstream.cli.options import Format, FormatOption, takes
from stepstream.cli.policy import PolicyOption
from stepstream.common.terminal import echo, remark

if TYPE_CHECKING:
    from stepstream.schemas.settings import Settings
    from stepstream.simulate.check import Checked
    from stepstream.simulate.scenario import Scenario


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("simulate", rich_help_panel="Data")(simulate)


@takes("kafka", settings=["compression"])
def simulate(
    settings: Settings,
    *,
    scenarios: Annotated[
        list[Path],
        typer.Argument(metavar="SCENARIO...", help="YAML files of scenarios, or directories."),
    ],
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Send nothing: evaluate the runs here, and compare with what each scenario "
            "expects.",
        ),
    ] = False,
    policy: PolicyOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Write step events to this file instead, one JSON object a line; .gz compresses.",
        ),
    ] = None,
    speed: Annotated[
        float,
        typer.Option(
            "--speed", metavar="FLOAT", min=0.01, help="2: twice as fast, with halved durations."
        ),
    ] = 1.0,
    format: FormatOption = Format.TABLE,
) -> None:
    """Simulate agents: load with faults from a seeded scenario.

    The events are sent to Kafka in real time, for example to a running `stepstream up`; with
    --output they are written to a file for `stepstream replay`. With --check they are evaluated
    here by the worker's own detectors, with the policies of --policy, and the exit code is 1 where
    a scenario's expectations are not met. Equal seeds give equal runs.
    """
    found = _read(scenarios)
    if check:
        _check(found, policy, format)
        return
    if len(found) > 1:
        raise errors.Failure("one scenario is sent at a time; --check takes many", errors.USAGE)
    scenario = found[0][1]
    if output is not None:
        with _opened(output) as out:
            number = _write(scenario, out, _start_us(scenario), speed)
        echo(f"{output}: {number:,} events of scenario {scenario.name}")
        return
    _send(settings, scenario, speed)


def _read(paths: Sequence[Path]) -> list[tuple[Path, Scenario]]:
    """The scenarios of files and directories. Raises ``Failure`` with every problem."""
    from pydantic import ValidationError

    from stepstream.admin import yamlfile
    from stepstream.admin.documents import DocumentsError, files_of
    from stepstream.simulate.scenario import Scenario

    found: list[tuple[Path, Scenario]] = []
    problems: list[yamlfile.Problem] = []
    for path in paths:
        try:
            files = files_of(path)
        except DocumentsError as error:
            problems += error.problems
            continue
        for node in (node for file in files for node in yamlfile.read(file, problems)):
            # A directory may have policies as well; a file that is named has scenarios.
            if path.is_dir() and node.value.get("kind") != "Scenario":
                continue
            try:
                found.append((node.place.file, Scenario.model_validate(node.value)))
            except ValidationError as error:
                problems += yamlfile.explain(error, node, Scenario)
    if problems:
        text = "\n".join(map(str, problems))
        raise errors.Failure(f"nothing was simulated, because of\n{text}")
    if not found:
        raise errors.Failure(f"no scenario in {', '.join(map(str, paths))}")
    return found


def _start_us(scenario: Scenario) -> int:
    from stepstream.schemas.times import us_of

    # Without a start of its own a file is as recent as a recording of now would be.
    return us_of(scenario.start) if scenario.start else time.time_ns() // 1_000 - scenario.duration


def _write(scenario: Scenario, out: IO[bytes], start_us: int, speed: float) -> int:
    from stepstream.simulate.generate import events

    number = 0
    for timed in events(scenario, start_us, speed=speed):
        out.write(json.dumps(timed.event, separators=(",", ":")).encode() + b"\n")
        number += 1
    return number


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    try:
        raw = file.open("wb")
    except OSError as error:
        raise errors.Failure(f"{file} cannot be written: {error.strerror}") from None
    with raw:
        if file.suffix == ".gz":
            # No name and no time in the header: equal seeds give equal files.
            with gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as packed:
                yield cast(IO[bytes], packed)
        else:
            yield raw


def _send(settings: Settings, scenario: Scenario, speed: float) -> None:
    from stepstream.admin.topics import require_topic
    from stepstream.producers.replay.replay import replay
    from stepstream.schemas.topics import topic

    require_topic(settings, topic(settings.topic_prefix, "steps"))
    lasts_s = scenario.duration / speed / 1e6
    # All events are made before the first is sent, so that making them delays none.
    handle, name = tempfile.mkstemp(prefix="stepstream-simulate-", suffix=".jsonl")
    try:
        with os.fdopen(handle, "wb") as out:
            number = _write(scenario, out, time.time_ns() // 1_000, speed)
        remark(f"scenario {scenario.name}: {number:,} events in {lasts_s:,.0f} s; Ctrl-C stops it")
        report = replay(Path(name), settings, keep_ids=True)
    finally:
        Path(name).unlink(missing_ok=True)
    echo(report)
    if report.failed or report.bad:
        raise typer.Exit(errors.FAILED)


def _check(
    found: Sequence[tuple[Path, Scenario]], policy: list[Path] | None, format: Format
) -> None:
    from stepstream.cli.policy import policies_in
    from stepstream.simulate.check import check

    policies = policies_in(policy) if policy else []
    results = [(file, check(one, policies, _start_us(one))) for file, one in found]
    if format is Format.JSON:
        print_json([_result(file, result) for file, result in results])
    else:
        for file, result in results:
            _print_result(file, result)
    failed = sum(bool(result.problems) for _, result in results)
    remark(f"{len(results) - failed} of {len(results)} scenarios passed")
    if failed:
        raise typer.Exit(errors.FAILED)


def _print_result(file: Path, result: Checked) -> None:
    echo(f"{'FAILED' if result.problems else 'passed'}  {result.scenario.name}  ({file})")
    faults = ", ".join(f"{name} in {runs:,}" for name, runs in result.faults.items()) or "none"
    echo(f"    {result.runs:,} runs, {result.events:,} events; faults: {faults}")
    alerts = ", ".join(f"{name} {number:,}" for name, number in result.alerts.items()) or "none"
    echo(f"    alerts: {alerts}")
    for problem in result.problems:
        echo(f"    wrong: {problem}")


def _result(file: Path, result: Checked) -> dict[str, Any]:
    return {
        "file": str(file),
        "scenario": result.scenario.name,
        "passed": not result.problems,
        "problems": list(result.problems),
        "runs": result.runs,
        "events": result.events,
        "alerts": result.alerts,
        "faults": result.faults,
    }
