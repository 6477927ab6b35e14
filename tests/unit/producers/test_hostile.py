"""Values that would harm an agent if anything of theirs were called:

mocks, proxies, what blocks, raises or never ends.
"""

from __future__ import annotations

import array
import contextlib
import datetime
import ipaddress
import json
import sys
from collections import UserDict, deque
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, cast
from unittest.mock import AsyncMock, MagicMock, Mock

import msgspec
import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel, computed_field, field_serializer

from stepstream.producers.misuse import shown
from stepstream.producers.values.content import to_text
from stepstream.producers.values.failures import message_of
from stepstream.producers.values.inspection import field_of
from stepstream.producers.values.plain import ValueReader, label
from tests.support.sdk import traced

LIMIT = 16_384

# What was called of the values of a test.
called: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_called() -> Iterator[None]:
    called.clear()
    yield
    assert called == []


def _forbidden(name: str) -> Any:
    def method(*_args: Any, **_kwargs: Any) -> Any:
        frame = sys._getframe(1)
        called.append(f"{name} by {frame.f_code.co_filename}:{frame.f_lineno}")
        raise RuntimeError(name)

    return method


HOOKS = (
    "__repr__",
    "__str__",
    "__iter__",
    "__len__",
    "__bool__",
    "__hash__",
    "__eq__",
    "__getitem__",
    "__contains__",
    "__format__",
    "__int__",
    "__float__",
    "__index__",
    "__bytes__",
    "__fspath__",
    "__reversed__",
    "__length_hint__",
    "__getattribute__",
    "__getattr__",
    "__dir__",
    "__reduce_ex__",
    "__sizeof__",
    "__next__",
    "__call__",
    "__enter__",
    "__exit__",
    "__iadd__",
    "keys",
    "items",
    "values",
    "get",
    "model_dump",
    "dict",
    "to_dict",
    "_asdict",
    "json",
    "isoformat",
    "tolist",
    "item",
)


def hostile(base: type = object, *, without: tuple[str, ...] = ()) -> type:
    """A class all of whose methods, and those of its class, record that they were called, and
    raise.
    """
    kept = {"__hash__"} if base is BaseException or issubclass(base, BaseException) else set()
    hooks = {name: _forbidden(name) for name in HOOKS if name not in without and name not in kept}
    properties = {
        name: property(_forbidden(name))
        for name in ("shape", "value", "text", "content", "id", "args", "__class__")
    }
    return type("Hostile", (base,), {**hooks, **({} if base is not object else properties)})


def hostile_values() -> dict[str, Any]:
    """One value of each kind, by name."""

    class Meta(type):
        __getattribute__ = _forbidden("Meta.__getattribute__")
        __hash__ = _forbidden("Meta.__hash__")
        __instancecheck__ = _forbidden("Meta.__instancecheck__")
        __subclasscheck__ = _forbidden("Meta.__subclasscheck__")

    class Proxy:
        def __getattr__(self, name: str) -> Any:
            called.append(name)
            raise KeyboardInterrupt

    class Strange(Mapping[str, int]):
        __getitem__ = _forbidden("getitem")
        __iter__ = _forbidden("iter")
        __len__ = _forbidden("len")

    class Zone(datetime.tzinfo):
        utcoffset = dst = tzname = _forbidden("utcoffset")

    class Overrides(BaseModel):
        name: str = "a"

        def model_dump(self, **_options: Any) -> dict[str, Any]:
            return dict(_forbidden("model_dump")())

        def __repr__(self) -> str:
            return str(_forbidden("repr")())

        @computed_field  # type: ignore[prop-decorator]
        @property
        def slow(self) -> int:
            return int(_forbidden("computed")())

        @field_serializer("name")
        def written(self, value: str) -> str:
            return str(_forbidden("serializer")(value))

    return {
        "object": object.__new__(hostile()),
        "metaclass": object.__new__(cast(Any, type.__new__(Meta, "Odd", (), {}))),
        "proxy": Proxy(),
        "mapping": Strange(),
        "dict": hostile(dict)({"a": 1}),
        "list": hostile(list)([1]),
        "tuple": tuple.__new__(hostile(tuple), (1,)),
        "str": str.__new__(hostile(str), "text"),
        "bytes": bytes.__new__(hostile(bytes), b"text"),
        "int": int.__new__(hostile(int), 7),
        "float": float.__new__(hostile(float), 1.5),
        "set": set.__new__(hostile(set)),
        "deque": hostile(deque)([1]),
        "datetime": datetime.datetime(2026, 1, 1, tzinfo=Zone()),
        "userdict": UserDict({"a": 1}),
        "exception": hostile(ValueError)("no"),
        "exception of an object": ValueError(object.__new__(hostile())),
        "model": Overrides(),
        "magic mock": MagicMock(),
        "mock": Mock(),
        "mock of a dict": Mock(spec=dict),
        "mock of a class": MagicMock(spec=BaseModel),
        "async mock": AsyncMock(),
    }


