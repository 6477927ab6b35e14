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
    """Aliases of aliases would otherwise grow without a limit: ten lines stand for millions."""
    file = tmp_path / "x.yaml"
    file.write_text('a: &a ["\\U0001f600"]\nb: [*a, *a]\n')
    (document,) = yamlfile.read(file, [])
    assert document.value["b"] == [["\U0001f600"], ["\U0001f600"]]
    # The same object: copies of what aliases share took 17 s for a file of ten lines.
    assert document.value["b"][0] is document.value["b"][1] is document.value["a"]
