"""Lines that name runs and alerts link to their pages, on a terminal without changing a cell."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout

import pytest
from rich.text import Text

from stepstream.cli import printing
from stepstream.common import terminal
from stepstream.common.links import NOWHERE, Links, in_line
from stepstream.render.listing import Column

RUN = "4bf92f3577b34da6a3ce929d0e0e4736"
BASE = "https://console.example.com"
OSC_8 = re.compile("\x1b\\]8;([^;]*);([^\x1b]*)\x1b\\\\")


class Stream(io.StringIO):
    """Standard output, on a terminal or not."""

    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


@pytest.fixture(params=[True, False], ids=["terminal", "pipe"])
def stream(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Stream:
    made = Stream(request.param)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setattr(terminal, "_links", Links(lambda: f"{BASE}/"))
    return made


@pytest.mark.parametrize(
    ("line", "pages"),
    [
        (f"support/refund  error  run {RUN}", [f"runs/{RUN}"]),
        ("details: stepstream trace 4bf92f35 stepstream stop 4bf92f35", ["runs/4bf92f35"] * 2),
        ("sent stop to run 4bf92f35", ["runs/4bf92f35"]),
        ("run      4bf92f35      00f067aa", ["runs/4bf92f35", "runs/00f067aa"]),
        ("40, such as run 4bf92f35, 00f067aa", ["runs/4bf92f35", "runs/00f067aa"]),
        (
            "alert 4bf92f35 · stepstream alerts show 00f067aa",
            ["alerts/4bf92f35", "alerts/00f067aa"],
        ),
        ("the run facade-2 trace 20260301T1200 run 4bf9", []),
        ("step 00f067aa0ba902b7 of 4bf92f35", []),
    ],
)
def test_ids_are_found_after_their_words(line: str, pages: list[str]) -> None:
    assert [one.address for one in in_line(line, BASE)] == [f"{BASE}/{page}" for page in pages]


def test_a_line_links_to_its_run(stream: Stream) -> None:
    """Without a word of an agent becoming a link of its own."""
    with redirect_stdout(stream):
        terminal.echo(f"sent stop to run {RUN[:8]}: \x1b]8;;https://evil.example\x1b\\", "nothing")
        printing.show(Text(f"failed  run {RUN}", style="red"))

    shown = stream.getvalue()
    pages = [f"{BASE}/runs/{RUN[:8]}", f"{BASE}/runs/{RUN}"]
    if stream.isatty():
        assert [address for _, address in OSC_8.findall(shown) if address] == pages
        assert BASE not in OSC_8.sub("", shown)
    else:
        first, second, third = shown.splitlines()
        assert (first.split("  ")[-1], second) == (pages[0], "nothing")
        assert third == f"failed  run {RUN}  {pages[1]}"
        assert "\x1b" not in shown


def test_a_table_links_to_its_runs(stream: Stream) -> None:
    """On a terminal by hyperlinks of its ids, in a pipe by a column."""
    columns = [Column("run"), Column("agent")]
    with redirect_stdout(stream):
        printing.show_listing(columns, [[Text("4bf92f35"), Text("support")]])

    shown = stream.getvalue()
    if stream.isatty():
        assert f"{BASE}/runs/4bf92f35" in [address for _, address in OSC_8.findall(shown)]
        assert "link" not in OSC_8.sub("", shown)
    else:
        heading, row = shown.splitlines()
        assert heading.split() == ["run", "agent", "link"]
        assert row.split() == ["4bf92f35", "support", f"{BASE}/runs/4bf92f35"]


def test_data_for_programs_has_no_links(stream: Stream) -> None:
    with redirect_stdout(stream):
        terminal.echo_csv(f"message\nrun {RUN} failed")
        terminal.echo_json(f'{{"message": "run {RUN} failed"}}')
    assert BASE not in stream.getvalue()


def test_without_a_console_lines_stay_as_they_are(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "_links", NOWHERE)
    with redirect_stdout(stream):
        terminal.echo(f"run {RUN}")
    assert stream.getvalue() == f"run {RUN}\n"
