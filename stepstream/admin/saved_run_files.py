"""Reads files of saved runs, among files of other documents."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from stepstream.admin import yamlfile
from stepstream.admin.documents import DocumentsError, files_of
from stepstream.admin.yamlfile import Place, Problem
from stepstream.backtest.saved_run import SavedRun


def read_saved_runs(paths: Iterable[Path]) -> tuple[list[tuple[Path, SavedRun]], list[Path]]:
    """The saved runs of files and directories, and the files without any.

    Raises ``DocumentsError`` with every problem of the saved runs: those of other documents are
    found where these are read.
    """
    saved_runs: list[tuple[Path, SavedRun]] = []
    others: list[Path] = []
    problems: list[Problem] = []
    for file in (file for path in paths for file in files_of(path)):
        nodes = [node for node in yamlfile.read(file, []) if node.value.get("kind") == "Incident"]
        if not nodes:
            others.append(file)
        for node in nodes:
            if (version := node.value.get("version", 1)) != 1:
                reason = f"it is a saved run of version {version}, and this release reads version 1"
                problems.append(Problem(Place(file, node.place.line), reason))
                continue
            try:
                saved_runs.append((file, SavedRun.model_validate(node.value)))
            except ValidationError as error:
                problems += yamlfile.explain(error, node, SavedRun)
    if problems:
        raise DocumentsError(problems)
    return saved_runs, others
