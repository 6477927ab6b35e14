"""Constructed runs under the default rules: those that raise an alert, a note, or nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.detection.replayed import only, replay
from stepstream.schemas.policy import Policy
from stepstream.schemas.step import StepEvent
from stepstream.testing import ended, root

CALLING = json.dumps(
    [{"function": {"name": "tool", "arguments": "{}"}, "id": "c1", "type": "function"}]
)
ARGUMENTS = only({"rule": "tool_arguments"})


class Steps:
    """A run, a step a second."""

    def __init__(self) -> None:
        self.events: list[StepEvent] = []

    def add(self, **more: Any) -> Steps:
        number = len(self.events) + 2
        self.events.append(ended(number, number, **more))
        return self

    def call(
        self, tool: str, given: Any = None, taken: Any = "ok", *, failed: str = "", **more: Any
    ) -> Steps:
        """A tool call; ``failed``: the error that it ended with."""
        texts = {
            "input": given
            if isinstance(given, str)
            else json.dumps(given or {"number": len(self.events)})
        }
        if failed:
            texts |= {"status": "error", "error_message": failed}
        else:
            texts["output"] = taken if isinstance(taken, str) else json.dumps(taken)
        return self.add(tool=tool, name=tool, **texts, **more)

    def model(self, output: str = CALLING, heard: str = "-", **more: Any) -> Steps:
        """A model's step: it asks for a tool, or answers."""
        return self.add(
            **(
                {
                    "kind": "llm_call",
                    "name": "m",
                    "model": "m",
                    "cost_usd": 0,
                    "input": heard,
                    "output": output,
                }
                | more
            )
        )

    def found(self, policy: Policy | None = None) -> list[dict[str, Any]]:
        """What is found, without what is only noted."""
        return [item for item in self.all(policy) if item.get("severity", "warning") != "note"]

    def all(self, policy: Policy | None = None) -> list[dict[str, Any]]:
        """All that is found and stands."""
        run = [*self.events, root(len(self.events) + 4.0)]
        return replay([sorted(run, key=lambda step: step.parent_step_id != "")], policy)[0].standing

    def alerts(self) -> list[str]:
        """The names of the alerts that are raised."""
        return sorted(item["alert"] for item in self.found())


PLAIN = "Your request is done. Is there anything else I can help you with?"


@pytest.mark.parametrize(
    ("run", "noted"),
    [
        (
            Steps()
            .model()
            # Names that share a word, and both read: the second call is an alternative.
            .call("find_member_by_phone", failed="no such phone")
            .model()
            .call("find_member_by_name")
            .model(PLAIN),
            "find_member_by_name took its place",
        ),
        (
            Steps()
            .model()
            .call("exchange_items", failed="is not delivered")
            .model()
            .call("modify_pending_items")
            .model(PLAIN),
            "modify_pending_items took its place",
        ),
        (
            Steps().call("charge_card", failed="declined").call("charge_wallet"),
            "charge_wallet took its place",
        ),
        (
            Steps()
            .model()
            .call("read_pdf", failed="broken file")
            .model()
            # After a failed read any other read counts, if the model asked for it after the
            # failure.
            .call("ocr_page", taken="text")
            .model(PLAIN),
            "the agent went on with ocr_page",
        ),
        (
            Steps()
            .model()
            .call("refund", failed="no")
            .call("transfer_to_human_agents")
            .model(PLAIN),
            "it was handed to a person",
        ),
        (
            Steps().model().call("refund", failed="no").call("escalate_ticket").model(PLAIN),
            "it was handed to a person",
        ),
        (
            Steps()
            .model()
            .call("book_room", failed="timeout")
            .model("I am afraid the room could not be booked."),
            "the agent mentioned it",
        ),
        (
            Steps()
            .model()
            .call("book_room", failed="no such guest")
            .model("Could you please give me your booking number?"),
            "the agent asked the user",
        ),
        (
            Steps()
            .model()
            .call("get_account_by_mail", failed="unknown mail")
            .model("What is your full name?")
            .model()
            .call("get_account_by_mail")
            .model(PLAIN),
            "it was called again",
        ),
        (
            Steps()
            .model()
            .call("book_room", failed="timeout")
            # The mention is at the end of a long answer.
            .model(f"{'A long summary of the day. ' * 40}The room was not booked."),
            "the agent mentioned it",
        ),
    ],
)
def test_a_failure_that_the_run_recovered_from_is_a_note(run: Steps, noted: str) -> None:
    """By another tool, by a person, by asking or informing the user."""
    assert run.alerts() == []
    assert [item["message"].partition("; ")[2] for item in run.all()] == [noted]


