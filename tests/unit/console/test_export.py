"""A run as one HTML page: nothing in the data can end the element that it is in."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from stepstream.console import export

HOSTILE = "</script><script>alert(1)</script><!-- \u202e \u2028 \ud800 ' \" & \x00"
RUN: dict[str, Any] = {
    "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    "name": HOSTILE,
    "start_time": datetime(2026, 11, 30, 12, 0, 0, 250_001, tzinfo=UTC),
    "cost_usd": Decimal("0.545000001"),
    "path": ["long"],
}
STEP: dict[str, Any] = {
    "step_id": "00f067aa0ba902b7",
    "name": HOSTILE,
    "start_time": datetime(2026, 11, 30, 12, 0, 0, tzinfo=UTC),
    "input": HOSTILE,
    "output": "",
    "input_bytes": 5,
    "output_bytes": None,
    "documents": [(HOSTILE, 0.5, "text")],
    "attributes": {"a": HOSTILE},
}


DATA = re.compile(r'<script type="application/json" id="stepstream-data">(.*?)</script', re.DOTALL)


@pytest.fixture(autouse=True)
def static(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "export").mkdir()
    (tmp_path / "export/run.js").write_text('const a = "</script>";')
    (tmp_path / "export/run.css").write_text("body { margin: 0 }")
    monkeypatch.setattr(export, "STATIC", tmp_path)
    return tmp_path


def written(contents: bool) -> str:
    text = export.page(RUN, [STEP], written_at_us=7, contents=contents)
    text.encode()
    return text


def data_of(text: str) -> Any:
    """The data as a browser reads it: up to the first end of the element."""
    found = DATA.search(text)
    assert found is not None
    return json.loads(found[1])


def test_the_page_has_its_own_elements_only() -> None:
    assert written(contents=True).lower().count("<script") == 2


def test_the_data_comes_back_as_it_was() -> None:
    data = data_of(written(contents=True))
    assert data["run"]["name"] == HOSTILE
    assert "path" not in data["run"]
    assert data["run"]["cost_usd"] == "0.545000001"
    assert data["run"]["start_time"] == 1_796_040_000_250_001
    assert data["steps"]["name"] == [HOSTILE]
    stored = data["contents"][STEP["step_id"]]
    assert stored["input"] == HOSTILE
    assert stored["documents"] == [{"id": HOSTILE, "score": 0.5, "content": "text"}]


def test_contents_are_left_out_unless_they_are_wanted() -> None:
    data = data_of(written(contents=False))
    assert "contents" not in data
    assert "input" not in data["steps"]


def test_a_run_without_steps() -> None:
    assert "stepstream-data" in export.page(RUN, [], written_at_us=7, contents=True)


def test_missing_pages_are_named(static: Path) -> None:
    (static / "export/run.js").unlink()
    with pytest.raises(export.PagesMissing, match="make setup"):
        export.page(RUN, [], written_at_us=7, contents=False)
