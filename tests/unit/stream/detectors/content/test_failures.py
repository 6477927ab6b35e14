"""Which outputs report a failure: by form, opening or words; and which are only similar."""

from __future__ import annotations

import json

import pytest

from benchmarks.detection.forms import (
    FOURTH,
    KEPT,
    SECOND,
    SEEN,
    THIRD,
    Made,
    evaluated,
    kept_cases,
)
from stepstream.schemas.step import Step
from stepstream.stream.detectors.content.failure_forms import (
    ends_well,
    is_log,
    is_table,
    reports_success,
    runtime_error,
)
from stepstream.stream.detectors.content.failures import failure_in
from stepstream.stream.run.contents import HEAD, Contents


def contents(output: str, given: str = '{"id": "x1"}') -> Contents:
    return Contents(
        Step(
            trace_id="a" * 32,
            step_id="b" * 16,
            kind="tool_call",
            name="t",
            start_time=0,
            input=given,
            output=output,
        )
    )


def failed(output: str, label: str = "book", given: str = '{"id": "x1"}') -> bool:
    return failure_in(contents(output, given), label) is not None


@pytest.mark.parametrize(
    "output",
    [
        "Error: no seats",
        "ValueError: bad date",
        "java.io.IOException: broken pipe",
        "Tool call failed: boom",
        "Traceback (most recent call last):\n  File 'x'\nKeyError: 'a'",
        "HTTP/1.1 404 Not Found",
        "503 Service Unavailable",
        "status code: 429",
        "exitcode: 1 (execution failed)\nCode output: ...",
        "bash: foo: command not found",
        "<html><head><title>403 Forbidden</title></head></html>",
        json.dumps({"error": "nope"}),
        json.dumps({"error": {"code": 7, "message": "nope"}}),
        json.dumps({"success": False}),
        json.dumps({"ok": False, "data": None}),
        json.dumps({"isError": True, "content": [{"type": "text", "text": "nope"}]}),
        json.dumps({"status": "error", "message": "nope"}),
        json.dumps({"statusCode": 502, "body": ""}),
        json.dumps({"result": {"error": "nope"}}),
        json.dumps([{"error": "nope"}]),
        json.dumps({"detail": "Not authenticated", "message": "access denied"}),
        json.dumps("Error: quoted"),
        "gift card balance is not enough",
        "the date could not be parsed",
        "flight X12 is sold out",
        "Insufficient funds",
        "payment was declined by the issuer",
        "Permission denied",
        "Sorry, that did not work",
        "This action isn't allowed for basic fares",
        "amount mismatch: 3 instead of 4",
        "the number of items to be exchanged should match",
        "there should be exactly one payment method",
        "only pending orders can be cancelled",
        "non-pending order cannot be modified",
        "expected a date but got 'soon'",
    ],
)
def test_failures(output: str) -> None:
    """Failures in any of the usual wordings."""
    assert failed(output)


@pytest.mark.parametrize(
    "output",
    [
        "",
        "42",
        "Order placed",
        "Transfer successful",
        "0 errors found, all good",
        "Completed without any errors",
        "Certificate 77 added to user x",
        "Booked. The ticket must be shown at the gate",
        json.dumps({"error": None, "id": 3}),
        json.dumps({"errors": [], "items": [1]}),
        json.dumps({"success": True}),
        json.dumps({"status": "available", "seats": 3}),
        json.dumps({"status": 200, "body": "fine"}),
        json.dumps(
            {
                "id": 1,
                "payment": {"status": "failed"},
                "items": [],
                "user": "u",
                "total": 3,
                "date": "d",
                "more": 1,
            }
        ),
        json.dumps([{"status": "cancelled"}, {"error": "a row about an error"}]),
        "Error handling in Python\n" + "Exceptions are raised and caught. " * 40,
        "A report about a failure of the dam. " * 30,
    ],
)
def test_ordinary_answers(output: str) -> None:
    """Contents that speak of errors are no errors; nor is good news."""
    assert not failed(output)


