"""Guardrails act before a tool or model is called, whatever form the call has."""
# The error comes out of a step in the middle of a run, so pytest.raises is around the whole run.
# ruff: noqa: PT012

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

import stepstream
from stepstream.producers.exceptions import RunStopped, StepRefused
from stepstream.producers.guardrails.cache import MAX_BYTES, GuardrailCache
from stepstream.producers.guardrails.in_force import Guardrails
from stepstream.producers.guardrails.switch import guarding
from stepstream.schemas.alert import CommandStruct
from stepstream.schemas.guardrails import GuardedPolicy, encode_guarded
from tests.support.processes import wait_until
from tests.support.sdk import Traced, logged, traced

SCHEMA = {
    "type": "object",
    "required": ["order"],
    "properties": {
        "order": {"type": "integer"},
        "usd": {"type": "number", "maximum": 100, "default": 5},
    },
}


@pytest.fixture
def made() -> Iterator[Traced]:
    with traced() as made:
        yield made
    guarding.is_on = False


def policy(*guardrails: dict[str, Any], **more: Any) -> GuardedPolicy:
    fields = {"name": "rules", "mode": "enforce", "revision": 3, **more}
    return GuardedPolicy.model_validate({**fields, "guardrails": guardrails})


def guard(made: Traced, *guardrails: dict[str, Any], **more: Any) -> Guardrails:
    engine = made.tracer.engine()
    assert engine is not None
    engine.guardrails.put_in_force([policy(*guardrails, **more)], "endpoint")
    return engine.guardrails


def forbidden(*tools: str, **more: Any) -> dict[str, Any]:
    return {"name": "never", "check": "forbidden", "tools": list(tools), **more}


def args(action: str, **more: Any) -> dict[str, Any]:
    fields = {"name": "args", "check": "arguments", "tools": ["refund"], "schema": SCHEMA}
    return {**fields, "action": action, **more}


def approval(when: str = "args.usd > 50", **more: Any) -> dict[str, Any]:
    return {"name": "person", "check": "approval", "tools": ["refund"], "when": when, **more}


def decisions(made: Traced) -> list[tuple[str, str]]:
    """Guardrail and decision of each step of a guardrail."""
    return [
        (event.name, event.attributes["action"])
        for event in made.events
        if event.kind == "guardrail"
    ]


def command(action: str, trace_id: str, number: int = 1) -> CommandStruct:
    return CommandStruct(
        command_id=f"c{number}", action=action, time=1, project="shop", trace_id=trace_id, by="ada"
    )


def deliver(made: Traced, action: str, trace_id: str) -> None:
    engine = made.tracer.engine()
    assert engine is not None
    assert engine.commands.deliver(command(action, trace_id)) == 1


def when_suspended(made: Traced, action: str, trace_id: str) -> threading.Thread:
    """Sends a command once a call of the run waits."""

    def send() -> None:
        engine = made.tracer.engine()
        assert engine is not None
        control = engine.commands._roots[trace_id]
        wait_until(lambda: bool(control._suspended), 20, "a suspended call")
        deliver(made, action, trace_id)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


# --- refused ---


def test_a_forbidden_tool_is_not_called(made: Traced) -> None:
    """Neither its step nor its body begins; the refusal is a step, and the run goes on."""
    guard(made, forbidden("delete_*"))
    with made.tracer.run() as run:
        with (
            pytest.raises(
                StepRefused, match="delete_all is refused by guardrail rules/never: the t"
            ),
            run.tool("delete_all", input={"where": "x"}),
        ):
            raise AssertionError("it began")
        with run.tool("search"):
            pass
    assert set(made.ended) == {"support", "search", "rules/never"}
    step = made.ended["rules/never"]
    assert (step.kind, step.status, step.error_type) == ("guardrail", "error", "StepRefused")
    assert step.error_message == "delete_all: the tool is forbidden"
    assert step.input == '{"where":"x"}'
    assert step.parent_step_id == run.step_id
    assert step.tool == ""
    assert step.attributes == {
        "action": "refused",
        "check": "forbidden",
        "tool": "delete_all",
        "guardrail": "never",
        "policy": "rules",
        "policy_revision": "3",
        "reason": "the tool is forbidden",
    }
    assert made.ended["support"].status == "ok"