# Created in the tests: a class that forbids ``__getattribute__`` cannot be a test parameter.
KINDS_OF_VALUES = tuple(hostile_values())


@pytest.mark.parametrize("kind", KINDS_OF_VALUES)
def test_nothing_of_a_value_is_called(kind: str) -> None:
    """As a value, in a list, in a dictionary and as its key:

    recorded, and no method, property or hook was called.
    """
    value = hostile_values()[kind]
    for outer in (value, [value], {"a": value}, {"a": [value, {"b": value}]}, (value, 1)):
        text, _ = to_text(outer, LIMIT)
        assert isinstance(text, str)
        assert len(text) < 2_000
        assert "called" not in text
    assert label(value, 100)
    assert shown(value)
    assert field_of(value, "nothing") is None


@pytest.mark.parametrize("kind", KINDS_OF_VALUES)
def test_wherever_a_program_hands_it_over(kind: str) -> None:
    """In every place that takes a value nothing is called, nothing leaves, and the step is
    recorded.
    """
    value = hostile_values()[kind]
    with traced() as made, made.tracer.run() as run:
        with run.tool("t", input=value, attributes={"a": value}) as step:
            step.set_output(value)
            step.set_attribute("b", value)
            step.set_documents([value, {"content": value, "id": value, "score": value}])
            step.set_error(value)
        with run.llm(
            "m", model=value, provider=value, reserve_usd=value, attempt=value, retry_of=value
        ) as step:
            step.set_input(value)
            step.set_cost(value)
            step.set_usage(input_tokens=value, output_tokens=value)
            step.set_model(value, value)
            step.set_documents(value)
            step.set_attributes(value)
            step.record_response(value)
        with run.run(
            "inner",
            task=value,
            session_id=value,
            budget=value,
            on_command=value,
            cancel_on_stop=value,
        ):
            pass
    assert {"t", "m", "inner"} <= set(made.ended)


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS_OF_VALUES if "mock" not in kind and kind != "object"]
)
def test_as_a_name(kind: str) -> None:
    """A step's name that is no text becomes one; what raises in ``__str__`` does not raise here."""
    value = hostile_values()[kind]
    with traced() as made, made.tracer.run() as run, run.tool(name=value):
        pass
    assert len(made.ended) == 2


def test_a_mock_makes_no_more_mocks() -> None:
    """Reading an answer or an input from a mock creates no children of it."""
    mock = MagicMock()
    with traced() as made, made.tracer.llm("plan", input=mock, model="gpt-4o") as step:
        step.record_response(mock)
        step.set_output({"client": mock})
    assert mock.mock_calls == []
    assert mock._mock_children == {}
    assert made.ended["plan"].output == '{"client":"<unittest.mock.MagicMock>"}'


class Blob:
    """Bigger than anything: a list whose items are never all read."""

    def __init__(self) -> None:
        self.name, self.size, self._hidden, self.inner = "blob", 3, "secret", [1]


