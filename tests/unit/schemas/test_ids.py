"""Ids: their form, and that derived ones are the same everywhere."""

from __future__ import annotations

import os

import pytest

from stepstream.schemas.ids import STEP_ID, TRACE_ID, derived_id, new_step_id, new_trace_id


def test_new_ids_have_the_form_that_accept_wants() -> None:
    """Trace ids are 32 and step ids 16 lower-case hex digits, and no two are alike."""
    traces = {new_trace_id() for _ in range(200)}
    steps = {new_step_id() for _ in range(200)}
    assert len(traces) == len(steps) == 200
    assert all(TRACE_ID.fullmatch(x) for x in traces)
    assert all(STEP_ID.fullmatch(x) for x in steps)


def test_derived_ids_never_change() -> None:
    """The same parts give the same id on every machine and in every release: consumers drop
    repeats by it.
    """
    # Written down once: a changed id would deliver every open alert a second time.
    assert derived_id("alert", "shop", 7) == "ac647dfe-3dbd-54ed-a268-1c51e3d8bf82"


def test_derived_ids_keep_parts_apart() -> None:
    """Parts are not merely joined: ("ab", "c") is not ("a", "bc"), and order matters."""
    assert (
        len(
            {derived_id("ab", "c"), derived_id("a", "bc"), derived_id("abc"), derived_id("c", "ab")}
        )
        == 4
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_has_ids_of_its_own() -> None:
    """Ids that were drawn before a fork are given out by one of the two processes only."""
    new_step_id()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, " ".join(new_step_id() for _ in range(200)).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        theirs = set(pipe.read().split())
    assert os.waitpid(child, 0)[1] == 0
    ours = {new_step_id() for _ in range(200)}
    assert len(ours | theirs) == 400
    assert all(STEP_ID.fullmatch(one) for one in ours)
