"""The blocks of the documents without a running system: they parse, and what they name exists."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import typer.main
import yaml

import stepstream
from stepstream.cli.app import build
from stepstream.evals.gate.policy import policy_of
from stepstream.schemas.documents import DOCUMENT
from stepstream.schemas.topics import TOPIC_NAMES
from stepstream.simulate.scenario import Scenario
from tests.support.document_blocks import Block, blocks, pages
from tests.support.paths import ROOT

BLOCKS: Final = blocks()
# YAML that other programs read.
OTHERS: Final = {
    "services": "docker compose, checked by test_compose for what is ours",
    "scrape_configs": "Prometheus",
}


# Rules of packages that the pages teach to write; tests/unit/testing installs such a package.
TAUGHT: Final = {"too_many_questions"}


# Names of files that the pages give to policies of other names.
FILES: Final = {"refund-limits": "refunds"}


def of(*languages: str) -> list[Any]:
    """The blocks of these languages, as parameters."""
    return [pytest.param(block, id=block.id) for block in BLOCKS if block.language in languages]


def test_there_are_blocks() -> None:
    """The pages are read."""
    assert len(of("python")) >= 8
    assert len(of("yaml")) >= 6
    assert len(of("shell", "sh")) >= 20


@pytest.mark.parametrize("block", of("python"))
def test_python_compiles_and_names_what_exists(block: Block) -> None:
    """Also blocks with ``await`` at the top; what they use of ``stepstream`` is public."""
    tree = ast.parse(block.text)
    compile(tree, block.id, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    named = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "stepstream"
    }
    parts = {name for name in named if importlib.util.find_spec(f"stepstream.{name}")}
    assert named <= set(stepstream.__all__) | parts


@pytest.mark.parametrize("block", of("yaml"))
def test_yaml_is_a_valid_document(block: Block) -> None:
    """Policies, subscriptions and prices are read by the code that ``stepstream apply`` uses."""
    for document in yaml.safe_load_all(block.text):
        if document.keys() & OTHERS.keys():
            continue
        if {rule["rule"] for rule in document.get("rules", ())} & TAUGHT:
            continue
        if document.get("kind") == "Gate":
            policy_of(document)
            continue
        if document.get("kind") == "Scenario":
            Scenario.model_validate(document)
            continue
        # A block without a kind is a part of a policy.
        DOCUMENT.validate_python({"kind": "Policy", "name": "part"} | document)


@pytest.mark.parametrize("block", of("shell", "sh", "console"))
def test_commands_exist_with_their_options(block: Block) -> None:
    """Each ``stepstream`` command is parsed by the command line, without running it."""
    for line in block.commands:
        if line.startswith("stepstream "):
            _check_command(shlex.split(line)[1:])
        for command in re.findall(r"\$\(stepstream ([^)]*)\)", line):
            _check_command(shlex.split(command))
        for target in re.findall(r"^make (\w[\w-]*)", line):
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), line
        for module in re.findall(r"python -m ([\w.]+)", line):
            assert importlib.util.find_spec(module) is not None, line


def _check_command(arguments: list[str]) -> None:
    command: Any = typer.main.get_command(build(arguments[0]))
    context = None
    name, rest = "stepstream", arguments
    # A group alone, or with options, runs a command of its own (`stepstream alerts --follow`).
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        context = type(command).context_class(command, parent=context, info_name=name)
        name, rest = rest[0], rest[1:]
        command = command.get_command(context, name)
        assert command is not None, f"no command {name} in: stepstream {' '.join(arguments)}"
    command.make_context(name, rest, parent=context)


@pytest.fixture
def reader(tmp_path: Path) -> Path:
    """A reader's folder with the policies and results that the pages show."""
    policies = tmp_path / "policies"
    policies.mkdir()
    for block in of("yaml"):
        text = block.values[0].text
        if block.values[0].page == "docs/policies.md":
            name = yaml.safe_load(text)["name"]
            (policies / f"{FILES.get(name, name)}.yaml").write_text(text)
    (shown,) = (
        block
        for block in BLOCKS
        if block.page == "docs/evaluation.md" and block.language == "json" and "trial" in block.text
    )
    trials = [json.loads(shown.text) | {"case": f"case-{number}"} for number in range(20)]
    results = tmp_path / "results"
    results.mkdir()
    for name in ("v12", "v13"):
        (results / f"{name}.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in trials))
    return tmp_path


@pytest.mark.parametrize(
    ("command", "codes"),
    [("stepstream policy test policies", {0}), ("stepstream eval gate --baseline results", {0, 3})],
)
def test_commands_that_need_no_system_run(command: str, codes: set[int], reader: Path) -> None:
    """Those of the pages, with the files of the pages; what they print is as it is shown."""
    (block, line) = next(
        (block, line)
        for block in BLOCKS
        if block.language == "console"
        for line in block.commands
        if line.startswith(command)
    )
    done = subprocess.run(
        shlex.split(line),
        cwd=reader,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in codes, f"{done.stdout}{done.stderr}"
    shown = [text for text in block.text.splitlines() if not text.startswith("$ ")]
    printed = " ".join(done.stdout.split())
    assert [text for text in shown if " ".join(text.split()) not in printed] == []


def test_the_detector_that_is_taught_passes_its_test(tmp_path: Path) -> None:
    """The page's package and the page's test of it, run as a reader would."""
    taught = [block for block in BLOCKS if "TooManyQuestions" in block.text]
    package, its_test = (block for block in taught if block.language == "python")
    (tmp_path / "acme_detectors.py").write_text(package.text)
    (tmp_path / "test_acme.py").write_text(its_test.text)
    # A process of its own: the rule would stay registered for the other tests of this one.
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:schemathesis", "test_acme.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert "1 passed" in done.stdout


def test_links_between_pages_lead_somewhere() -> None:
    """To files that exist, and to headings in them."""
    broken = []
    for page in pages():
        for target in re.findall(r"\]\(([^)\s]+)\)", _prose(page)):
            if target.startswith(("http://", "https://")):
                continue
            name, _, heading = target.partition("#")
            path = (page.parent / name).resolve() if name else page
            if not path.exists() or (heading and heading not in _headings(path)):
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert broken == []


def _prose(page: Path) -> str:
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)


def _headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    found = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_every_page_is_in_the_index() -> None:
    """docs/README.md links every page of docs."""
    index = (ROOT / "docs" / "README.md").read_text()
    missing = [
        page.name
        for page in sorted((ROOT / "docs").glob("*.md"))
        if page.name != "README.md" and f"({page.name})" not in index
    ]
    assert missing == []


def test_the_architecture_lists_every_topic() -> None:
    """The table of topics and keys is complete."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    table = text.partition("## Topics and keys")[2].partition("\n##")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == TOPIC_NAMES
