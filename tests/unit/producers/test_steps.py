"""Steps of a program: what they carry, who their parent is, how they end."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import inspect
import re
import threading
from collections.abc import Iterator

import pytest

from stepstream.producers.propagation import propagate
from stepstream.producers.steps import Step
from stepstream.producers.tracer import Tracer
from stepstream.producers.transport.memory import MemoryTransport
from stepstream.schemas.ids import STEP_ID, TRACE_ID
from stepstream.schemas.settings import Settings
from stepstream.schemas.step import Document
from stepstream.schemas.usage import TokenUsage
from tests.support.sdk import HandClock, Traced, logged, traced


@pytest.fixture
def made() -> Iterator[Traced]:
    with traced() as made:
        yield made


def test_a_run_and_its_steps_are_one_trace(made: Traced) -> None:
    """Every step of a run carries the run's trace id and identity, and names the step around it as
    its parent.
    """
    with made.tracer.run(
        task="refund", session_id="s-7", user_id="u-9", agent_version="v2", input={"order": 7}
    ) as run:
        with (
            run.llm("plan", model="gpt-4o", provider="openai"),
            made.tracer.tool("lookup", input={"order": 7}) as step,
        ):
            step.set_output([1, 2])
        with run.step("state_update", name="memory"):
            pass
        run.set_output("done")
    ended = made.ended
    assert made.parents() == {
        "support": "",
        "plan": "support",
        "lookup": "plan",
        "memory": "support",
    }
    assert {event.trace_id for event in ended.values()} == {ended["support"].trace_id}
    for event in ended.values():
        assert (event.project, event.agent, event.agent_version) == ("shop", "support", "v2")
        assert (event.task, event.session_id, event.user_id) == ("refund", "s-7", "u-9")
    assert [ended[name].kind for name in ("support", "plan", "lookup", "memory")] == [
        "agent",
        "llm_call",
        "tool_call",
        "state_update",
    ]
    assert (ended["support"].input, ended["support"].output) == ('{"order":7}', "done")
    assert (ended["lookup"].tool, ended["lookup"].output) == ("lookup", "[1,2]")
    assert (ended["plan"].model, ended["plan"].provider) == ("gpt-4o", "openai")


def test_a_step_is_two_events(made: Traced) -> None:
    """A start event when it begins, with what was known then, and the complete record when it ends,
    of equal start and id.
    """
    with made.tracer.tool("find", input="x") as step:
        step.set_output("y")
        assert made.tracer.flush(10)
        assert [event.phase for event in made.transport.events] == ["start"]
    start, end = made.events
    assert (start.phase, end.phase) == ("start", "end")
    assert (start.step_id, start.trace_id, start.start_time) == (
        end.step_id,
        end.trace_id,
        end.start_time,
    )
    assert (start.input, start.output, start.end_time) == ("x", "", None)
    assert (end.input, end.output) == ("x", "y")
    assert TRACE_ID.fullmatch(end.trace_id)
    assert STEP_ID.fullmatch(end.step_id)
    assert (step.trace_id, step.step_id) == (end.trace_id, end.step_id)


def test_a_step_outside_a_run_is_a_run(made: Traced) -> None:
    """Two steps with nothing around them are roots of two traces."""
    with made.tracer.tool("a"):
        pass
    with made.tracer.retrieval("b"):
        pass
    ended = made.ended
    assert made.parents() == {"a": "", "b": ""}
    assert ended["a"].trace_id != ended["b"].trace_id


def test_durations_come_from_the_steady_clock() -> None:
    """A wall clock set back while a step runs does not make it end before it began."""
    clock = HandClock()
    with traced(tracer={"clock": clock}) as made:
        with made.tracer.tool("find") as step:
            clock.pass_us(1_500)
            step.record_first_token()
            step.record_first_token()
            clock.pass_us(500)
            clock.wall_us -= 3_600_000_000
        event = made.ended["find"]
    assert event.end_time == event.start_time + 2_000
    assert event.first_token_time == event.start_time + 1_500


def test_exceptions_are_recorded_and_raised(made: Traced) -> None:
    """The program's own exception leaves the step unchanged; the step records it."""
    failure = LookupError("no order 7")
    with pytest.raises(LookupError) as raised, made.tracer.run(), made.tracer.tool("find"):
        raise failure
    # The same object: a program may compare it, or has put attributes on it.
    assert raised.value is failure
    for event in made.ended.values():
        assert (event.status, event.error_type, event.error_message) == (
            "error",
            "LookupError",
            "no order 7",
        )


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt(), GeneratorExit()])
def test_being_called_off_is_no_failure(made: Traced, error: BaseException) -> None:
    """A cancelled task, Ctrl-C and a closed generator leave a step cancelled, not failed."""
    with pytest.raises(type(error)), made.tracer.tool("find"):
        raise error
    assert made.ended["find"].status == "cancelled"