@pytest.mark.parametrize("form", ["plain", "async", "generator", "async generator", "attempt"])
async def test_every_form_of_a_traced_function_is_refused(made: Traced, form: str) -> None:
    """Its body does not run."""
    guard(made, forbidden("work"))
    tool = made.tracer.tool("work")

    def plain() -> None:
        raise AssertionError("it began")

    async def asynchronous() -> None:
        raise AssertionError("it began")

    def generator() -> Iterator[int]:
        raise AssertionError("it began")
        yield 1

    async def async_generator() -> AsyncIterator[int]:
        raise AssertionError("it began")
        yield 1

    with made.tracer.run() as run, pytest.raises(StepRefused):
        match form:
            case "plain":
                tool(plain)()
            case "async":
                await tool(asynchronous)()
            case "generator":
                list(tool(generator)())
            case "async generator":
                async for _ in tool(async_generator)():
                    pass
            case _:
                run.attempt("work", plain, retries=3)
    assert decisions(made) == [("rules/never", "refused")]
    assert set(made.ended) == {"support", "rules/never"}


def test_a_fallback_follows_a_refusal(made: Traced) -> None:
    """It is another tool, with guardrails of its own; the refused one is not tried again."""
    guard(made, forbidden("delete"))
    tries: list[str] = []

    def archive() -> str:
        tries.append("archive")
        return "archived"

    with made.tracer.run() as run:
        result = run.attempt("delete", lambda: tries.append("delete"), retries=2, fallback=archive)
    assert (result, tries) == ("archived", ["archive"])


def test_a_tool_outside_a_run_is_refused(made: Traced) -> None:
    """The labels are those of the settings."""
    guard(made, forbidden("delete"), match={"agent": "support"})
    with pytest.raises(StepRefused), made.tracer.tool("delete"):
        raise AssertionError("it began")
    assert decisions(made) == [("rules/never", "refused")]


def test_a_policy_guards_the_runs_that_it_matches(made: Traced) -> None:
    guard(made, forbidden("delete"), match={"agent": "other", "task": "t*"})
    with made.tracer.run() as run, run.tool("delete"):
        pass
    with made.tracer.run(agent="other", task="tidy") as run, pytest.raises(StepRefused):
        run.tool("delete").start()
    with made.tracer.run(agent="other", task="x") as run, run.tool("delete"):
        pass


def test_mode_observe_only_records(made: Traced) -> None:
    guard(made, forbidden("refund"), args("repair"), approval(), mode="observe")
    seen: list[Any] = []

    @made.tracer.tool
    def refund(order: int, usd: float) -> None:
        seen.append((order, usd))

    with made.tracer.run():
        refund(7, usd=150)
    assert seen == [(7, 150)]
    assert decisions(made) == [
        ("rules/never", "observed"),
        ("rules/args", "observed"),
        ("rules/person", "observed"),
    ]
    would = [event.attributes["would"] for event in made.events if event.kind == "guardrail"]
    assert would == ["refused", "repaired", "suspended"]


def test_contents_that_are_not_captured_are_not_sent(made: Traced) -> None:
    """Neither the arguments nor what quotes them."""
    guard(made, args("refuse"))
    with made.tracer.run(capture_content=False) as run, pytest.raises(StepRefused) as caught:
        run.tool("refund", input={"order": "secret-7"}).start()
    assert "secret-7" in str(caught.value)
    step = made.ended["rules/args"]
    assert (step.input, step.attributes["reason"]) == ("", "the arguments do not fit the schema")
    assert "secret-7" not in step.error_message + str(step.attributes)


def test_a_budget_must_have_something_left(made: Traced) -> None:
    guard(made, {"name": "reserve", "check": "budget_left", "steps": 2, "message": "nearly used"})
    budget = stepstream.Budget(steps=3)
    with made.tracer.run(budget=budget) as run:
        for _ in range(2):
            with run.tool("search"):
                pass
        with pytest.raises(StepRefused, match="nearly used"), run.tool("search"):
            pass
    with made.tracer.run() as run, run.tool("search"):  # no budget
        pass


# --- repaired ---


