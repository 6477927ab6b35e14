"""Recorded traces of frameworks: kinds, tools, models, tokens, cost, errors and tree are those of
the originals.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks.cases import case_files, read_json
from benchmarks.cases.trail_gaia import duration_us
from stepstream.schemas.accept import Accepted, Limits, accept_value
from stepstream.schemas.step import AnyStep
from tests.support.data_cases import real_data
from tests.support.otlp import framework_spans, gaia_spans, mapped, walk

# Span id; kind, tool, model, provider, tokens, cost.
Row = tuple[str, str, str, str, str, tuple[int, int] | None, str]

AGENT: tuple[str, str, str, tuple[int, int] | None, str] = ("", "", "", None, "")

TABLE: dict[str, list[Row]] = {
    "pydantic-ai-tools-2025-12-04": [
        ("00d3f40ee8e3b716", "agent", *AGENT),
        ("5b5c52d029f28206", "agent", *AGENT),
        ("be64c23f44dd98be", "llm_call", "", "gpt-4o-mini-2024-07-18", "openai", (265, 73),
        "0.00008355"),
        ("00d2804abb764b1b", "llm_call", "", "gpt-4o-mini-2024-07-18", "openai", (417, 53),
        "0.00009435"),
        ("8976b072313c51f2", "llm_call", "", "gpt-4o-mini-2024-07-18", "openai", (502, 14),
        "0.0000837"),
        ("93d5543f7340c2e6", "other", *AGENT),
        ("99ec63d0b5ecdbf5", "tool_call", "get_pun_suggestion", "", "", None, ""),
        ("02d7769b76595f0b", "tool_call", "get_dad_joke_suggestion", "", "", None, ""),
        ("199eff9980ea8b99", "tool_call", "get_one_liner_suggestion", "", "", None, ""),
    ],
    "openai-agents-2025-09-30": [
        ("e5a76f27f51ad40e", "agent", *AGENT),
        ("d950b668796240b5", "agent", *AGENT),
        ("98870087af69bf06", "llm_call", "", "gpt-4.1-2025-04-14", "openai", (55, 15), ""),
        ("5b99c3e3411ed17b", "tool_call", "get_weather", "", "", None, ""),
        ("90d94774e8e3724d", "llm_call", "", "gpt-4.1-2025-04-14", "openai", (85, 29), ""),
    ],
    "google-adk-2025-08-28": [
        ("86cd4912944ddc41", "agent", *AGENT),
        ("6d8beb2e6a36b133", "agent", *AGENT),
        ("f6e4c65297e40c96", "llm_call", "", "gemini-2.0-flash", "google", (28, 3), ""),
        ("04290e4d82aba1bc", "tool_call", "say_hello", "", "", None, ""),
        ("bded677884f031ce", "llm_call", "", "gemini-2.0-flash", "google", (39, 6), ""),
    ],
    "langgraph-python-2025-08-22": [
        ("b024c7ee7680b708", "agent", *AGENT),
        ("98d3e02591797c04", "state_update", *AGENT),
        ("4f6535aaebcda355", "llm_call", "", "gpt-4o-2024-08-06", "", (60, 15), ""),
        ("c7fbfdc6ab70ca4d", "other", *AGENT),
        ("c8a18a38a3a115cb", "state_update", *AGENT),
        ("21441266a9f21251", "tool_call", "Web-Search", "", "", None, ""),
        ("5ba09605e0929d78", "llm_call", "", "gpt-4o-2024-08-06", "", (108, 51), ""),
    ],
    "crewai-2025-07-11": [
        ("839dad620fa92594", "agent", *AGENT),
        ("0dd92fffb354f15b", "other", *AGENT),
        ("a8bf77474d6f9a1d", "agent", *AGENT),
        ("69490dfd171f730b", "other", *AGENT),
        ("231c43964b7e7e63", "llm_call", "", "gpt-4o-mini", "", (190, 164), ""),
    ],
    "agno-2025-06-11": [
        ("1cffdfa6fe3412e6", "agent", *AGENT),
        ("6581e147aec6793a", "tool_call", "duckduckgo_search", "", "", None, ""),
        ("fc7f61b57ecebbaf", "llm_call", "", "gpt-4o-mini", "", (663, 225), ""),
    ],
    "beeai-2025-08-01": [
        ("cb4886242bf214b8", "agent", *AGENT),
        ("c48e7d031a4cb886", "other", *AGENT),
        ("1d8ae8c504c576d2", "tool_call", "tool.search.wikipedia.start-12", "", "", None, ""),
        ("b7b9a79830fe5c6b", "llm_call", "", "gpt-4o-mini", "openai", None, ""),
    ],
    "vertex-ai-2025-08-01": [
        (
            "125abcbf5c41f4df",
            "llm_call",
            "",
            "projects/vertex-ai-integration-467711/locations/europe-central2/publishers/google/models/gemini-2.5-flash",
            "",
            (5, 845),
            "",
        ),
    ],
}  # fmt: skip


def trace_file(name: str) -> Path:
    """A recorded trace, or the test is skipped."""
    path = real_data("otel_framework_traces") / f"{name}.trace.json"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    return path


def steps_by_id(path: Path) -> dict[str, AnyStep]:
    return {step.step_id: step for one in framework_spans(path) for step in mapped(one)}


@pytest.mark.parametrize("name", sorted(TABLE))
def test_kinds_tools_models_tokens_and_costs_are_those_of_the_original(name: str) -> None:
    """Row by row, with values read from the original files."""
    steps = steps_by_id(trace_file(name))
    found = []
    for row in TABLE[name]:
        step = steps[row[0]]
        usage = step.usage
        tokens = None if usage is None else (usage.input_tokens, usage.output_tokens)
        cost = "" if step.cost_usd is None else str(step.cost_usd)
        found.append((step.step_id, step.kind, step.tool, step.model, step.provider, tokens, cost))
    assert found == TABLE[name]


@pytest.mark.parametrize("name", sorted(TABLE))
def test_every_span_is_one_step_at_its_place(name: str) -> None:
    """Ids, parents, names and times are kept; what is derived (tool selections) hangs below the
    call that chose.
    """
    path = trace_file(name)
    observations = json.loads(path.read_text())["observations"]
    steps = steps_by_id(path)
    spans = {one["id"]: one for one in observations}
    for span_id, observation in spans.items():
        step = steps[span_id]
        assert step.parent_step_id == (observation.get("parentObservationId") or "")
        assert (step.trace_id, step.name) == (observation["traceId"], observation["name"])
        assert step.end_time is not None
        assert step.end_time >= step.start_time
    # Choices of a tool are part of a model's answer and have no span.
    for step_id in steps.keys() - spans.keys():
        assert steps[step_id].kind == "tool_selection"
        assert steps[steps[step_id].parent_step_id].kind == "llm_call"


@pytest.mark.parametrize("name", sorted(TABLE))
def test_every_step_is_accepted_as_it_is(name: str) -> None:
    """The worker takes what the gateway sends, with nothing to repair."""
    for step in steps_by_id(trace_file(name)).values():
        verdict = accept_value(
            msgspec.json.encode(step),
            timestamp_us=(step.end_time or 0) + 1,
            limits=Limits(),
        )
        assert isinstance(verdict, Accepted), verdict
        assert verdict.clamped == ()


def test_contents_come_from_where_each_framework_writes_them() -> None:
    """Messages, arguments and results of a few spans."""
    pydantic = steps_by_id(trace_file("pydantic-ai-tools-2025-12-04"))
    tool = pydantic["99ec63d0b5ecdbf5"]
    assert (tool.input, tool.output[:8]) == ('{"topic":"programming"}', "Pun idea")
    assert pydantic["5b5c52d029f28206"].agent == "joke_agent"
    assert pydantic["5b5c52d029f28206"].attributes["gen_ai.usage.input_tokens"] == "682"
    adk = steps_by_id(trace_file("google-adk-2025-08-28"))
    assert {(step.session_id, step.user_id) for step in adk.values()} == {
        ("demo-session", "demo-user")
    }
    graph = steps_by_id(trace_file("langgraph-python-2025-08-22"))
    assert graph["b024c7ee7680b708"].session_id == "demo-thread-1"
    agents = steps_by_id(trace_file("openai-agents-2025-09-30"))
    chosen = [step for step in agents.values() if step.kind == "tool_selection"]
    assert [(step.tool, step.input) for step in chosen] == [("get_weather", '{"city":"Tokyo"}')]


def gaia_files() -> list[Path]:
    return case_files(real_data("trail_gaia") / "traces")


_KINDS = {"LLM": "llm_call", "TOOL": "tool_call", "AGENT": "agent", "CHAIN": "other", None: "other"}


def test_every_trace_of_real_agents_comes_out_whole() -> None:
    """62 traces, 1,622 spans: kinds, tools, models, tokens, errors and tree against the files
    themselves.
    """
    kinds: Counter[str] = Counter()
    for path in gaia_files():
        originals = {one["span_id"]: one for root in read_json(path)["spans"] for one in walk(root)}
        steps = {step.step_id: step for one in gaia_spans(path) for step in mapped(one)}
        for span_id, original in originals.items():
            step = steps[span_id]
            kinds[step.kind] += 1
            assert_same(step, original)
        derived = [steps[step_id] for step_id in steps.keys() - originals.keys()]
        assert {step.kind for step in derived} <= {"tool_selection"}
    # Counted in the files: a kind that is mapped differently shows here first.
    assert kinds == {"llm_call": 677, "tool_call": 259, "agent": 89 + 62, "other": 535}


def assert_same(step: AnyStep, original: dict[str, Any]) -> None:
    """The step has the facts of the original span."""
    attributes = original["span_attributes"]
    parent = original["parent_span_id"]
    is_root = parent in (None, "", "None")
    kind = _KINDS[attributes.get("openinference.span.kind")]
    assert step.kind == ("agent" if is_root else kind)
    assert step.parent_step_id == ("" if is_root else parent)
    assert step.name == original["span_name"]
    assert step.end_time == step.start_time + duration_us(original["duration"])
    assert step.tool == (attributes.get("tool.name", "") if kind == "tool_call" else "")
    assert step.agent == original["service_name"]
    failed = original["status_code"] == "Error"
    assert step.status == ("error" if failed else "ok")
    if failed:
        event_attributes = original["events"][-1]["Attributes"]
        assert step.error_type == event_attributes["exception.type"]
    if kind != "llm_call":
        assert step.usage is None
        return
    assert step.model == attributes.get("llm.model_name", "")
    given = attributes.get("llm.token_count.prompt")
    if given is None:
        assert step.usage is None
    else:
        assert step.usage is not None
        counts = (step.usage.input_tokens, step.usage.output_tokens)
        assert counts == (int(given), int(attributes["llm.token_count.completion"]))