@pytest.mark.parametrize(
    "run",
    [
        Steps()
        .model()
        .call("charge_card", failed="declined")
        .model("The amount was charged to your card. Anything else?"),
        Steps()
        .model()
        .call("refund_order", failed="gone")
        .model()
        # Mail only reports: it cannot make up for a refund that failed.
        .call("email_confirmation")
        .model("You get your money back."),
        Steps()
        .model()
        .call("get_weather", failed="down")
        .model()
        .call("send_report")
        .model("The report with the weather is sent."),
    ],
)
def test_a_failure_that_the_agent_hides_is_an_error(run: Steps) -> None:
    """The answer claims success."""
    (found,) = run.found()
    assert (found["alert"], found["severity"]) == ("tool-error-ignored", "error")
    assert found["message"].endswith("the agent answered without mentioning it")


def test_one_broken_tool_is_one_alert() -> None:
    """Not a loop, a repetition and an ignored error."""
    run = Steps()
    for _ in range(5):
        # Three rules see this tool; the most specific one reports it.
        run.model().call("next_page", {}, failed="unexpected argument")
    assert run.model(PLAIN).alerts() == ["repetition"]


def test_a_tool_that_works_in_the_end_resolves_its_repetition() -> None:
    """A later call that makes up for the failure withdraws an early finding about an answer."""
    run = (
        Steps()
        .model("hello")
        .model()
        .call("get_account_by_mail", taken="Error: no account has this mail")
    )
    run.model("All is well.")
    for number in range(4):
        run.model(f"Let us see, {number}.")
    run.model().call("get_account_by_name", taken={"id": 1}).model(PLAIN)
    assert run.found() == []
    replayed = replay([[root(20), *run.events]])[0]
    assert [item["alert"] for item in replayed.findings] == [
        "hidden-tool-error",
        "failure-not-retried",
    ]
    assert [item["message"] for item in replayed.records if item.get("withdrawn")] == [
        "withdrawn: get_account_by_name took its place later"
    ]


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(
            [
                # A check after each change: the same call and answer, with something new in
                # between.
                ("git_branch", {}, "main") if n % 2 else ("write_file", {"path": f"f{n}"}, "saved")
                for n in range(10)
            ],
            id="branch",
        ),
        pytest.param(
            [
                ("pwd", {}, "/work")
                if n % 2
                else ("bash", {"command": f"cat part{n}"}, f"text {n}")
                for n in range(12)
            ],
            id="pwd",
        ),
        pytest.param(
            [
                (
                    "set_delivery_address",
                    {"order": f"A-90{n}1", "street": "Long Street in the old town"},
                    f"order A-90{n}1 is set",
                )
                for n in range(5)
            ],
            id="bulk",
        ),
        pytest.param(
            [
                ("film", {"question": f"who plays in {name}?"}, f"{name}: {name[::-1]} plays")
                for name in ("Alien", "Brazil", "Heat")
            ],
            id="films",
        ),
        pytest.param(
            [
                ("lookup_word", {"text": "the meaning of the word"}, answer)
                for answer in ("first", "second", "third")
            ],
            id="answers",
        ),
    ],
)
def test_housekeeping_and_bulk_work_are_no_repetition(run: list[tuple[str, Any, str]]) -> None:
    """What changes between calls, in them or in what they bring is progress."""
    steps = Steps()
    for tool, given, taken in run:
        steps.model().call(tool, given, taken)
    assert steps.model(PLAIN).alerts() == []


def test_a_call_that_nothing_new_comes_between_is_a_loop() -> None:
    """It is reported once, whatever else was called before."""
    run = (
        Steps()
        .model()
        .call("search", {"query": "x"}, "page")
        .model()
        .call("open", {"page": 1}, "text")
    )
    for _ in range(4):
        run.model().call("search", {"query": "y"}, "page")
    assert run.alerts() == ["loop"]


