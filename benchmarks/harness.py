"""What every benchmark prints and writes: tables, figures with units in their names, ratios, goals,
machine, versions."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.machine import load_average, machine_facts
from stepstream.admin.versions import package_versions

NOT_INSTALLED: Final = "not installed"
# A load average above this before a benchmark begins is noted with its result.
BUSY: Final = 0.5


@dataclass(frozen=True)
class Goal:
    """A value to reach.

    It is never loosened: ``met`` is False as well where nothing was measured.
    """

    name: str
    reached: float | None
    goal: float
    unit: str
    at_most: bool = True
    stretch: bool = False

    @property
    def met(self) -> bool:
        # A goal that was not measured must not pass for one that was met.
        if self.reached is None:
            return False
        return self.reached <= self.goal if self.at_most else self.reached >= self.goal

    def as_json(self) -> dict[str, Any]:
        """The goal as it stands in the JSON file."""
        comparison = "at most" if self.at_most else "at least"
        shown = {
            "name": self.name,
            "unit": self.unit,
            "comparison": comparison,
            "goal": self.goal,
            "reached": self.reached,
        }
        return shown | {"met": self.met, "stretch": self.stretch}

    def line(self) -> str:
        """The goal in words."""
        reached = (
            "not measured" if self.reached is None else f"{show(self.reached)} {self.unit}".strip()
        )
        bound = f"{'at most' if self.at_most else 'at least'} {show(self.goal)} {self.unit}".strip()
        return (
            f"{'met    ' if self.met else 'NOT met'}  {self.name}: {reached} "
            f"({bound}{', stretch' if self.stretch else ''})"
        )


@dataclass(frozen=True)
class Table:
    """A table as people read it: texts to the left, numbers to the right, None as a dash."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[float | str | None]]

    def render(self) -> str:
        """The table as text."""
        cells = [[show(value) for value in row] for row in self.rows]
        widths = [
            max(len(name), *(len(row[i]) for row in cells), 0)
            for i, name in enumerate(self.columns)
        ]
        left = [all(isinstance(row[i], str) for row in self.rows) for i in range(len(self.columns))]
        lines = [
            self.title,
            _line(self.columns, widths, left),
            "  ".join("-" * width for width in widths),
        ]
        return "\n".join(lines + [_line(row, widths, left) for row in cells])


def _line(cells: Sequence[str], widths: Sequence[int], left: Sequence[bool]) -> str:
    padded = [
        cell.ljust(w) if is_left else cell.rjust(w)
        for cell, w, is_left in zip(cells, widths, left, strict=True)
    ]
    return "  ".join(padded).rstrip()


def show(value: float | str | None) -> str:
    """A number with about three digits that matter."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return (
        f"{value:.1f}"
        if abs(value) >= 10
        else f"{value:.2f}"
        if abs(value) >= 0.1 or not value
        else f"{value:.4f}"
    )


@dataclass
class Report:
    """The result of one benchmark.

    ``wrong`` is set where a number proves that something was lost or counted twice.
    """

    name: str
    quick: bool = False
    figures: dict[str, float] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def table(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[float | str | None]]
    ) -> None:
        """Print a table."""
        print(f"\n{Table(title, columns, rows).render()}", flush=True)

    def progress(self, line: str) -> None:
        """A line about what is going on; it goes to standard error."""
        print(f"{time.strftime('%H:%M:%S')} {self.name}: {line}", file=sys.stderr, flush=True)

    def as_json(self) -> dict[str, Any]:
        """The whole result."""
        return {
            "benchmark": self.name,
            "quick": self.quick,
            "finished_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "figures": {name: _rounded(value) for name, value in self.figures.items()},
            "ratios": {name: _rounded(value) for name, value in self.ratios.items()},
            "goals": [goal.as_json() for goal in self.goals],
            "notes": self.notes,
            "wrong": self.wrong,
            "machine": machine_facts(),
            "versions": package_versions(),
        }

    def finish(self, file: Path | None) -> int:
        """Print goals and notes, write the JSON; the exit code: 1 where something is wrong,
        whatever the speed."""
        facts = machine_facts()
        print(
            f"\n{facts['cpu']}, {facts['cores']} cores, {facts['memory_gb']} GB, Python "
            f"{facts['python']}, {facts['system']}"
        )
        for note in self.notes:
            print(f"note: {note}")
        if self.quick:
            print("note: --quick: too little was measured for these numbers to be quoted")
        for goal in self.goals:
            print(goal.line())
        for line in self.wrong:
            print(f"WRONG: {line}")
        if file is not None:
            file.write_text(json.dumps(self.as_json(), indent=2) + "\n")
        # A goal that is not met is no failure of the benchmark; a lost event is.
        return 1 if self.wrong else 0


def _rounded(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.6g}")


def parser(description: str) -> argparse.ArgumentParser:
    """The flags that every benchmark takes."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "--quick", action="store_true", help="a small run, to see that everything works"
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="write the result here as well")
    made.add_argument("--seed", type=int, default=1, help="of the load (default %(default)s)")
    return made


def run(
    name: str, measure: Callable[[Report, argparse.Namespace], None], flags: argparse.ArgumentParser
) -> None:
    """Parse the flags, measure, report and exit."""
    arguments = flags.parse_args()
    report = Report(name, quick=arguments.quick)
    busy = load_average()
    report.figures["load_average_before"] = busy
    if busy > BUSY:
        report.notes.append(
            f"the machine was busy with something else (load average {busy:.1f}): expect worse "
            "than it can do"
        )
    try:
        measure(report, arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        # Threads of engines would keep the process for minutes.
        os._exit(130)
    sys.exit(report.finish(arguments.json))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of the (not empty) values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]