def test_nothing_found_is_an_answer_of_a_search_tool() -> None:
    """A search without results has done what it was asked."""
    assert not failed("No results found for query 'x'", "web_search", '{"query": "x"}')
    assert not failed(
        "The string 'x' was not found on this page", "find_on_page", '{"search_string": "x"}'
    )
    assert failed("No such user found in the system, update rejected", "update_user")
    assert failed("user not found", "find_user_by_email", '{"email": "a@b.org"}')
    assert failed("Error: no results found", "web_search")


def test_words_are_answered_in_words() -> None:
    """A call in words is answered in words about anything; a plain error is still one."""
    # The question itself has a word of failure, as the answer will.
    asked = json.dumps({"question": "what did the user write about the cancelled order of May"})
    assert not failed("They wrote that it was not delivered", "ask_user", asked)
    assert failed("Error: the user did not answer", "ask_user", asked)


def test_both_ends_are_checked() -> None:
    """The first and the last 4,096 characters; JSON that is cut is not read as such."""
    assert contents("x" * HEAD + "y" + "z" * HEAD).output == "x" * HEAD + "\n" + "z" * HEAD
    assert contents("x" * 2 * HEAD).output == "x" * 2 * HEAD
    # The middle is missing: parsed, the two ends would be another object.
    assert contents(json.dumps({"a": "x" * 9_000})).taken is None


def test_arguments_come_out_of_their_wrappers() -> None:
    """Frameworks wrap what a tool was given."""
    assert contents("", json.dumps({"args": [], "kwargs": {"query": "x"}})).arguments == {
        "query": "x"
    }
    assert contents("", json.dumps({"args": ["x"], "kwargs": {}})).arguments == {"args": ["x"]}
    assert contents("", json.dumps({"name": "f", "arguments": {"a": 1}})).arguments == {"a": 1}
    assert contents("", json.dumps({"kwargs": "x"})).arguments == {"kwargs": "x"}
    assert contents("", "plain").arguments is None


@pytest.mark.parametrize(
    "made", [*SEEN, *KEPT, *SECOND, *THIRD, *FOURTH], ids=lambda made: f"{made.kind}: {made.tool}"
)
def test_failures_of_other_forms(made: Made) -> None:
    """After preambles, at ends, mid-text, as edits, pages, time-outs; the quote is the error."""
    found = failure_in(contents(made.output, made.given), made.tool)
    assert (found is not None) is bool(made.error or made.kind == "as data")
    assert found is None or made.error in found.message


@pytest.mark.parametrize(
    ("name", "recall", "precision"),
    [
        ("list 5", 0.98, 0.99),
        ("list 6", 0.96, 0.98),
        ("list 7", 0.98, 0.99),
        ("list 8", 0.97, 0.98),
        ("list 9", 0.97, 0.98),
        ("list 10", 0.86, 0.97),
        ("list 11", 0.87, 0.96),
        ("list 12", 0.90, 0.97),
    ],
)
def test_failures_of_the_kept_lists(name: str, recall: float, precision: float) -> None:
    """What was found in a list is not lost."""
    counted, _, wrong = evaluated(kept_cases()[name])
    assert (counted.recall or 0) >= recall, wrong
    assert (counted.precision or 0) >= precision, wrong


@pytest.mark.parametrize(
    "line",
    [
        "a " * 200_000,
        "Error" * 80_000,
        "a." * 200_000,
        "'" * 400_000,
        "#" * 400_000,
        "1:" * 200_000,
        "\n" * 400_000,
        "F: " * 130_000,
    ],
)
def test_forms_cost_what_the_text_is_long(line: str) -> None:
    """The text that a detector reads whole; a backtracking pattern would take minutes on it."""
    # Patterns of several lines, with the long one between their first and last part.
    runtime_error(f"panic Error\n{line}\nError {line}")
    assert not is_log(line)
    assert not ends_well(line)
    assert not reports_success("reject_request", line)
    is_table(line)


