"""Hypothesis strategies that make hostile things from good ones: messages field by field, files byte by byte."""

from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from knock import CANARY

_BASE_EXAMPLES = 100  # of the profile that `make test` runs with


def scaled(examples: int) -> int:
    """Return how many examples the profile in force makes of so many."""
    return max(1, examples * settings.default.max_examples // _BASE_EXAMPLES)


def fuzzed(examples: int) -> settings:
    """Return the settings of a test that sends so many examples, times the profile in force, to a server."""
    quiet = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]
    return settings(max_examples=scaled(examples), deadline=None, suppress_health_check=quiet)


def _integers(low: int, high: int) -> st.SearchStrategy[int]:
    edges = {low, high, low + 1, high - 1, 0, 1, 2, 3, 2**31 - 1, 2**31}
    return st.sampled_from(sorted(edge for edge in edges if low <= edge <= high)) | st.integers(low, high)


TEXTS = st.sampled_from(
    [
        "",
        " ",
        "\0",
        CANARY,
        f"{CANARY}\r\n\x1b[31m",
        "\u202e\u0301\ufeff\U0001f468\u200d\U0001f469",
        "\U0010ffff" * 3,
        "a " * 5000,
        "{}%s%n${jndi:ldap://x}../../etc/passwd",
    ]
) | st.text(max_size=40)
DOUBLES = (
    st.sampled_from(
        [0.0, -0.0, 5e-324, 1e-45, 1.0, 1e38, 3.5e38, 1.8e308, -1.0, float("inf"), -float("inf"), float("nan")]
    )
    | st.floats()
)

_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.CPPTYPE_INT32: _integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: _integers(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: _integers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: _integers(0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_DOUBLE: DOUBLES,
    FieldDescriptor.CPPTYPE_FLOAT: st.sampled_from([0.0, -1.0, 1e-45, float("inf"), float("nan")])
    | st.floats(width=32),
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_ENUM: st.integers(0, 5) | st.sampled_from([-1, 9, 2**31 - 1, -(2**31)]),
}


@st.composite
def mutants(draw: Any, good: Callable[[], Message], *, most: int = 3) -> Message:
    """A good message with up to so many of its fields, at any depth, given other values or left out."""
    message = good()
    for _ in range(draw(st.integers(0, most))):
        _mutate(draw, message)
    return message


@st.composite
def damaged(draw: Any, encoded: bytes, *, most: int = 4) -> bytes:
    """Bytes cut, overwritten, grown, repeated or robbed of a part at up to so many places."""
    body = bytearray(encoded)
    for _ in range(draw(st.integers(1, most))):
        if not body:
            break
        # headers stand at the start, where most can go wrong
        place = draw(st.integers(0, len(body) - 1) | st.integers(0, min(len(body), 400) - 1))
        length = draw(st.integers(1, 16))
        match draw(st.sampled_from(["overwrite", "cut", "insert", "repeat", "delete"])):
            case "overwrite":
                fresh = draw(st.binary(min_size=1, max_size=8) | st.sampled_from([b"\0", b"\xff" * 4, b"\x7f\xff"]))
                body[place : place + len(fresh)] = fresh
            case "cut":
                del body[place:]
            case "insert":
                body[place:place] = draw(st.binary(min_size=1, max_size=16))
            case "repeat":
                body[place:place] = body[place : place + length]
            case "delete":
                del body[place : place + length]
    return bytes(body)


def _mutate(draw: Any, message: Message) -> None:
    fields = list(message.DESCRIPTOR.fields)
    if not fields:
        return
    field = draw(st.sampled_from(fields))
    if draw(st.integers(0, 9)) == 0:
        message.ClearField(field.name)
    elif _is_map(field):
        _mutate_map(draw, getattr(message, field.name), field)
    elif field.is_repeated:
        _mutate_list(draw, getattr(message, field.name), field)
    elif field.message_type is not None:
        getattr(message, field.name).SetInParent()
        _mutate(draw, getattr(message, field.name))
    else:
        setattr(message, field.name, draw(_scalars(field)))


def _mutate_list(draw: Any, entries: Any, field: FieldDescriptor) -> None:
    if draw(st.booleans()):
        del entries[:]
    for _ in range(draw(st.integers(0, 3))):
        if field.message_type is None:
            entries.append(draw(_scalars(field)))
        elif entries and draw(st.booleans()):
            _mutate(draw, entries[draw(st.integers(0, len(entries) - 1))])
        else:
            _mutate(draw, entries.add())


def _mutate_map(draw: Any, entries: Any, field: FieldDescriptor) -> None:
    key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
    chosen = draw(_scalars(key))
    if value.message_type is None:
        entries[chosen] = draw(_scalars(value))
    else:
        _mutate(draw, entries[chosen])


def _scalars(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return st.binary(max_size=64) if field.type == FieldDescriptor.TYPE_BYTES else TEXTS
    return _SCALARS[field.cpp_type]


def _is_map(field: FieldDescriptor) -> bool:
    return bool(field.message_type and field.message_type.GetOptions().map_entry)
