"""What a question is asked with is checked before the store is asked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from stepstream.queries import QUESTIONS, QuestionError, find
from stepstream.queries.ask import Prepared
from stepstream.queries.parameters import RUN, WINDOW, like, limit, parse_time, values_of
from stepstream.queries.question import for_clients, used_parameters

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("90s", NOW - timedelta(seconds=90)),
        ("7d", NOW - timedelta(days=7)),
        ("2026-02-28T12:00:00+00:00", NOW - timedelta(days=1)),
        (datetime(2026, 2, 28, 12, tzinfo=UTC).replace(tzinfo=None), NOW - timedelta(days=1)),
        (
            datetime(2026, 2, 28, 13, tzinfo=timezone(timedelta(hours=1))),
            NOW - timedelta(days=1),
        ),
    ],
)
def test_times_are_ages_texts_or_datetimes(given: Any, expected: datetime) -> None:
    assert parse_time("since", given, NOW) == expected


@pytest.mark.parametrize(
    ("question", "given", "message"),
    [
        ("cost", {"by": "modl"}, "by modl: did you mean model?"),
        ("cost", {"snce": "1h"}, "there is no parameter snce: did you mean since?"),
        ("cost", {"since": "yesterday"}, "since yesterday: write how long ago"),
        (
            "cost",
            {"since": datetime.max.replace(tzinfo=timezone(-timedelta(hours=5)))},
            "since 9999-12-31 .*: write how long ago",
        ),
        ("cost", {"by": ["model"]}, "by .*model.*: "),
        ("cost", {"since": "1h", "until": "2h"}, "is not before until"),
        ("cost", {"limit": "many"}, "limit 'many' is not a whole number"),
        ("search", {"text": "caf\udce9"}, "text 'caf.udce9' is not text in UTF-8"),
        ("cost", {"agent": "\udcff"}, "agent '.udcff' is not text in UTF-8"),
        ("cost", {"limit": -1}, "limit -1 is not between 0 and 100,000"),
        ("cost", {"limit": float("inf")}, "limit inf is not a whole number"),
        ("spikes", {"times": -1}, "times -1 is not between 0 and inf"),
        ("spikes", {"times": "nan"}, "times nan is not between"),
        ("steps", {}, "run is missing: Id of the run"),
        ("steps", {"run": "xyz"}, "'xyz' is not a run id"),
    ],
)
def test_what_cannot_be_asked_is_an_error_that_names_it(
    question: str, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(QuestionError, match=message.replace("?", r"\?")):
        values_of(find(question).parameters, given, NOW)


def test_an_unknown_question_is_an_error_with_the_nearest() -> None:
    with pytest.raises(QuestionError, match=r"there is no question spike: did you mean spikes\?"):
        find("spike")
    with pytest.raises(QuestionError, match="there are: cost"):
        find("zzzzzz")


def test_patterns_have_stars_and_escape_what_sql_takes_as_a_wildcard() -> None:
    assert like("a_b*c?%") == r"a\_b%c_\%"


@pytest.mark.parametrize("name", list(QUESTIONS))
def test_every_question_has_values_for_all_parameters_of_its_query(name: str) -> None:
    """Also by default, so that a query never refers to a parameter that nothing binds."""
    asked = find(name)
    given = {one.name: "abc" for one in asked.parameters if one.is_required}
    values = values_of(asked.parameters, given, NOW)
    about_run = {
        f"run_{what}": ""
        for what in ("project", "environment", "agent", "task", "day", "start", "end")
    }
    prepared = Prepared(asked, {**values, **about_run}, asked.text(values))
    assert used_parameters(prepared.sql, prepared.values)
    assert all(asked.columns.values())


def test_a_query_for_other_clients_sets_its_parameters() -> None:
    """Escaped twice: the literal has the text in the format in which parameters are kept."""
    # ClickHouse reads the value twice: as a literal, then as escaped text. With one level of
    # escapes C:\new became another text.
    assert for_clients("SELECT {a:String}", {"a": "it's \\ here"}) == (
        r"SET param_a = 'it\'s \\\\ here';" + "\nSELECT {a:String};"
    )
    assert for_clients("SELECT {a:String}", {"a": "a\tb\nc"}).startswith(
        r"SET param_a = 'a\\tb\\nc';"
    )


def test_a_run_may_be_given_as_a_uuid() -> None:
    uuid = "4BF92F35-77B3-4DA6-A3CE-929D0E0E4736"
    values = values_of([RUN, *WINDOW, limit(5)], {"run": uuid}, NOW)
    assert values["run"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert values["limit"] == 5
