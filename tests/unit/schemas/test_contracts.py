"""The public contracts: their JSON Schemas describe what is really read, and structs and
models are one.
"""

from __future__ import annotations

import json
from decimal import Decimal
from functools import cache
from typing import Any, Final

import msgspec
import pytest
from hypothesis import assume, given, settings
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError as SchemaError
from pydantic import BaseModel

from stepstream import schemas
from stepstream.schemas import CONTRACTS
from stepstream.schemas.accept import Accepted, accept_value
from stepstream.schemas.alert import AlertStruct, CommandStruct, FindingStruct
from stepstream.schemas.delivery import DeliveryStruct
from stepstream.schemas.fleet import FleetBaselineStruct, FleetBudgetStruct, FleetWindowStruct
from stepstream.schemas.step import AnyStep, Step
from stepstream.schemas.trajectory import (
    ProgressStruct,
    RunSummaryStruct,
    TrajectoryStruct,
    UsageStruct,
    UsedAmounts,
)
from stepstream.schemas.usage import TOTALLED, TokenUsage
from tests.support.paths import GOLDEN
from tests.support.step_events import NOW_US, event, odd_events, valid_events

INSTANCES: Final[dict[str, list[dict[str, Any]]]] = json.loads(
    (GOLDEN / "contracts-v1.json").read_text()
)
CASES: Final = [
    pytest.param(name, data, id=f"{name}-{n}")
    for name, rows in INSTANCES.items()
    for n, data in enumerate(rows)
]
STRUCTS: Final[dict[str, Any]] = {
    "StepEvent": Step,
    "Trajectory": TrajectoryStruct,
    "Usage": UsageStruct,
    "RunSummary": RunSummaryStruct,
    "Progress": ProgressStruct,
    "FleetWindow": FleetWindowStruct,
    "FleetBudget": FleetBudgetStruct,
    "FleetBaseline": FleetBaselineStruct,
    "Finding": FindingStruct,
    "Alert": AlertStruct,
    "Command": CommandStruct,
    "Delivery": DeliveryStruct,
}


@cache
def validator(name: str, mode: Any = "validation") -> Draft202012Validator:
    return Draft202012Validator(CONTRACTS[name].model_json_schema(mode=mode))


def test_every_contract_has_golden_instances() -> None:
    """No contract is published without an example that is tested."""
    assert INSTANCES.keys() == CONTRACTS.keys()
    assert all(INSTANCES.values())


@pytest.mark.parametrize("name", CONTRACTS)
def test_contracts_export_a_valid_schema(name: str) -> None:
    """``stepstream schema NAME`` prints JSON Schema, in which the contract and each of its
    own fields have a type.
    """
    for mode in ("validation", "serialization"):
        schema = CONTRACTS[name].model_json_schema(mode=mode)
        Draft202012Validator.check_schema(schema)
        assert schema["description"]
        assert json.loads(json.dumps(schema)) == schema


def only(written: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """Of what was written the fields that were given: later releases add some with defaults."""
    return {
        field: only(written[field], value)
        if isinstance(value, dict) and isinstance(written[field], dict)
        else written[field]
        for field, value in data.items()
        if field != "path"
    }


@pytest.mark.parametrize(("name", "data"), CASES)
def test_golden_instances_fit_schema_and_model(name: str, data: dict[str, Any]) -> None:
    """What was valid in version 1 stays valid, for schema and model, also when written again."""
    validator(name).validate(data)
    instance = CONTRACTS[name].model_validate_json(json.dumps(data))
    written = json.loads(instance.model_dump_json())
    validator(name, "serialization").validate(written)
    assert CONTRACTS[name].model_validate_json(json.dumps(written)) == instance
    if name in STRUCTS:  # documents are written in their own form of durations and amounts
        assert only(written, data) == {k: v for k, v in data.items() if k != "path"}


@pytest.mark.parametrize(("name", "struct"), [*STRUCTS.items(), ("StepEvent", AnyStep)])
def test_structs_have_the_fields_of_their_models(name: str, struct: Any) -> None:
    """The struct of the hot path has the model's fields, in its order, with its defaults."""
    model, known = CONTRACTS[name], INSTANCES[name][0]
    assert struct.__struct_fields__ == tuple(model.model_fields)
    required = {
        field: known[field] for field, info in model.model_fields.items() if info.is_required()
    }
    encoded = msgspec.json.encode(msgspec.convert(required, struct))
    assert model.model_validate_json(encoded) == model.model_validate_json(json.dumps(required))


@pytest.mark.parametrize(("name", "data"), [case for case in CASES if case.values[0] in STRUCTS])
def test_structs_and_models_read_each_other(name: str, data: dict[str, Any]) -> None:
    """A record written by the worker's struct is read by the model, and the other way round,
    unchanged.
    """
    model, struct = CONTRACTS[name], STRUCTS[name]
    instance = model.model_validate_json(json.dumps(data))
    fast = msgspec.json.decode(json.dumps(data), type=struct)
    assert model.model_validate_json(msgspec.json.encode(fast)) == instance
    assert msgspec.json.decode(instance.model_dump_json(), type=struct) == fast


@settings(max_examples=100)
@given(valid_events)
def test_valid_events_fit_the_schema(data: dict[str, Any]) -> None:
    """The schema that is handed to people in other languages takes every event as it should
    be written.
    """
    validator("StepEvent").validate(json.loads(json.dumps(data)))


@settings(max_examples=100)
@given(odd_events())
def test_what_fits_the_schema_is_accepted(data: dict[str, Any]) -> None:
    """An event that the schema takes, at a plausible time, is never dead-lettered."""
    data |= {"start_time": NOW_US, "end_time": NOW_US}
    assume(data.get("trace_id") != "0" * 32 and data.get("step_id") != "0" * 16)
    assume(validator("StepEvent").is_valid(data))
    assert isinstance(accept_value(json.dumps(data).encode(), timestamp_us=NOW_US), Accepted)


@pytest.mark.parametrize(
    "changes",
    [
        {"trace_id": "abc"},
        {"step_id": "B" * 16},
        {"parent_step_id": "root"},
        {"phase": "finish"},
        {"name": ""},
        {"project": ""},
        {"attempt": 0},
        {"end_time": ...},
        {"end_time": None},
        {"schema_version": 2},
        {"start_time": "now"},
        {"usage": {"input_tokens": -1}},
        {"kind": ...},
    ],
    ids=str,
)
def test_what_is_dead_lettered_does_not_fit_the_schema(changes: dict[str, Any]) -> None:
    """The schema warns a producer of what would be rejected."""
    with pytest.raises(SchemaError):
        validator("StepEvent").validate(event(**changes))


def test_the_package_names_its_contracts() -> None:
    """``stepstream.schemas`` exports the contracts, and nothing that is not there."""
    assert all(hasattr(schemas, name) for name in schemas.__all__)
    assert set(CONTRACTS) <= set(schemas.__all__)
    assert all(issubclass(model, BaseModel) for model in CONTRACTS.values())
    assert schemas.StepEvent.model_validate(event(cost_usd="0.1")).cost_usd == Decimal("0.1")


@pytest.mark.parametrize("model", [schemas.Trajectory, UsedAmounts])
def test_the_token_counts_of_runs_are_those_that_usage_lists(model: type[BaseModel]) -> None:
    """One list decides which counts are summed: ``usage.TOTALLED``."""
    counts = [name for name in model.model_fields if name in TokenUsage.model_fields]
    assert counts == list(TOTALLED)