HANDOVER = (
    "Action: hand over\n{a} has finished the part about the kitchen and leaves the plan, "
    "the list of materials, the offers "
    "of the three shops and the questions about water and light for {b}, "
    "who will go on with it tomorrow after breakfast."
)


def test_handovers_between_agents_are_no_repetition() -> None:
    """Each agent is compared with itself alone."""
    run = Steps()
    for a, b in (("Ann", "Ben"), ("Ben", "Cal"), ("Cal", "Dan"), ("Dan", "Eve")):
        # Nearly the same words four times, each time of another agent.
        run.model(HANDOVER.format(a=a, b=b), name=a, agent=a)
    assert run.alerts() == []


@pytest.mark.parametrize("heard", ["", "the same", None])
def test_the_same_thought_again_is_repetition_whatever_the_model_heard(heard: str | None) -> None:
    """Also where inputs are not captured."""
    run = Steps()
    for number in range(3):
        run.model(
            HANDOVER.format(a="Ann", b="Ben"), heard=f"heard {number}" if heard is None else heard
        )
    assert run.alerts() == ["repetition"]


def test_code_that_fails_again_and_again_is_reported_though_its_kind_is_other() -> None:
    """Five failing steps of a run that ends ok."""
    run = Steps()
    for number in range(5):
        text = (
            f"Code execution failed at line {number}: InterpreterError: import of os is not allowed"
        )
        run.add(kind="other", name=f"Step {number}", status="error", error_message=text)
    assert run.alerts() == ["repetition"]
    other = Steps().add(kind="other", name="Step 1", status="error", error_message="x").model(PLAIN)
    assert other.alerts() == ["tool-error-ignored"]


def test_an_identifier_from_nowhere_is_found_behind_long_inputs() -> None:
    """The whole of a text is learnt, not its ends."""
    for filler, place in (
        ("", ""),
        # Longer than the 4,096 characters that rules about contents read at each end.
        ("words and words " * 400, ""),
        ("words " * 3_000, "order ORD-998877 "),
    ):
        run = (
            Steps()
            .model(heard=f"where is my order ORD-112233? {filler}{place}{filler}")
            .call("get_order", {"order_id": "ORD-998877"})
        )
        assert bool(run.all(ARGUMENTS)) is not bool(place)


def test_a_key_at_the_end_of_a_long_answer_is_found() -> None:
    """The last 4,096 characters are examined."""
    key = "sk-ant-" + "api03-Zq7Jk2Lm9Np4Rs6Tv8Wx1Yb3Cd5Ef"
    assert Steps().model(f"{'A sentence of the answer. ' * 900}{key}").alerts() == [
        "sensitive-data"
    ]


def test_the_keys_of_a_message_are_no_words_of_an_answer() -> None:
    """Only its text counts."""
    policy = only({"rule": "unsupported_answer"})
    run = Steps().call(
        "search",
        {"query": "population of the town"},
        "The town has about 350 people " + "and sheep and goats " * 20,
    )
    run.model(
        json.dumps(
            {"role": "assistant", "content": "About 350.", "tool_calls": None, "refusal": None}
        )
    )
    assert run.all(policy) == []


def test_warnings_of_a_budget_are_warnings_whatever_the_severity() -> None:
    """``severity`` is that of the limit."""
    rule = {"rule": "run_cost", "limit_usd": "5", "warn_usd": "1", "severity": "critical"}
    run = Steps().model(cost_usd="1.5")
    assert [item.get("severity", "warning") for item in run.all(only(rule))] == ["warning"]
    assert [
        item.get("severity", "warning") for item in run.model(cost_usd="5").all(only(rule))
    ] == ["warning", "critical"]


def test_the_same_documents_again_are_repetition_though_the_questions_differ_in_a_number() -> None:
    """The result decides whether asking again has brought anything."""
    run = Steps()
    for part in range(3):
        documents = [
            {"id": name, "content": "how to clean the machine " * 5}
            for name in ("descaling", "warranty")
        ]
        run.add(
            kind="retrieval",
            name="search_help",
            input=f"how do I clean it (reading on, part {part})",
            documents=documents,
        )
    assert run.alerts() == ["repetition"]