@pytest.mark.parametrize(
    "digits", ["\u00b2", "\u0664\u0660\u0664", "4" * 5_000, "4.04", "-404", ""]
)
def test_a_code_that_is_no_number_is_none(digits: str) -> None:
    """Digits of other scripts, too many of them, none."""
    assert not failed(json.dumps({"code": digits, "message": "m"}))
    assert not failed(json.dumps({"exit_code": digits, "output": "m"}))


@pytest.mark.parametrize(
    "filler",
    [
        "a",
        "\n",
        " ",
        ":",
        "(",
        "not ",
        "/",
        "error ",
        "'",
        "Traceback (most recent call last)\n",
        "[",
        "e: ",
    ],
)
def test_long_text_of_one_kind_is_evaluated(filler: str) -> None:
    """No pattern takes more than a moment on any text of the 8,192 characters that are read."""
    for tool in ("bash", "read_file", "book"):
        failure_in(
            contents(filler * (200_000 // len(filler)), json.dumps({"command": filler * 50_000})),
            tool,
        )


@pytest.mark.parametrize(
    ("tool", "given", "output", "quoted"),
    [
        # A program reports an error by its name, whatever words follow.
        ("bash", {"command": "find . -nam x"}, "find: unknown predicate `-nam'", "predicate"),
        ("bash", {"command": "cd a && sed -i s/a b"}, "sed: -e expression #1: bad", "expression"),
        # An editor's "command" names an operation, not a program.
        ("editor", {"command": "create", "path": "/a"}, "File already exists at: /a.", "exists"),
        # In the middle of a long output, between progress and clean-up.
        (
            "bash",
            {"command": "./etl"},
            "\n".join(["row"] * 40 + ["ERROR: disk is full"] + ["close"] * 40),
            "disk is full",
        ),
        ("s3_get", {"key": "a"}, "<Error><Code>NoSuchKey</Code></Error>", "NoSuchKey"),
        ("exec", {"x": 1}, '{"exit_code": 0, "output": "Error: no config"}', "no config"),
        ("publish", {"id": 1}, '{"published": false, "reason": "no title"}', "no title"),
        ("termin_buchen", {"tag": "so"}, "Der Termin konnte nicht gebucht werden.", "konnte nicht"),
        ("query", {"id": 1}, "\u8ba2\u5355\u4e0d\u5b58\u5728", "\u4e0d\u5b58\u5728"),
        ("unlock_door", {"door": "front"}, "The door is locked by the alarm.", "locked"),
        (
            "delegate",
            {"task": "Fix the build of the shop"},
            "I was not able to fix it.",
            "not able",
        ),
    ],
)
def test_failures_of_other_kinds_are_quoted(
    tool: str, given: dict[str, object], output: str, quoted: str
) -> None:
    """Programs by name, editors, long outputs, XML, other languages, limits."""
    found = failure_in(contents(output, json.dumps(given)), tool)
    assert found is not None
    assert quoted in found.message


@pytest.mark.parametrize(
    ("tool", "given", "output"),
    [
        ("editor", {"command": "view", "path": "/a"}, "Here is /a:\n1 raise Denied('failed')"),
        ("bash", {"command": "docker logs web"}, "GET / 200\nERROR: payment timed out\nGET / 200"),
        ("git_log", {"n": 2}, "a1 fix: error when empty\nb2 failed jobs are retried"),
        ("book_table", {"time": "19:00"}, "Booked. No changes are possible within 2 hours."),
        (
            "send_email",
            {"to": "a"},
            "Message queued. Delivery may fail if there is no such address.",
        ),
        ("get_policy", {"topic": "x"}, "A booking cannot be changed after departure."),
        ("revoke_token", {"id": 1}, "Token t1 is now invalid."),
        ("richtlinie", {"thema": "hunde"}, "Hunde d\u00fcrfen nicht in den Speisewagen."),
        ("bash", {"command": "go test ./..."}, "go: downloading example.com/x v1.0.0"),
    ],
)
def test_what_only_resembles_a_failure(tool: str, given: dict[str, object], output: str) -> None:
    """Shown files and logs, remarks after a success, rules, possibilities."""
    assert failure_in(contents(output, json.dumps(given)), tool) is None
