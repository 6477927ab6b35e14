"""Records of tasks: what is read, what is refused and why, and ids."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest

from stepstream.schemas import CONTRACTS
from stepstream.schemas.task_bindings import Binding, decode_binding, encode_binding
from stepstream.schemas.task_common import (
    MAX_JSON_BYTES,
    epoch_of,
    fence_of,
    json_bytes,
    json_value,
    task_trace_id,
)
from stepstream.schemas.task_messages import (
    Message,
    SubmitStruct,
    WrongTaskRecord,
    decode_message,
    encode_message,
)
from stepstream.schemas.task_state import (
    StateRecord,
    TaskStateStruct,
    decode_state,
    encode_state,
    is_newer,
)
from tests.support.paths import GOLDEN

INSTANCES: Final[dict[str, list[dict[str, Any]]]] = json.loads(
    (GOLDEN / "contracts-v1.json").read_text()
)
TOPICS: Final[dict[str, tuple[Any, Any, Any]]] = {
    "TaskMessage": (Message, decode_message, encode_message),
    "TaskStateRecord": (StateRecord, decode_state, encode_state),
    "TaskBinding": (Binding, decode_binding, encode_binding),
}
CASES: Final = [
    pytest.param(name, data, id=f"{name}-{data['kind']}-{n}")
    for name in TOPICS
    for n, data in enumerate(INSTANCES[name])
]


@pytest.mark.parametrize("name", TOPICS)
def test_every_kind_has_a_golden_record(name: str) -> None:
    """No kind of record is published without an example that is tested."""
    kinds = {struct.__struct_config__.tag for struct in TOPICS[name][0].__args__}
    assert {data["kind"] for data in INSTANCES[name]} == kinds


@pytest.mark.parametrize(("name", "data"), CASES)
def test_structs_and_models_read_each_other(name: str, data: dict[str, Any]) -> None:
    """What the worker writes is what the JSON Schema describes, and the other way round."""
    _, decode, encode = TOPICS[name]
    model = CONTRACTS[name].model_validate_json(json.dumps(data))
    struct = decode(json.dumps(data).encode())
    assert CONTRACTS[name].model_validate_json(encode(struct)) == model
    assert encode(decode(model.model_dump_json(exclude_defaults=False).encode()))
    # The struct has the fields of the model, in its sequence, besides the tag.
    fields = tuple(type(model.root).model_fields)  # type: ignore[attr-defined]
    assert type(struct).__struct_fields__ == tuple(one for one in fields if one != "kind")


@pytest.mark.parametrize(
    ("value", "reason", "detail"),
    [
        (None, "empty", "no value"),
        (b"", "empty", "no value"),
        (b"{", "malformed_json", "truncated"),
        (b"\xff", "malformed_json", "invalid character"),
        (b"[]", "invalid_field", "object"),
        (b'{"kind": "sumbit"}', "invalid_field", r"sumbit.*\$\.kind"),
        (b"{}", "invalid_field", "kind"),
        ({"delay_us": -1}, "invalid_field", r"\$\.delay_us"),
        ({"delay_us": 7 * 86_400_000_000}, "invalid_field", r"\$\.delay_us"),
        ({"deadline_us": -1}, "invalid_field", r"\$\.deadline_us"),
        ({"priority": 10}, "invalid_field", r"\$\.priority"),
        ({"task_id": ""}, "invalid_field", r"\$\.task_id"),
        ({"task_id": "t" * 257}, "invalid_field", r"\$\.task_id"),
        ({"agent": 7}, "invalid_field", r"\$\.agent"),
        ({"after": ["t"] * 101}, "invalid_field", r"\$\.after"),
        ({"on_busy": "explode"}, "invalid_field", r"\$\.on_busy"),
        ({"input": "x" * MAX_JSON_BYTES}, "too_large", "input has 262,146 of 262,144 bytes"),
        ({"input": "x" * 1_000_000}, "too_large", "of 1,000,000 bytes"),
        ({"project": "other"}, "foreign_key", "other"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_used_is_refused_with_the_reason(
    value: Any, reason: str, detail: str
) -> None:
    """Nothing that was written by hand raises anything else."""
    if isinstance(value, dict):
        submit = {"kind": "submit", "project": "shop", "task_id": "t", "agent": "refund"}
        value = json.dumps(submit | value).encode()
    with pytest.raises(WrongTaskRecord, match=detail) as refused:
        decode_message(value, b"shop")
    assert refused.value.reason == reason


def test_fields_of_newer_versions_are_ignored() -> None:
    """Executors and workers are upgraded in any sequence."""
    value = b'{"kind":"submit","project":"shop","task_id":"t","agent":"refund","colour":"red"}'
    message = decode_message(value, b"shop")
    assert message == SubmitStruct(project="shop", task_id="t", agent="refund")
    assert decode_binding(b'{"kind":"dance","executor_id":"ex-1"}') is None
    assert decode_state(b'{"kind":"dance"}') is None


def test_an_input_keeps_its_bytes() -> None:
    """The worker passes the input on as it came, numbers of any size included."""
    text = b'{"n": 12345678901234567890123, "x": [1.0, null]}'
    value = b'{"kind":"submit","project":"shop","task_id":"t","agent":"a","input":' + text + b"}"
    message = decode_message(value)
    assert isinstance(message, SubmitStruct)
    assert bytes(message.input) == text
    assert text in encode_message(message)
    assert json_value(json_bytes({"a": [1]})) == {"a": [1]}
    assert json_value(None) is None
    with pytest.raises(TypeError):
        json_bytes(object())


def test_every_attempt_is_a_run_of_its_own() -> None:
    """The trace id follows from project, task and attempt."""
    first = task_trace_id("shop", "t", 1)
    assert first == task_trace_id("shop", "t", 1)
    assert len(first) == 32
    assert len({first, task_trace_id("shop", "t", 2), task_trace_id("b", "t", 1)}) == 3


def test_fencing_numbers_grow_with_the_epoch() -> None:
    """Every number of a later epoch is higher than all of the earlier ones."""
    assert fence_of(1, 2**32 - 1) < fence_of(2, 1) < fence_of(2, 2)
    assert epoch_of(fence_of(7, 9)) == 7


def test_readers_keep_the_newest_state() -> None:
    """A worker that was replaced has a lower epoch, whatever its revision."""
    data = INSTANCES["TaskStateRecord"][0]
    zombie, owner = (
        decode_state(json.dumps(data | changes).encode())
        for changes in ({"epoch": 1, "revision": 9}, {"epoch": 2, "revision": 4})
    )
    assert isinstance(zombie, TaskStateStruct)
    assert isinstance(owner, TaskStateStruct)
    assert is_newer(zombie, None)
    assert is_newer(owner, zombie)
    assert not is_newer(zombie, owner)
    assert not is_newer(owner, owner)