HUGE: dict[str, Any] = {
    "text of 50 MB": "x" * 50_000_000,
    "texts of 1 MB": ["y" * 1_000_000] * 20,
    "wide text": "é" * 5_000_000,
    "deque": deque(range(1_000_000)),
    "array": array.array("d", bytes(8_000_000)),
    "dictionary": dict.fromkeys(range(1_000_000), 1),
    "dictionary of texts": {str(number): "z" * 50 for number in range(100_000)},
    "list": [1] * 1_000_000,
    "set": set(range(1_000_000)),
    "range": range(10**15),
    "bytes": b"\x00\xff" * 10_000_000,
    "utf-8": b"text " * 5_000_000,
    "bytearray": bytearray(20_000_000),
    "memoryview": memoryview(bytes(20_000_000)),
    "number": 7**1_000_000,
    "long key": {"k" * 10_000_000: 1},
    "wide tree": [[[[1] * 100] * 100] * 100] * 100,
    "deep": json.loads("[" * 900 + "]" * 900),
    "exception": ValueError("e" * 10_000_000),
}


@pytest.mark.parametrize("kind", list(HUGE))
def test_the_cost_is_bounded_by_what_is_kept(kind: str) -> None:
    """However big a value is, no more of it is read than a small multiple of the limit, and no more
    is kept.
    """
    reader = ValueReader()
    reader.plain(HUGE[kind], LIMIT)
    assert reader.visited <= LIMIT
    assert reader.characters <= 2 * LIMIT + 1_000
    text, size = to_text(HUGE[kind], LIMIT)
    assert len(text.encode()) <= LIMIT or HUGE[kind] is HUGE["wide text"]
    assert size is None or size > len(text)


def test_the_first_and_the_last_are_kept() -> None:
    """Of a conversation that is too long, of a text and of a dictionary:

    both ends, and how much is missing between.
    """
    talk = [
        {"role": "user", "content": f"message {number} " + "word " * 100} for number in range(500)
    ]
    kept = json.loads(to_text(talk, LIMIT)[0])
    assert kept[0] == talk[0]
    assert kept[-1] == talk[-1]
    assert sum(isinstance(item, str) for item in kept) == 1
    assert f"...[{500 - len(kept) + 1} items cut]..." in kept
    long = [
        {"role": "system", "content": "rules " * 50_000},
        *talk[:5],
        {"role": "user", "content": "and the question?"},
    ]
    kept = json.loads(to_text(long, LIMIT)[0])
    assert kept[1:] == long[1:]
    assert kept[0]["content"].startswith("rules rules")
    assert "characters cut]..." in kept[0]["content"]
    kept = json.loads(to_text({f"k{number}": "v" * 90 for number in range(1_000)}, LIMIT)[0])
    assert {"k0", "k999"} <= set(kept)
    text, size = to_text("begin " + "x " * 50_000 + "end", LIMIT)
    assert text.startswith("begin")
    assert text.endswith("end")
    assert size == 100_009


@pytest.mark.parametrize(
    "padding",
    ["A" * 4_400_000, "iVBORw0KGgoAAAANSUhEUgAAB9AAAA+gCAYAAAB8zKXPAAAAAXNSR0IArs4c6Q" * 70_000],
)
def test_a_question_after_an_image_is_kept(padding: str) -> None:
    """Data URLs and long base64 become their type and size, wherever they stand; the question stays
    whole.
    """
    # Base64 has groups of four characters.
    padding = padding[: len(padding) // 4 * 4]
    url = f"data:image/png;base64,{padding}"
    parts = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "What does it show?"},
    ]
    text, size = to_text([{"role": "user", "content": parts}], LIMIT)
    assert json.loads(text)[0]["content"][1] == parts[1]
    assert size is not None
    assert size > 4_000_000
    assert len(text) < 300
    assert "[image/png, " in text
    for whole in (f"{url} What does it show?", json.dumps(parts)):
        text, _ = to_text(whole, LIMIT)
        assert "What does it show?" in text
        assert "[image/png, " in text
        assert len(text) < 300


