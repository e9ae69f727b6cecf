"""What may be in a payload, a result and metadata."""

from __future__ import annotations

import collections
import dataclasses
import enum
import math
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqueue_core import InvalidJob, InvalidPayload
from jobqueue_core.payload import MAX_DEPTH, MAX_RESULT, check_metadata, decode_json, encodable, encode_payload, encode_result

MIB = 1 << 20


@attrs.define
class AttrsPayload:
    x: Any = 0


@dataclasses.dataclass
class DataPayload:
    x: Any = 0


class StructPayload(msgspec.Struct):
    x: Any = 0


class Color(enum.StrEnum):
    RED = "red"


Point = collections.namedtuple("Point", "x y")  # noqa: PYI024 - what a caller may have

CLASSES = [AttrsPayload, DataPayload, StructPayload]
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**1000), 2**1000)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), inner, max_size=4),
    max_leaves=20,
)
anything = st.recursive(
    st.none()
    | st.floats()
    | st.text()
    | st.binary()
    | st.complex_numbers()
    | st.integers()
    | st.datetimes()
    | st.decimals()
    | st.sampled_from([object(), ..., int]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.integers() | st.none(), inner, max_size=3)
        | st.builds(AttrsPayload, inner)
        | st.builds(DataPayload, inner)
        | st.builds(StructPayload, inner)
        | st.tuples(inner, inner)
    ),
    max_leaves=10,
)


def encode(value: object, limit: int = MIB) -> bytes:
    return encode_payload(value, limit=limit)


def nested(depth: int, innermost: object = 0) -> object:
    value = innermost
    for _ in range(depth):
        value = [value]
    return value


@given(json_values)
def test_every_json_value_comes_back_as_it_was(value: object) -> None:
    assert decode_json(encode(value)) == value


@given(anything)
def test_whatever_is_given_is_encoded_or_refused_with_its_path(value: object) -> None:
    try:
        data = encode(value)
    except InvalidPayload as error:
        assert error.field.startswith("payload")
    else:
        decode_json(data)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("wrap", [lambda x: {"x": x}, *CLASSES, lambda x: {"x": x, "other": AttrsPayload()}])
def test_numbers_that_json_does_not_have_are_refused_by_their_path(wrap: Any, number: float) -> None:
    with pytest.raises(InvalidPayload, match="not a JSON number") as caught:
        encode(wrap(number))
    assert caught.value.field == "payload.x"


def test_the_path_leads_through_lists_and_objects() -> None:
    with pytest.raises(InvalidPayload) as caught:
        encode({"items": [1, {"count": math.nan}]})
    assert caught.value.field == "payload.items[1].count"


def test_nesting_up_to_the_limit_is_allowed_and_one_more_is_not() -> None:
    assert decode_json(encode(nested(MAX_DEPTH))) == nested(MAX_DEPTH)
    with pytest.raises(InvalidPayload, match="nested deeper than 64"):
        encode(nested(MAX_DEPTH + 1))


@pytest.mark.parametrize("depth", [100, 10_000, 200_000])
@pytest.mark.parametrize("wrap", [lambda x: x, *CLASSES])
def test_deep_nesting_is_refused_and_never_a_recursion_error(wrap: Any, depth: int) -> None:
    with pytest.raises(InvalidPayload, match="nested deeper than 64"):
        encode(wrap(nested(depth)))


@pytest.mark.parametrize("kind", CLASSES)
def test_a_long_chain_of_instances_is_refused(kind: Any) -> None:
    value = kind()
    for _ in range(10_000):
        value = kind(value)
    with pytest.raises(InvalidPayload, match="nested deeper than 64"):
        encode(value)


def test_a_value_that_holds_itself_is_refused() -> None:
    loop: list[object] = []
    loop.append(loop)
    instance = AttrsPayload()
    instance.x = instance
    for value in (loop, instance, {"x": loop}):
        with pytest.raises(InvalidPayload, match="nested deeper than 64"):
            encode(value)


def test_deep_json_text_is_no_recursion_error_either() -> None:
    with pytest.raises(InvalidPayload, match="nested deeper"):
        decode_json(b"[" * 200_000 + b"]" * 200_000)


@pytest.mark.parametrize("integer", [2**63, 2**64, -(2**64), 2**1023])
def test_big_integers_keep_every_digit(integer: int) -> None:
    assert decode_json(encode({"n": integer})) == {"n": integer}


@pytest.mark.parametrize("integer", [2**1024, -(2**5000)])
@pytest.mark.parametrize("wrap", [lambda x: {"x": x}, *CLASSES])
def test_integers_beyond_all_readers_are_refused(wrap: Any, integer: int) -> None:
    with pytest.raises(InvalidPayload, match="more than 1024 bits") as caught:
        encode(wrap(integer))
    assert caught.value.field == "payload.x"


