"""The programs of examples/integrations, against a local stand-in of the providers."""

from __future__ import annotations

import gc
import importlib.util
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

import stepstream
from tests.support.paths import ROOT
from tests.support.provider import TEXT, Provider, provider
from tests.support.sdk import own_tracer_provider

pytestmark = pytest.mark.filterwarnings("default")

PROGRAMS = sorted((ROOT / "examples" / "integrations").glob("[a-z]*.py"))
PACKAGES = {
    "anthropic_client": "anthropic",
    "bedrock_client": "boto3",
    "cohere_client": "cohere",
    "google_client": "google.genai",
    "langgraph_agent": "langgraph",
    "litellm_client": "litellm",
    "mistral_client": "mistralai",
    "openai_agents_agent": "agents",
    "openai_client": "openai",
    "pydantic_ai_agent": "pydantic_ai",
}


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    with provider() as made:
        for name, value in {
            "OPENAI_BASE_URL": f"{made.url}/v1",
            "ANTHROPIC_BASE_URL": made.url,
            "GOOGLE_GEMINI_BASE_URL": made.url,
            "MISTRAL_SERVER_URL": made.url,
            "CO_API_URL": made.url,
            "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": made.url,
            "AWS_ACCESS_KEY_ID": "k",
            "AWS_SECRET_ACCESS_KEY": "s",
            "OPENAI_API_KEY": "k",
            "ANTHROPIC_API_KEY": "k",
            "GEMINI_API_KEY": "k",
            "MISTRAL_API_KEY": "k",
            "CO_API_KEY": "k",
        }.items():
            monkeypatch.setenv(name, value)
        yield made


def test_every_program_is_listed() -> None:
    readme = (ROOT / "examples" / "README.md").read_text()
    assert {path.stem for path in PROGRAMS} == set(PACKAGES)
    assert all(f"(integrations/{path.name})" in readme for path in PROGRAMS)


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_it_runs_and_is_recorded(
    path: Path, served: Provider, capsys: pytest.CaptureFixture[str]
) -> None:
    """It prints the answer; one run with one model call at least, with tokens."""
    if importlib.util.find_spec(PACKAGES[path.stem]) is None:
        pytest.skip(f"{PACKAGES[path.stem]} is not installed")
    transport = stepstream.MemoryTransport()
    stepstream.configure(transport=transport, quiet=True)
    try:
        with own_tracer_provider():
            runpy.run_path(str(path), run_name="__main__")
            assert stepstream.flush(20)
        printed = capsys.readouterr().out
    finally:
        stepstream.uninstrument()
        stepstream.configure()
        # Clients that the program leaves open warn when they are collected: here, in this test.
        gc.collect()
    assert TEXT in printed
    assert len({event.trace_id for event in transport.ended}) == 1
    calls = [event for event in transport.ended if event.kind == "llm_call"]
    assert calls
    assert all(call.usage is not None and call.usage.input_tokens for call in calls)
    assert [event.kind for event in transport.ended if not event.parent_step_id] == ["agent"]
