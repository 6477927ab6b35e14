"""``stepstream.testing.recording``, as a user's test uses it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import stepstream
from stepstream.testing import recording
from stepstream.testing.plugin import recorded  # noqa: F401 - the fixture
from stepstream.testing.runs import Recorded


def agent(order: int = 7) -> str:
    """A program that uses the SDK."""
    with stepstream.run("support", input="Where is my order?") as run:
        with run.llm("plan", model="gpt-4o") as step:
            step.set_usage(input_tokens=9, output_tokens=3)
        with run.tool("lookup_order", input={"order": order}) as step:
            if order != 7:
                raise LookupError(f"no order {order}")
            step.set_output("shipped")
    return "shipped"


def test_a_run_is_recorded() -> None:
    with recording(project="shop") as made:
        assert agent() == "shipped"
    run = made.only_run()
    assert run.root.project == "shop"
    assert run.tools == ["lookup_order"]
    assert (run.input_tokens, run.output_tokens) == (9, 3)
    assert run.parent_of(run.step("plan")) == run.root
    assert run.parent_of(run.root) is None
    assert len(made.events) == 6
    run.assert_no_errors()


def test_the_fixture(recorded: Recorded) -> None:  # noqa: F811 - pytest passes it
    agent()
    agent()
    assert len(recorded.runs) == 2
    with pytest.raises(AssertionError, match="2 runs were recorded"):
        recorded.only_run()


def test_failures_are_explained() -> None:
    with recording() as made, pytest.raises(LookupError):
        agent(8)
    run = made.only_run()
    with pytest.raises(AssertionError, match="lookup_order: LookupError no order 8"):
        run.assert_no_errors()
    with pytest.raises(AssertionError, match="0 steps have the name 'search'"):
        run.step("search")


def test_nothing_is_recorded_afterwards() -> None:
    with recording() as made:
        agent()
    stepstream.configure(enabled=False)
    try:
        agent()
        assert len(made.runs) == 1
    finally:
        stepstream.configure()


def test_it_needs_nothing_of_the_worker() -> None:
    code = (
        "import sys\nfrom stepstream.testing import recording\n"
        "assert not [name for name in sys.modules if name.startswith('stepstream.stream')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
