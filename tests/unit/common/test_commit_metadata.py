"""The text committed next to an offset: written in one form, read in that and in the forms of
earlier releases.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepstream.common.commit_metadata import NOTIFIER, SINK, WORKER, MetadataForm, UnknownMetadata

FORMS = (WORKER, SINK, NOTIFIER)

# As earlier releases committed them, byte for byte, and the number that has to be read from each.
COMMITTED = [
    (WORKER, "2;state=17;", 17),
    (WORKER, "2;state=0;", 0),
    (SINK, "stepstream-sink/1 end=41", 41),
    (SINK, "stepstream-sink/2 end=41;", 41),
    (NOTIFIER, "n1:7;", 7),
    (NOTIFIER, "n1:0;", 0),
]


@pytest.mark.parametrize(("form", "committed", "number"), COMMITTED)
def test_what_earlier_releases_committed_is_read(
    form: MetadataForm, committed: str, number: int
) -> None:
    """A process that was upgraded in place continues where the old one stopped."""
    assert form.decode(committed) == number


@given(st.integers(0, 2**62), st.sampled_from(FORMS))
def test_an_encoded_number_is_decoded(number: int, form: MetadataForm) -> None:
    """Text that the client appends after the end is ignored."""
    assert form.decode(form.encode(number)) == number
    assert form.decode(form.encode(number) + "17;x") == number


def test_the_form_is_the_one_that_the_previous_sink_reads() -> None:
    """A sink of the previous release that takes over a partition repeats the batch in flight."""
    assert SINK.encode(41) == "stepstream-sink/2 end=41;"


@pytest.mark.parametrize(
    "text", [None, "", "\x00", "2", "1;state=5", "2;state=5", "2;else=5;", "2;state=;",
             "2;state=-5;", "n1:5", "n2:5;"]
)  # fmt: skip
@pytest.mark.parametrize("form", FORMS)
def test_other_text_is_no_metadata(form: MetadataForm, text: str | None) -> None:
    """Text of another program, and an earlier worker's form whose number has no end."""
    assert form.decode(text) is None


def test_processes_do_not_read_each_other_s_metadata() -> None:
    for writer in FORMS:
        for reader in FORMS:
            assert (reader.decode(writer.encode(5)) == 5) == (writer is reader)


@pytest.mark.parametrize(
    "text",
    [
        "stepstream-sink/2 end=7",
        "stepstream-sink/3 end=7;",
        "stepstream-sink/x",
        "stepstream-sink/1",
    ],
)
def test_unknown_metadata_of_a_sink_is_an_error(text: str) -> None:
    """The batch in flight must be repeated exactly; skipping it would lose or repeat its rows."""
    with pytest.raises(UnknownMetadata, match="newer release"):
        SINK.decode(text)


@pytest.mark.parametrize(
    ("form", "text"),
    [(WORKER, "stepstream-worker/3 state=7;"), (NOTIFIER, "stepstream-notify/3 x=7;")],
)
def test_unknown_metadata_of_worker_and_notifier_is_ignored(form: MetadataForm, text: str) -> None:
    """They read the whole topic instead, which is slower and loses nothing."""
    assert form.decode(text) is None
