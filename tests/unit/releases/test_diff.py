"""What two releases have different."""

from __future__ import annotations

from pathlib import Path

from stepstream.releases.diff import differences
from stepstream.releases.folder import build
from tests.support.release_folder import built, write_folder


def test_equal_content_has_no_difference(tmp_path: Path) -> None:
    """Under two versions."""
    first = built(tmp_path / "a", "v1", tone="kind")
    assert differences(first, built(tmp_path / "b", "v2", tone="kind")) == []


def test_every_part_is_compared_by_lines(tmp_path: Path) -> None:
    """Prompts, variables, parameters, tools and criteria."""
    old = build(write_folder(tmp_path / "a"))
    folder = write_folder(tmp_path / "b", version="v13", tone="Be brief.")
    manifest = folder / "release.yaml"
    text = manifest.read_text().replace("temperature: 0.0", "top_p: 0.5")
    text = text.replace("[lookup_order]\ncriteria", "[lookup_order, refund]\ncriteria")
    manifest.write_text(text.replace("tools_called", "tools_never_called"))
    tool = folder / "tools" / "lookup_order.yaml"
    (folder / "tools" / "refund.yaml").write_text("parameters: {type: object}")
    tool.write_text(tool.read_text().replace("integer", "string"))
    found = {one.part: one for one in differences(old, build(folder))}
    assert {part: one.what for part, one in found.items()} == {
        "model temperature": "removed",
        "model top_p": "added",
        "prompt tone": "changed",
        "tool lookup_order": "changed",
        "tool refund": "added",
        "criteria": "changed",
    }
    assert found["prompt tone"].lines == ("@@ -1 +1 @@", "-Be kind.", "+Be brief.")
    assert '-   "type": "integer"' in found["tool lookup_order"].lines


def test_the_order_of_tools_is_a_difference(tmp_path: Path) -> None:
    """Models read them in this order."""
    release = build(write_folder(tmp_path))
    other = release.tools[0].model_copy(update={"name": "b"})
    old = release.model_copy(update={"tools": (*release.tools, other)})
    new = release.model_copy(update={"tools": (other, *release.tools)})
    (found,) = differences(old, new)
    assert found.part == "order of tools"