def test_arguments_are_repaired_where_the_sdk_makes_the_call(made: Traced) -> None:
    """By position, by name, missing, not declared; what was called is what is recorded."""
    guard(made, args("repair"))
    seen: list[Any] = []

    class Shop:
        @made.tracer.tool("refund")
        def refund(self, order: Any, usd: float = 0, **more: Any) -> None:
            seen.append((order, usd, more))

    with made.tracer.run():
        Shop().refund("7", 1000, colour="red")
        Shop().refund(order=8)
        Shop().refund(9, 1)
    assert seen == [(7, 100, {}), (8, 0, {}), (9, 1, {})]
    inputs = [event.input for event in made.events if event.name == "refund" and event.output == ""]
    assert '{"order":7,"usd":100}' in inputs
    steps = [event for event in made.events if event.kind == "guardrail"]
    assert [step.attributes["action"] for step in steps] == ["repaired"]
    assert steps[0].input == '{"order":"7","usd":1000,"colour":"red"}'
    assert steps[0].attributes["repaired"] == '{"order":7,"usd":100,"colour":null}'


async def test_an_asynchronous_function_and_an_attempt_get_repaired_arguments(
    made: Traced,
) -> None:
    guard(made, args("repair"))

    async def refund(order: int, usd: float) -> tuple[int, float]:
        return order, usd

    with made.tracer.run() as run:
        assert await made.tracer.tool(refund)(7, 1000) == (7, 100)
        assert await run.attempt("refund", refund, order="7", usd=1000) == (7, 100)


def test_a_with_block_gets_the_repaired_arguments_with_the_refusal(made: Traced) -> None:
    """The program makes the call: it can be refused only."""
    guard(made, args("repair"))
    with made.tracer.run() as run:
        with pytest.raises(StepRefused, match="the program itself makes the call") as caught:
            run.tool("refund", input={"order": 7, "usd": 1000}).start()
        assert caught.value.repaired == {"order": 7, "usd": 100}
        with run.tool("refund", input=caught.value.repaired):
            pass


def test_what_cannot_be_repaired_is_refused(made: Traced) -> None:
    guard(made, args("repair"))
    with made.tracer.run(), pytest.raises(StepRefused, match="cannot be repaired"):
        made.tracer.tool("refund")(lambda order: None)("no number")


def test_a_condition_may_set_arguments(made: Traced) -> None:
    """And the guardrails after it see them."""
    rule = {"check": "expr", "when": "args.usd > 100", "action": "repair", "set": {"usd": 100}}
    guard(made, {"name": "cap", "tools": ["refund"], **rule}, approval("args.usd > 100"))
    with made.tracer.run():
        assert made.tracer.tool("refund")(lambda usd: usd)(500) == 100
    assert decisions(made) == [("rules/cap", "repaired")]


# --- suspended ---


def test_a_suspended_call_waits_for_the_approval(made: Traced) -> None:
    """The pause and its end are control steps, as of a command."""
    guard(made, approval())
    with made.tracer.run() as run:
        thread = when_suspended(made, "resume", run.trace_id)
        with run.tool("refund", input={"usd": 150}):
            pass
        thread.join()
        with run.tool("refund", input={"usd": 10}):
            pass
    names = [(e.name, e.phase, e.status) for e in made.events if e.kind == "control"]
    assert names == [("pause", "start", "ok"), ("pause", "end", "ok"), ("resume", "end", "ok")]
    (ended,) = [e for e in made.events if e.name == "pause" and e.phase == "end"]
    pause = ended.attributes
    assert pause["by"] == "policy:rules"
    assert pause["reason"] == ("refund waits for an approval (rules/person: it needs an approval)")
    assert decisions(made) == [("rules/person", "suspended")]


async def test_a_suspended_call_does_not_block_the_event_loop(made: Traced) -> None:
    guard(made, approval())
    passed: list[str] = []

    async def refund(usd: float) -> None:
        passed.append("refund")

    async with made.tracer.run() as run:
        waiting = asyncio.create_task(made.tracer.tool(refund)(150))
        engine = made.tracer.engine()
        assert engine is not None
        control = engine.commands._roots[run.trace_id]
        await asyncio.to_thread(
            wait_until, lambda: bool(control._suspended), 20, "a suspended call"
        )
        # Another branch of the run goes on: only this call is suspended.
        async with run.tool("search"):
            passed.append("search")
        deliver(made, "resume", run.trace_id)
        await waiting
    assert passed == ["search", "refund"]