@pytest.mark.parametrize(("code", "status"), [(0, "ok"), (None, "ok"), (3, "error")])
def test_a_program_that_exits(made: Traced, code: int | None, status: str) -> None:
    """``sys.exit(0)`` inside a step is a success, any other code a failure."""
    with pytest.raises(SystemExit), made.tracer.tool("find"):
        raise SystemExit(code)
    assert made.ended["find"].status == status


def test_an_exception_without_a_text(made: Traced) -> None:
    """An exception whose text raises is recorded by its class."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    with pytest.raises(Mute), made.tracer.tool("find"):
        raise Mute
    event = made.ended["find"]
    assert event.error_message == "Mute"
    assert event.error_type.endswith("Mute")


def test_an_error_without_an_exception(made: Traced) -> None:
    """A tool that reports its failure instead of raising can be marked as failed."""
    with made.tracer.tool("find") as step:
        step.set_error("HTTP 500", "server_error")
    with made.tracer.tool("other") as step:
        step.set_error(ValueError("bad"))
    ended = made.ended
    assert (ended["find"].status, ended["find"].error_type, ended["find"].error_message) == (
        "error",
        "server_error",
        "HTTP 500",
    )
    assert (ended["other"].error_type, ended["other"].error_message) == ("ValueError", "bad")


async def test_tasks_keep_their_own_parents(made: Traced) -> None:
    """Concurrent tasks of one run, interleaved at every await, nest within themselves and never
    within each other.
    """

    async def branch(number: int) -> None:
        async with made.tracer.step("plan", name=f"branch{number}"):
            await asyncio.sleep(0)
            async with made.tracer.tool(f"tool{number}"):
                await asyncio.sleep(0)

    async with made.tracer.run():
        await asyncio.gather(*(branch(number) for number in range(20)))
    parents = made.parents()
    for number in range(20):
        assert parents[f"tool{number}"] == f"branch{number}"
        assert parents[f"branch{number}"] == "support"


@pytest.fixture
def made_without_threads() -> Iterator[Traced]:
    """A tracer whose current step does not follow into threads by itself."""
    with traced(thread_context=False) as made:
        yield made


def test_threads_find_the_run_by_its_handle(made_without_threads: Traced) -> None:
    """In a thread that knows nothing, ``run.tool`` belongs to the run, and steps inside it to that
    tool.
    """
    made = made_without_threads

    def work(number: int) -> None:
        with run.tool(f"tool{number}"), made.tracer.llm(f"llm{number}"):
            pass

    with (
        made.tracer.run() as run,
        run.llm("around"),
        concurrent.futures.ThreadPoolExecutor(4) as pool,
    ):
        list(pool.map(work, range(8)))
    parents = made.parents()
    assert all(
        parents[f"tool{number}"] == "support" and parents[f"llm{number}"] == f"tool{number}"
        for number in range(8)
    )


def test_propagated_functions_keep_their_place(made_without_threads: Traced) -> None:
    """``propagate`` carries the current step into threads, many at a time, and leaves the threads
    as they were.
    """
    made = made_without_threads
    barrier = threading.Barrier(4)

    def work(number: int) -> None:
        barrier.wait(10)
        with made.tracer.tool(f"tool{number}"):
            pass

    with (
        made.tracer.run(),
        made.tracer.llm("around"),
        concurrent.futures.ThreadPoolExecutor(4) as pool,
    ):
        list(pool.map(propagate(work), range(4)))
        assert pool.submit(made.tracer.current_step).result() is None
    assert [made.parents()[f"tool{number}"] for number in range(4)] == ["around"] * 4


async def test_propagated_coroutines_keep_their_place(made: Traced) -> None:
    """A coroutine function bound inside a step belongs to it, even when awaited from another
    context.
    """

    async def work() -> None:
        async with made.tracer.tool("tool"):
            await asyncio.sleep(0)

    with made.tracer.run():
        bound = propagate(work)
    await asyncio.create_task(bound(), context=contextvars.Context())
    assert made.parents()["tool"] == "support"


def test_a_handle_inside_its_own_step_nests_in_the_current_one(made: Traced) -> None:
    """``run.tool`` called deep inside the run belongs to the step that is open there, not to the
    run.
    """
    with made.tracer.run() as run, run.llm("plan"), run.tool("outer"), run.tool("inner"):
        pass
    assert made.parents() == {"support": "", "plan": "support", "outer": "plan", "inner": "outer"}


def test_steps_that_do_not_end_in_order(made: Traced) -> None:
    """A step that ends before one inside it does not become the parent of what comes afterwards."""
    run = made.tracer.run().__enter__()
    outer = run.tool("outer").__enter__()
    inner = run.tool("inner").__enter__()
    outer.__exit__(None, None, None)
    inner.__exit__(None, None, None)
    with made.tracer.tool("later"):
        pass
    run.__exit__(None, None, None)
    assert made.parents()["later"] == "support"
    assert made.tracer.current_step() is None


def test_by_hand(made: Traced) -> None:
    """``start`` and ``end`` do what ``with`` does, without becoming the current step; ends once."""
    with made.tracer.run():
        step = made.tracer.tool("find").start()
        assert made.tracer.current_step() is not step
        step.end(ValueError("no"))
        step.end()
    assert made.ended["find"].status == "error"
    assert made.parents()["find"] == "support"


def test_current_run_and_step(made: Traced) -> None:
    """The current step is the innermost, the current run its root; outside there is neither."""
    assert made.tracer.current_run() is None
    with made.tracer.run() as run, made.tracer.tool("find") as step:
        assert made.tracer.current_step() is step
        assert made.tracer.current_run() is run
    assert made.tracer.current_step() is None


def test_an_agent_inside_a_run(made: Traced) -> None:
    """A run inside a run is a step of it done by another agent; its steps carry that agent, and the
    same trace and task.
    """
    with made.tracer.run(task="refund"):
        with made.tracer.run("researcher") as inner, inner.tool("find"):
            pass
        with made.tracer.tool("after"):
            pass
    ended = made.ended
    assert made.parents() == {
        "support": "",
        "researcher": "support",
        "find": "researcher",
        "after": "support",
    }
    assert [ended[name].agent for name in ("support", "researcher", "find", "after")] == [
        "support",
        "researcher",
        "researcher",
        "support",
    ]
    assert {event.trace_id for event in ended.values()} == {ended["support"].trace_id}
    assert {event.task for event in ended.values()} == {"refund"}


def test_tracers_do_not_see_each_other(made: Traced) -> None:
    """A step of one tracer inside a step of another is a run of its own, and what follows inside
    finds its own parent again.
    """
    transport = MemoryTransport()
    other = Tracer(Settings(project="other", quiet=True), transport=transport)
    with made.tracer.run(), other.tool("theirs"), made.tracer.tool("ours"):
        pass
    assert other.close(5)
    assert [(event.project, event.parent_step_id) for event in transport.ended] == [("other", "")]
    assert made.parents() == {"support": "", "ours": "support"}


def test_fields_given_on_opening(made: Traced) -> None:
    """Retries, fallbacks, schemas and attributes reach the event; attempts are limited."""
    with made.tracer.run():
        with made.tracer.tool("first") as first:
            pass
        with made.tracer.tool(
            "second",
            tool="lookup",
            attempt=2,
            retry_of=first,
            fallback_of=first.step_id,
            tool_schema="lookup@3",
            attributes={"region": "eu", "size": 3},
        ):
            pass
        with made.tracer.tool("third", attempt=0):
            pass
    ended = made.ended
    second = ended["second"]
    assert (second.tool, second.attempt, second.tool_schema) == ("lookup", 2, "lookup@3")
    assert second.retry_of == second.fallback_of == ended["first"].step_id
    assert second.attributes == {"region": "eu", "size": "3"}
    assert ended["third"].attempt == 1


def test_usage_cost_model_and_documents(made: Traced) -> None:
    """What a step used and found is its own; a cost that is none is refused with a word, not with
    an exception.
    """
    with made.tracer.run():
        with made.tracer.llm("plan") as step:
            step.set_usage(
                input_tokens=10,
                output_tokens=5,
                cached_input_tokens=4,
                cache_write_tokens=1,
                reasoning_tokens=2,
            )
            step.set_model("gpt-4o", "openai")
            step.set_cost(0.25)
            # Neither may replace the cost of 0.25 that was set before.
            step.set_cost(-1)
            step.set_cost("what")
        with made.tracer.retrieval("find") as step:
            step.set_documents(
                [
                    Document(id="a", score=0.5, content="text"),
                    {"id": 7, "page_content": "more", "score": 1},
                ]
            )
        with made.tracer.step("state_update", name="memory") as step:
            step.set_attribute("keys", ["a"])
            step.set_attributes({"note": "x"})
    ended = made.ended
    plan = ended["plan"]
    assert plan.usage is not None
    assert plan.usage.model_dump(exclude_defaults=True) == {
        "input_tokens": 10,
        "output_tokens": 5,
        "cached_input_tokens": 4,
        "cache_write_tokens": 1,
        "reasoning_tokens": 2,
    }
    assert (str(plan.cost_usd), plan.cost_source, plan.model, plan.provider) == (
        "0.25",
        "given",
        "gpt-4o",
        "openai",
    )
    assert [(d.id, d.score, d.content) for d in ended["find"].documents] == [
        ("a", 0.5, "text"),
        ("7", 1.0, "more"),
    ]
    assert ended["memory"].attributes == {"keys": '["a"]', "note": "x"}


def test_set_usage_takes_every_count_of_the_contract() -> None:
    """Every unit with a price can be set."""
    names = set(inspect.signature(Step.set_usage).parameters) - {"self", "service_tier"}
    assert names == {*TokenUsage.model_fields} - {"incomplete"}


def test_a_count_that_cannot_be_right_makes_the_cost_unknown(made: Traced) -> None:
    """The other counts stay; the tier is an attribute."""
    with made.tracer.run(), made.tracer.llm("plan", model="gpt-4o", provider="openai") as step:
        step.set_usage(input_tokens=-3, output_tokens=5, web_searches=2, service_tier="flex")
    plan = made.ended["plan"]
    assert plan.usage is not None
    assert plan.usage.model_dump(exclude_defaults=True) == {
        "output_tokens": 5,
        "web_searches": 2,
        "incomplete": True,
    }
    # Priced without the input it would be too little, and would pass for exact.
    assert (plan.cost_source, plan.attributes["service_tier"]) == ("unpriced", "flex")


def test_tokens_are_priced(made: Traced) -> None:
    """A known model's tokens have a cost and the version of the prices; an unknown model's are
    unpriced, never free.
    """
    with made.tracer.run():
        with made.tracer.llm("known", model="gpt-4o", provider="openai") as step:
            step.set_usage(input_tokens=1000, output_tokens=100)
        with made.tracer.llm("unknown", model="my-own-model") as step:
            step.set_usage(input_tokens=1000, output_tokens=100)
        with made.tracer.llm("nothing", model="gpt-4o"):
            pass
    ended = made.ended
    known, unknown, nothing = ended["known"], ended["unknown"], ended["nothing"]
    assert known.cost_usd is not None
    assert known.cost_usd > 0
    assert (known.cost_source, known.price_version.split()[0]) == ("priced", "genai-prices")
    assert (unknown.cost_usd, unknown.cost_source) == (None, "unpriced")
    # It answered and named no usage.
    assert (nothing.cost_usd, nothing.cost_source) == (
        None,
        "unpriced",
    )


def test_content_can_be_left_out() -> None:
    """Without capture neither input, output nor document texts travel, only their sizes; a run
    decides for its steps.
    """
    with traced() as made:
        with made.tracer.run(capture_content=False, input="question") as run:
            run.set_output("é")
            with run.retrieval("find", input="query") as step:
                step.set_documents([Document(id="a", score=0.5, content="secret text")])
            with run.tool("open", input="x", capture_content=True):
                pass
        ended = made.ended
    # "question" has eight bytes.
    assert (ended["support"].input, ended["support"].input_bytes) == ("", 8)
    assert (ended["support"].output, ended["support"].output_bytes) == ("", 2)
    assert (ended["find"].input, ended["find"].input_bytes) == ("", 5)
    assert [(d.id, d.score, d.content) for d in ended["find"].documents] == [("a", 0.5, "")]
    assert ended["open"].input == "x"
    with traced(capture_content=False) as made:
        with made.tracer.tool("find", input="x"):
            pass
        assert (made.ended["find"].input, made.ended["find"].input_bytes) == ("", 1)


def test_long_content_is_cut_and_its_size_recorded() -> None:
    """Inputs and outputs are cut at a character's end, and carry the size they had."""
    with traced(max_content_bytes=100) as made:
        with made.tracer.tool("find", input="é" * 80 + "?") as step:
            step.set_output("x" * 50_000)
        event = made.ended["find"]
    assert (event.input_bytes, event.output_bytes) == (161, 50_000)
    assert re.fullmatch(r"é{15,25}\.\.\.\[4\d characters cut\]\.\.\.é{15,25}\?", event.input)
    assert re.fullmatch(r"x{30,40}\.\.\.\[49,9\d\d characters cut\]\.\.\.x{30,40}", event.output)
    assert max(len(event.input.encode()), len(event.output)) <= 100


