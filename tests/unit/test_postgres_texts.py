"""What a column of PostgreSQL cannot hold is written so that it comes back."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobqueue_core.testing.storage_suite.arrangement import NASTY
from jobqueue_postgres.texts import escaped, indexed, payload_columns, payload_of, unescaped

_TEXTS = st.text() | st.text(alphabet="\0\x100a\n", max_size=12)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(_TEXTS)
@example("\x10" + "0")
@example("\x10\0\x10")
def test_any_text_comes_back_and_is_written_without_nul(text: str) -> None:
    written = escaped(text)
    assert "\0" not in written
    assert unescaped(written) == text


@pytest.mark.parametrize("text", NASTY, ids=ascii)
def test_what_has_no_nul_is_written_as_it_is(text: str) -> None:
    assert unescaped(escaped(text)) == text
    if "\0" not in text:
        assert escaped(text) == text


def test_none_stays_none() -> None:
    assert escaped(None) is unescaped(None) is indexed(None) is None


def test_half_a_surrogate_pair_becomes_a_question_mark() -> None:
    assert escaped("a\ud800b\0") == "a?b\x100"


def test_what_someone_wrote_by_hand_is_read_as_it_stands() -> None:
    assert unescaped("\x10") == "\x10"
    assert unescaped("\x10a\x10") == "\x10a\x10"


@given(_TEXTS, _TEXTS)
@example("a" * 500 + "\0", "a" * 500 + "\x10" + "0")
@example("😀" * 500, "😀" * 501)
def test_two_names_are_two_in_an_index_and_none_is_too_long_for_it(one: str, other: str) -> None:
    assert (indexed(one) == indexed(other)) == (one == other)
    assert len(indexed(one).encode()) <= 500


@pytest.mark.parametrize("name", ["a" * 128, "report.make:v2-1", "\0" * 250], ids=ascii)
def test_a_name_of_legal_length_is_written_whole(name: str) -> None:
    assert indexed(name) == escaped(name)


@given(st.binary())
def test_any_bytes_come_back_as_a_payload(payload: bytes) -> None:
    assert payload_of(*payload_columns(payload)) == payload


@given(_JSON, st.sampled_from([None, 2]), st.booleans())
def test_a_payload_that_is_json_stands_as_such_in_its_column(value: object, indent: int | None, ensure_ascii: bool) -> None:
    payload = json.dumps(value, indent=indent, ensure_ascii=ensure_ascii).encode()
    text, raw = payload_columns(payload)
    # Numbers beyond a double's range and 64 bits may stand in either.
    assert (text == payload.decode() and raw is None) or (text is None and raw == payload)
    if isinstance(value, str):
        assert text is not None


@pytest.mark.parametrize(
    "payload", [b"", b"\xff", b"{", b"\0", b"nan", b'"\x01"', b'"\xed\xa0\x80"', b"[" * 5_000 + b"]" * 5_000], ids=lambda one: repr(one)[:20]
)
def test_a_payload_that_is_no_json_stands_in_the_other_column(payload: bytes) -> None:
    assert payload_columns(payload) == (None, payload)