@pytest.mark.parametrize("nested", [False, True])
def test_a_stop_ends_the_waiting(made: Traced, nested: bool) -> None:
    """The run is stopped: the call is not made."""
    guard(made, approval())
    with pytest.raises(RunStopped), made.tracer.run() as run:
        thread = when_suspended(made, "stop", run.trace_id)
        try:
            with run.agent("other") if nested else run as opener:
                opener.tool("refund", input={"usd": 150}).start()
                raise AssertionError("it began")
        finally:
            thread.join()


async def test_a_call_that_is_not_approved_in_time_is_refused(made: Traced) -> None:
    with traced(pause_limit="50ms") as short:
        guard(short, approval())
        with short.tracer.run() as run:
            with pytest.raises(StepRefused, match="a plain `with` in an event loop cannot wait"):
                run.tool("refund", input={"usd": 150}).start()
            with pytest.raises(StepRefused, match="it was not approved within 0 s"):
                async with run.tool("refund", input={"usd": 150}):
                    pass
        ended = [e.status for e in short.events if e.name == "pause" and e.phase == "end"]
        assert ended == ["cancelled"]
    guarding.is_on = False


def test_no_approval_is_asked_for_a_call_that_is_refused_anyway(made: Traced) -> None:
    guard(made, approval("true"), {**forbidden("refund"), "name": "z"})
    with made.tracer.run() as run, pytest.raises(StepRefused):
        run.tool("refund").start()
    assert decisions(made) == [("rules/person", "suspended"), ("rules/z", "refused")]
    assert not [event for event in made.events if event.kind == "control"]


# --- failures ---


def test_a_guardrail_without_a_result_lets_the_step_run(made: Traced) -> None:
    """It is counted and recorded."""
    guardrails = guard(made, approval("args.nothing > 1"))
    with made.tracer.run() as run, run.tool("refund", input={"usd": 150}):
        pass
    assert decisions(made) == [("rules/person", "failed")]
    assert guardrails.counts.failed == 1
    reason = "it could not be evaluated: there is no nothing at character 6"
    assert made.ended["rules/person"].attributes["reason"] == reason


def test_a_guardrail_may_refuse_what_it_cannot_evaluate(made: Traced) -> None:
    guard(made, approval("args.nothing > 1", on_failure="refuse"))
    with made.tracer.run() as run, pytest.raises(StepRefused, match="could not be evaluated"):
        run.tool("refund", input={"usd": 150}).start()


@pytest.mark.parametrize("on_failure", ["allow", "refuse"])
@pytest.mark.parametrize("broken", ["evaluate", "to_text", "Pending.refusal"])
def test_errors_of_the_machinery_let_the_step_run(
    monkeypatch: pytest.MonkeyPatch, broken: str, on_failure: str
) -> None:
    """Unless the policy wants it refused; they are counted and logged."""

    def fail(*_: Any, **__: Any) -> None:
        raise KeyError("broken")

    began = False
    with traced(sound=False) as made, logged() as records:
        guardrails = guard(made, approval("args.usd > 1000", on_failure=on_failure), args("refuse"))
        guardrails = guard(made, {**args("refuse"), "on_failure": on_failure})
        monkeypatch.setattr(f"stepstream.producers.guardrails.enforce.{broken}", fail)
        with made.tracer.run() as run:
            try:
                with run.tool("refund", input={"usd": 1500}):
                    began = True
            except StepRefused:
                assert on_failure == "refuse" or broken == "to_text"
    # What could not be recorded (to_text) was decided all the same.
    assert began is ((on_failure == "allow" and broken != "to_text") or began)
    assert guardrails.counts.failed >= 1
    assert any("guardrail" in record.getMessage() for record in records) or broken == "to_text"
    guarding.is_on = False