def test_switched_off_it_does_nothing() -> None:
    """With ``enabled`` off the program runs as ever and nothing is sent, started or counted."""
    with traced(enabled=False) as made:
        with made.tracer.run(input="x") as run, run.tool("find") as step:
            step.set_output("y")
            assert step.trace_id == ""
        assert made.transport.records == []
        assert made.tracer.counts.enqueued == 0


def test_misuse_is_logged_and_survived(made: Traced) -> None:
    """Writing before a step starts or after it ended, and fields that do not exist, are ignored
    with a word each.
    """
    with logged() as records:
        step = made.tracer.tool("find", colour="red")  # type: ignore[call-overload]
        step.set_output("early")
        with step:
            pass
        step.set_output("late")
        step.set_usage(input_tokens="many")
    assert made.ended["find"].output == ""
    words = [record.getMessage() for record in records]
    assert any("before it started" in word for word in words)
    assert any("after it ended" in word for word in words)
    assert any("'colour'" in word for word in words)


def test_settings_that_cannot_be_stop_recording_not_the_program(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Wrong settings: one line with what is wrong, and the agent runs on without recording."""

    def wrong() -> Settings:
        raise ValueError("partitions from STEPSTREAM_PARTITIONS: must be greater than 0")

    tracer = Tracer(wrong)
    with tracer.run() as run, run.tool("find"):
        pass
    # One line for the process, not one for each step that is not recorded.
    assert capfd.readouterr().err.count("\n") == 1


def test_a_name_is_never_empty(made: Traced) -> None:
    """Steps opened without a name are called by their kind, runs by their agent; so they are
    acceptable.
    """
    with made.tracer.run(), made.tracer.tool(), made.tracer.step("plan"):
        pass
    assert sorted(made.ended) == ["plan", "support", "tool_call"]


def test_the_agent_is_named_after_what_is_known() -> None:
    """Given on the run, else configured, else the run's name, else the program's."""
    with traced(agent="") as made:
        with made.tracer.run("a", agent="given"):
            pass
        with made.tracer.run("named"):
            pass
        with made.tracer.run() as run:
            pass
        program = run._scope.labels["agent"]
        assert program
        assert {event.name: event.agent for event in made.ended.values()} == {
            "a": "given",
            "named": "named",
            program: program,
        }
    with traced(agent="configured") as made:
        with made.tracer.run("named"):
            pass
        assert made.ended["named"].agent == "configured"


def test_a_step_that_is_entered_within_itself_ends_once() -> None:
    """And the step around it is the current one again."""
    with traced() as made, made.tracer.run() as run:
        outer = run.step("plan", "outer")
        with outer, run.step("plan", "inner") as inner, outer, outer:
            assert made.tracer.current_step() in (inner, outer)
        assert made.tracer.current_step() is run
