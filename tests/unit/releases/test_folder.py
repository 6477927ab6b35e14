"""Building a release from a folder: what is read, what is refused, and its hash."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from stepstream.cli.app import run
from stepstream.releases.folder import BuildError, build
from stepstream.schemas.release import decode_release
from tests.support.release_folder import write_folder


def problems(folder: Path) -> str:
    """The lines of the error, without the folder's name."""
    with pytest.raises(BuildError) as refused:
        build(folder)
    return str(refused.value).replace(f"{folder}/", "")


def test_a_folder_is_one_document(tmp_path: Path) -> None:
    """Prompts, parameters, tools and criteria, each as they are written."""
    release = build(write_folder(tmp_path))
    assert release.title == "support@v12"
    assert release.model == {"provider": "openai", "name": "gpt-4o", "temperature": 0.0}
    assert release.prompts["plan"].variables == ("question", "customer")
    assert release.prompts["tone"].template == "Be kind."
    (tool,) = release.tools
    assert (tool.name, tool.parameters["required"]) == ("lookup_order", ["order"])
    assert release.criteria == ({"tools_called": ["lookup_order"]},)


def test_equal_files_are_the_same_release(tmp_path: Path) -> None:
    """Elsewhere, with Windows' line ends, in another order of keys, at another commit."""
    release = build(write_folder(tmp_path / "a"))
    folder = write_folder(tmp_path / "b")
    manifest = folder / "release.yaml"
    head, _, rest = manifest.read_text().partition("model:")
    # The same keys in another order, with the line ends of Windows.
    manifest.write_bytes(f"model:{rest}{head}".replace("\n", "\r\n").encode())
    plan = folder / "prompts" / "plan.md"
    plan.write_bytes(plan.read_text().replace("\n", "\r\n").encode())
    other = build(folder, revision="another")
    assert other.hash == release.hash
    assert other.source != release.source


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("prompts/plan.md", "Help", "Do not help"),
        ("tools/lookup_order.yaml", "integer", "string"),
        ("release.yaml", "temperature: 0.0", "temperature: 0.1"),
        ("release.yaml", "version: v12", "version: v13"),
        ("release.yaml", "tools_called", "tools_not_called"),
    ],
)
def test_other_content_is_another_release(tmp_path: Path, file: str, old: str, new: str) -> None:
    """Every part counts."""
    release = build(write_folder(tmp_path))
    path = tmp_path / file
    path.write_text(path.read_text().replace(old, new))
    assert build(tmp_path).hash != release.hash


def test_without_a_version_it_is_made_from_the_content(tmp_path: Path) -> None:
    """The same content gets the same version, other content another one."""
    manifest = write_folder(tmp_path) / "release.yaml"
    manifest.write_text(manifest.read_text().replace("version: v12\n", ""))
    made = build(tmp_path)
    assert build(tmp_path).version == made.version
    (tmp_path / "prompts" / "tone.md").write_text("Be brief.")
    assert build(tmp_path).version != made.version
    assert build(tmp_path, version="v1").version == "v1"


def test_unknown_variables_are_named_with_their_line(tmp_path: Path) -> None:
    """Also those that an included prompt uses, and those that no template uses."""
    folder = write_folder(tmp_path)
    # The included prompt has a variable that only the including one could set.
    (folder / "prompts" / "plan.md").write_text('Hello\n{{ custmer.name }} {% include "tone" %}')
    (folder / "prompts" / "tone.md").write_text("Be {{ mood }}.")
    assert problems(folder).splitlines() == [
        "prompts/plan.md:2: custmer is not a variable of this prompt; did you mean customer?",
        "prompts/plan.md: mood is not a variable of this prompt; there are: question, customer",
        "prompts/plan.md: the variable customer is declared and not used",
        "prompts/plan.md: the variable question is declared and not used",
        "prompts/tone.md:1: mood is not a variable of this prompt; there are: none",
    ]