def test_embedded_files_by_type_and_size() -> None:
    """Base64 without a header is known by its signs, files in bytes by their first ones; ordinary
    texts stay as they are.
    """
    png = "iVBORw0KGgoAAAANSUhEUgAAB9AAAA+gCAYAAAB8zKXPAAAAAXNSR0IArs4c6QbTk9" * 60
    assert (
        to_text({"data": png}, LIMIT)[0] == f'{{"data":"[image/png, {len(png) * 3 // 4:,} bytes]"}}'
    )
    assert to_text(b"\x89PNG\r\n\x1a\n" + bytes(5_000), LIMIT)[0] == "[image/png, 5,008 bytes]"
    for text in (
        "word " * 600,
        "https://example.com/" + "path/" * 400,
        "0123456789abcdef" * 100,
        "a\n" * 900,
        "\n".join(f"ORD{number:05}xY" for number in range(300)),
    ):
        assert to_text(text, LIMIT)[0] == text


def test_a_secret_across_a_cut_is_gone() -> None:
    """A cut does not divide a word, and what remains of a private key is dropped."""
    for at in range(8_100, 8_300, 7):
        text, _ = to_text("w " * (at // 2) + "sk-" + "a1B2" * 50 + " x" * 20_000, LIMIT)
        assert "sk-" + "a1B2" * 50 in text or "a1B2" not in text
    key = (
        "-----BEGIN PRIVATE KEY-----\n"
        + "MIIEvQIBADANBgkqhkiG9w0B\n" * 800
        + "-----END PRIVATE KEY-----\n"
    )
    text, _ = to_text("w " * 15_000 + key + "end", LIMIT)
    assert "MIIE" not in text
    assert text.endswith("end")


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("\ud800", "?"),
        (b"raw", "raw"),
        (None, "null"),
        (7, "7"),
        (1.5, "1.5"),
        (("a", 1), '["a",1]'),
        (Blob, f"<class {__name__}.Blob>"),
    ],
)
def test_keys_are_cleaned_like_values(key: Any, text: str) -> None:
    """Surrogates, bytes, numbers, tuples and objects as keys; equal ones stay apart."""
    assert json.loads(to_text({key: 1, "b": [2]}, LIMIT)[0]) == {text: 1, "b": [2]}
    assert json.loads(to_text({Blob(): 1, Blob(): 2}, LIMIT)[0]).keys() == {
        f"<{__name__}.Blob name='blob' size=3>",
        f"<{__name__}.Blob name='blob' size=3> (2)",
    }


def test_the_size_of_a_long_key_is_recorded() -> None:
    """A key of a megabyte is cut like any text."""
    (key,) = json.loads(to_text({"k" * 1_000_000: 1}, LIMIT)[0])
    assert len(key) <= 256
    assert "99" in key
    assert "characters cut]..." in key


def test_objects_by_type_and_plain_attributes() -> None:
    """An object of the program's own: its type and public plain attributes, within bounds."""
    assert to_text(Blob(), LIMIT)[0] == f"\"<{__name__}.Blob name='blob' size=3>\""
    many = Blob()
    many.__dict__.update({f"field{number}": "v" * 1_000 for number in range(100)})
    # A hundred fields of 1,000 characters: the description is for a reader, not a copy.
    assert len(to_text(many, LIMIT)[0]) < 1_500


