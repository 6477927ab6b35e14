"""Characters of JSON files that are read as YAML."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stepstream.admin import yamlfile


@pytest.mark.parametrize(
    ("text", "wanted"), [("\U0001f600 ok", "\U0001f600 ok"), ("a\ud83d", "a\ufffd"), ("é", "é")]
)
def test_pairs_of_escapes_are_one_character(tmp_path: Path, text: str, wanted: str) -> None:
    """In values, keys and lists; half a pair is replaced, so that the text can be encoded."""
    file = tmp_path / "x.json"
    file.write_text(json.dumps({"kind": text, text: [text]}))
    problems: list[yamlfile.Problem] = []
    (document,) = yamlfile.read(file, problems)
    assert not problems
    assert document.value == {"kind": wanted, wanted: [wanted]}


def test_what_an_alias_names_is_read_once(tmp_path: Path) -> None:
    """What shares a node in the file shares an object."""
    file = tmp_path / "x.yaml"
    file.write_text('a: &a ["\\U0001f600"]\nb: [*a, *a]\n')
    (document,) = yamlfile.read(file, [])
    assert document.value["b"] == [["\U0001f600"], ["\U0001f600"]]
    # The same object: copies of what aliases share took 17 s for a file of ten lines.
    assert document.value["b"][0] is document.value["b"][1] is document.value["a"]


@pytest.mark.parametrize(("depth", "refused"), [(4, False), (8, True)])
def test_aliases_of_aliases_are_bounded(tmp_path: Path, depth: int, refused: bool) -> None:
    """Ten lines stand for millions of values, which the document's JSON would have."""
    lines = ["a0: &a0 [x]", *(f"a{n}: &a{n} [{f'*a{n - 1},' * 9}]" for n in range(1, depth))]
    file = tmp_path / "x.yaml"
    file.write_text("\n".join(lines) + "\n---\na: &b [*b]\n")
    problems: list[yamlfile.Problem] = []
    found = list(yamlfile.read(file, problems))
    assert len(found) == (1 if refused else 2)
    assert ["100,000 values" in str(one) for one in problems] == [True] * refused