def test_a_release_without_its_tools_is_refused(tmp_path: Path) -> None:
    """A tool without a file, files that are not named, and a manifest without ``tools``."""
    folder = write_folder(tmp_path)
    (folder / "tools" / "lookup_order.yaml").rename(folder / "tools" / "lookup_ordr.yaml")
    assert problems(folder).splitlines() == [
        "release.yaml:8: tools.lookup_order has no file in tools/; did you mean lookup_ordr?",
        "tools/lookup_ordr.yaml: release.yaml does not name it: add lookup_ordr under tools",
    ]
    manifest = folder / "release.yaml"
    manifest.write_text(manifest.read_text().replace("tools: [lookup_order]\n", ""))
    assert "release.yaml:1: tools is missing" in problems(folder)


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("prompts/tone.md", "{{ broken", "prompts/tone.md:1: "),
        ("prompts/tone.md", '{% include "tne" %}', "prompts/tone.md:1: there is no prompt 'tne'"),
        ("prompts/tone.md", '{% include "plan" %}', "it includes itself"),
        ("prompts/tone.md", "{{ 1 | unknown }}", "No filter named 'unknown'"),
        ("prompts/more.md", "x", "prompts/more.md: release.yaml does not name it"),
        ("prompts/plan.exe", "x", "prompts/plan.exe: files here end in .md"),
        ("tools/lookup_order.yaml", "paramters: {}", "did you mean parameters?"),
        ("tools/lookup_order.yaml", "parameters: {type: string}", "with type: object"),
        ("tools/lookup_order.yaml", "a: [", "not YAML"),
        ("release.yaml", "kind: Release\nagent: a/b\nprompts: {}\ntools: []", "agent is 'a/b'"),
        ("release.yaml", "kind: Policy\nname: x", "kind is 'Policy'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, file: str, text: str, reason: str) -> None:
    """With the file, and the line where there is one."""
    folder = write_folder(tmp_path)
    (folder / file).write_text(text)
    assert reason in problems(folder)


def test_a_number_without_a_form_in_json_is_refused(tmp_path: Path) -> None:
    """Its hash would be another one for readers."""
    manifest = write_folder(tmp_path) / "release.yaml"
    manifest.write_text(manifest.read_text().replace("temperature: 0.0", "temperature: .nan"))
    assert "cannot be written as JSON" in problems(tmp_path)


def test_a_folder_without_a_manifest_is_none(tmp_path: Path) -> None:
    """The file that is missing is named."""
    assert problems(tmp_path) == "release.yaml: there is no such file; a release begins there"


@pytest.mark.parametrize(
    "declared",
    [
        {
            "type": "function",
            "function": {"name": "lookup_order", "parameters": {"type": "object"}},
        },
        {"name": "lookup_order", "input_schema": {"type": "object"}},
    ],
)
def test_declarations_of_model_providers_are_read(tmp_path: Path, declared: object) -> None:
    """As OpenAI and Anthropic take them."""
    folder = write_folder(tmp_path)
    (folder / "tools" / "lookup_order.yaml").unlink()
    (folder / "tools" / "lookup_order.json").write_text(json.dumps(declared))
    (tool,) = build(folder).tools
    assert (tool.name, tool.parameters) == ("lookup_order", {"type": "object"})


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_source_is_the_commit(tmp_path: Path) -> None:
    """And whether the files differed from it."""
    folder = write_folder(tmp_path)
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *arguments], check=True, capture_output=True)
    source = build(folder).source
    assert (len(source.revision), source.changed) == (40, False)
    (folder / "prompts" / "tone.md").write_text("Be brief.")
    assert build(folder).source.changed


def test_the_command_is_dry_by_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints a summary, writes a file where asked, and exits with 1 for problems."""
    folder = write_folder(tmp_path / "support")
    assert run(["build", str(folder)]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("support@v12  ")
    assert "nothing was published" in shown.err
    file = tmp_path / "release.json"
    assert run(["build", str(folder / "release.yaml"), "-o", str(file)]) == 0
    assert decode_release(file.read_bytes()).title == "support@v12"
    assert run(["build", str(folder), "--json"]) == 0
    capsys.readouterr()
    (folder / "prompts" / "tone.md").write_text("{{ mood }}")
    assert run(["build", str(folder)]) == 1
    assert "tone.md:1: mood is not a variable" in capsys.readouterr().err