class Inner(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str
    hidden: str = Field(default="no", exclude=True)


class Fast(msgspec.Struct):
    a: int
    b: list[str]


class Slotted:
    __slots__ = ("a", "b")
    limits: ClassVar[dict[str, int]] = {"x": 1}

    def __init__(self) -> None:
        self.a = 1

    @property
    def computed(self) -> int:
        called.append("computed")
        return 1


def test_known_types() -> None:
    """Models with extra fields, root models and structs are written by their fields."""
    assert to_text(Inner(name="a", more=[1]), LIMIT)[0] == '{"name":"a","more":[1]}'
    assert to_text(RootModel[list[int]]([1, 2]), LIMIT)[0] == "[1,2]"
    assert to_text(Fast(1, ["x"]), LIMIT)[0] == '{"a":1,"b":["x"]}'
    assert to_text({"d": deque([1]), "r": range(3)}, LIMIT)[0] == '{"d":[1],"r":"range(0, 3)"}'
    assert (
        to_text([ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("::1")], LIMIT)[0]
        == '["10.0.0.1","::1"]'
    )
    assert to_text(datetime.timedelta(seconds=90), LIMIT)[0] == '"PT90S"'


def test_fields_are_read_and_never_computed() -> None:
    """A slot, a class's plain value and an attribute are found; a property is not."""
    assert [field_of(Slotted(), name) for name in ("a", "b", "limits", "computed")] == [
        1,
        None,
        {"x": 1},
        None,
    ]
    assert field_of(Inner(name="a", more=2), "more") == 2


class Deadline(Exception):
    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status

    def __str__(self) -> str:
        called.append("str")
        return "never"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("no"), "no"),
        (ValueError(), "ValueError"),
        (KeyError("k"), "'k'"),
        (ValueError("a", 2), "a, 2"),
        (FileNotFoundError(2, "No such file", "x.txt"), "[Errno 2] No such file: 'x.txt'"),
        (Deadline(504), "status=504"),
        (ValueError("e" * 100_000), None),
    ],
)
def test_the_text_of_an_exception(error: BaseException, text: str | None) -> None:
    """Its arguments, or its attributes; bounded, and without its ``__str__``."""
    message = message_of(error)
    assert len(message) <= 8_192
    assert text is None or message == text


def test_validation_errors_are_recorded() -> None:
    """A pydantic error names the fields, without the values that were given."""
    with pytest.raises(ValueError, match="name") as caught:
        Inner(name=["geheim"])
    message = message_of(caught.value)
    assert message.startswith("1 validation errors for Inner: name: ")
    assert "geheim" not in message


def test_arrays_and_tables() -> None:
    """Arrays by shape, type and first values; an array of objects does not call them."""
    numpy = pytest.importorskip("numpy")
    made = json.loads(
        to_text(numpy.arange(1_000_000, dtype="float32").reshape(1_000, 1_000), LIMIT)[0]
    )
    assert made == {
        "type": "numpy.ndarray",
        "shape": [1000, 1000],
        "dtype": "<f4",
        "first_values": [float(n) for n in range(16)],
    }
    assert to_text({"a": numpy.float32(1.5), "b": numpy.int64(3)}, LIMIT)[0] == '{"a":1.5,"b":3}'
    # repr of such an array calls the objects' own code, which may do anything.
    objects = numpy.empty(1, dtype=object)
    objects[0] = object.__new__(hostile())
    assert "Hostile" in to_text(objects, LIMIT)[0]


def test_a_value_that_changes_meanwhile() -> None:
    """A container that another thread changes while it is read is recorded by its type."""
    items = [dict.fromkeys(range(10)) for _ in range(3)]
    reader = ValueReader()

    class Grows(dict[str, int]):
        pass

    growing = Grows(a=1, b=2)
    front = iter(growing.items())
    growing["c"] = 3
    with pytest.raises(RuntimeError):
        reader.mapping(3, front, None, 100, 0)
    assert json.loads(to_text(items, LIMIT)[0])


def test_near_the_end_of_the_stack() -> None:
    """Where hardly any frames are left, a step is recorded or not, and nothing is raised."""

    def deep(left: int) -> None:
        if left:
            return deep(left - 1)
        to_text({"a": [{"b": Blob()}]}, LIMIT)
        return None

    for left in range(sys.getrecursionlimit() - 120, sys.getrecursionlimit() - 60, 5):
        # The function's own, where not even its call fits.
        with contextlib.suppress(RecursionError):
            deep(left)