@pytest.mark.parametrize("value", ["\ud800", {"\udcff": 1}, ["ok", "\udfff"], AttrsPayload("\ud800")])
def test_half_characters_are_refused(value: object) -> None:
    with pytest.raises(InvalidPayload):
        encode(value)


@pytest.mark.parametrize("key", [1, None, True, 1.5, (1, 2)])
def test_keys_that_are_no_strings_are_refused(key: object) -> None:
    with pytest.raises(InvalidPayload):
        encode({"outer": {key: 1}})


def test_a_payload_of_exactly_the_limit_is_taken_and_one_byte_more_is_not() -> None:
    assert len(encode("x" * (MIB - 2))) == MIB
    with pytest.raises(InvalidPayload, match=r"1048577 bytes.*1MiB"):
        encode("x" * (MIB - 1))


def test_the_limit_counts_bytes_and_not_characters() -> None:
    with pytest.raises(InvalidPayload):
        encode("é" * 10, limit=20)


@pytest.mark.parametrize("kind", CLASSES)
def test_instances_become_objects(kind: Any) -> None:
    assert decode_json(encode(kind(kind("a")))) == {"x": {"x": "a"}}


def test_values_with_an_obvious_json_form_are_converted() -> None:
    given_value = {
        "when": datetime(2030, 1, 1, tzinfo=UTC),
        "id": UUID(int=1),
        "color": Color.RED,
        "counter": collections.Counter("aab"),
        "point": Point(1, 2),
        "tuple": (1, 2),
    }
    assert decode_json(encode(given_value)) == {
        "when": "2030-01-01T00:00:00Z",
        "id": "00000000-0000-0000-0000-000000000001",
        "color": "red",
        "counter": {"a": 2, "b": 1},
        "point": [1, 2],
        "tuple": [1, 2],
    }


@pytest.mark.parametrize("value", [object(), 1j, iter([]), lambda: 0, int, ..., {"x": object()}])
def test_what_has_no_json_form_is_refused(value: object) -> None:
    with pytest.raises(InvalidPayload):
        encode(value)


def test_a_payload_keeps_the_order_of_its_keys() -> None:
    assert encode({"b": 1, "a": 2}) == b'{"b":1,"a":2}'


def test_a_result_is_checked_like_a_payload_under_its_own_name() -> None:
    assert encode_result(None) is None
    assert encode_result({"a": 1}) == b'{"a":1}'
    for wrong in (object(), "x" * (MAX_RESULT - 1), {"a": math.nan}):
        with pytest.raises(InvalidPayload) as caught:
            encode_result(wrong)
        assert caught.value.field.startswith("result")


@pytest.mark.parametrize("text", [b"", b"{", b"NaN", b'"\xff"', b"1 2", b"'a'", b'{"a":1,}'])
def test_text_that_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidPayload, match="is not JSON") as caught:
        decode_json(text, "body")
    assert caught.value.field == "body"


# Metadata ------------------------------------------------------------------------------------------------------------------------------


def test_metadata_is_copied() -> None:
    original = {"tenant": "acme", "a/b:c.d-e_f": ""}
    copy = check_metadata(original)
    assert copy == original
    assert copy is not original


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({"jobqueue.schedule": "x"}, "metadata.jobqueue.schedule"),
        ({"a": 1}, "metadata.a"),
        ({"a": None}, "metadata.a"),
        ({"a": "x" * 4097}, "metadata.a"),
        ({"a": "\ud800"}, "metadata.a"),
        ({1: "a"}, "metadata"),
        ({"": "a"}, "metadata"),
        ({"a b": "a"}, "metadata"),
        ({"x" * 129: "a"}, "metadata"),
        ([("a", "b")], "metadata"),
        ("a=b", "metadata"),
        ({f"k{n}": "" for n in range(65)}, "metadata"),
    ],
)
def test_metadata_that_is_not_legal_is_refused_by_its_path(metadata: Any, field: str) -> None:
    with pytest.raises(InvalidJob) as caught:
        check_metadata(metadata)
    assert caught.value.field == field


def test_our_own_prefix_is_allowed_to_ourselves() -> None:
    assert check_metadata({"jobqueue.schedule": "nightly"}, ours=True) == {"jobqueue.schedule": "nightly"}


@given(st.text(st.characters()))
def test_text_made_encodable_can_be_encoded_and_whole_text_stays_as_it_is(text: str) -> None:
    made = encodable(text)
    made.encode()
    if not any(0xD800 <= ord(one) <= 0xDFFF for one in text):
        assert made == text


@pytest.mark.parametrize("text", ['"\udcff"', "\udcff", "{"])
def test_text_that_is_no_json_is_refused_whatever_is_in_it(text: str) -> None:
    with pytest.raises(InvalidPayload, match="is not JSON"):
        decode_json(text)