def test_hostile_arguments_are_not_called(made: Traced) -> None:
    """No code of the arguments runs in a guardrail; what is too large counts as a failure."""

    class Blocks(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            raise AssertionError("called")

        get = keys = items = __iter__ = __getitem__  # type: ignore[assignment]

    guard(made, approval("has(args.usd) && args.usd > 50"))
    with made.tracer.run() as run:
        with run.tool("refund", input=Blocks(usd=10)):
            pass
        with run.tool("refund", input={"usd": "x" * 300_000}):
            pass
    assert decisions(made) == [("rules/person", "failed")]


# --- what is in force ---


def record(*guardrails: dict[str, Any], **more: Any) -> bytes:
    return encode_guarded(policy(*guardrails, **more))


def test_records_are_in_force_once_all_were_read(tmp_path: Path) -> None:
    """And are kept on disk, for a start without the endpoint."""
    cache = GuardrailCache(tmp_path, "kafka://a")
    guardrails = Guardrails(cache)
    guardrails.begin((0,))
    guardrails.record("policy/rules", record(forbidden("delete")))
    guardrails.record("policy/more", record(forbidden("drop"), name="more"))
    guardrails.record("policy/more", None)
    assert guardrails.book is None
    assert not guardrails.loaded.is_set()
    guardrails.ended(0)
    assert guardrails.status().policies == ("rules@3",)
    assert guardrails.loaded.is_set()

    later = Guardrails(GuardrailCache(tmp_path, "kafka://a"))
    later.load_cached()
    assert (later.status().policies, later.source) == (("rules@3",), "disk")
    assert not later.loaded.is_set()
    elsewhere = Guardrails(GuardrailCache(tmp_path, "kafka://b"))
    elsewhere.load_cached()
    assert elsewhere.book is None

    guardrails.record("policy/rules", None)
    assert guardrails.book is None
    assert not cache.file.exists()
    guarding.is_on = False


def test_a_change_is_in_force_at_once(made: Traced) -> None:
    guardrails = guard(made, forbidden("search"))
    guardrails.begin((0,))
    guardrails.record("policy/rules", record(forbidden("delete")))
    guardrails.ended(0)
    with made.tracer.run() as run:
        with run.tool("search"):
            pass
        guardrails.record("policy/rules", record(forbidden("search")))
        with pytest.raises(StepRefused):
            run.tool("search").start()


@pytest.mark.parametrize("damage", ["cut", "changed", "no policies", "too large", "a folder"])
def test_a_file_that_cannot_be_used_is_ignored_and_logged(tmp_path: Path, damage: str) -> None:
    cache = GuardrailCache(tmp_path, "kafka://a")
    cache.write([record(forbidden("delete"))])
    value = cache.file.read_bytes()
    match damage:
        case "cut":
            cache.file.write_bytes(value[:-9])
        case "changed":
            cache.file.write_bytes(value.replace(b"delete", b"select"))
        case "no policies":
            cache.write([b'{"name": 7}'])
        case "too large":
            cache.file.write_bytes(value + b" " * MAX_BYTES)
        case _:
            cache.file.unlink()
            cache.file.mkdir()
    guardrails = Guardrails(cache)
    with logged() as records:
        guardrails.load_cached()
    assert guardrails.book is None
    (message,) = [record.getMessage() for record in records]
    assert "the last known guardrails in" in message
    assert "are ignored" in message


def test_a_record_of_a_newer_release_leaves_the_earlier_one_in_force() -> None:
    guardrails = Guardrails()
    guardrails.begin((0,))
    guardrails.record("policy/rules", record(forbidden("delete")))
    guardrails.ended(0)
    newer = b'{"name": "rules", "guardrails": [{"name": "x", "check": "telepathy"}]}'
    with logged() as records:
        guardrails.record("policy/rules", newer)
        guardrails.begin((0,))
        guardrails.record("policy/rules", newer)
        guardrails.ended(0)
    assert guardrails.status().policies == ("rules@3",)
    assert guardrails.counts.failed == 2
    assert "its earlier ones stay in force" in records[0].getMessage()
    guarding.is_on = False


def test_a_disk_that_is_full_is_logged(tmp_path: Path) -> None:
    """They are in force all the same."""
    (tmp_path / "guardrails").write_text("a file where the folder should be")
    guardrails = Guardrails(GuardrailCache(tmp_path, "kafka://a"))
    with logged() as records:
        guardrails.begin((0,))
        guardrails.record("policy/rules", record(forbidden("delete")))
        guardrails.ended(0)
    assert guardrails.book is not None
    assert "the guardrails are not kept on disk" in records[0].getMessage()
    guarding.is_on = False


def test_the_status_names_what_is_in_force(made: Traced) -> None:
    assert made.tracer.guardrails().policies == ()
    guard(made, forbidden("a"), args("refuse"))
    with made.tracer.run() as run, pytest.raises(StepRefused):
        run.tool("a").start()
    status = made.tracer.guardrails()
    assert (status.policies, status.guardrails, status.source) == (("rules@3",), 2, "endpoint")
    assert status.counts.refused == 1
