"""What the Redis broker writes down, and reads back: also what other releases, or somebody's hands, have left there."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec import msgpack
from msgspec.structs import replace

from jobqueue_core import lifecycle
from jobqueue_core.errors import IncompatibleData
from jobqueue_core.job import DeadReason, JobState, Priority, decode_job
from jobqueue_core.testing.factories import dead_job, new_job
from jobqueue_redis.entries import Entry, read_entry
from jobqueue_redis.keys import Place
from jobqueue_redis.settling import End
from jobqueue_redis.values import EPOCH, absolute, extra, keep_until, read_look, read_value, rest_of

_FIXTURE = Path(__file__).parent.parent / "fixtures" / "redis-format-1.json"
_NOW = datetime(2030, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
_NOW_US = (_NOW - EPOCH) // timedelta(microseconds=1)
_HOUR = timedelta(hours=1)


def value_of(rest: bytes) -> bytes:
    """A value as a script makes it at ``_NOW``."""
    return _NOW_US.to_bytes(8, "big") + rest


def entry(value: bytes, field: bytes = b"1") -> Entry:
    return Entry("s2default 1-1", "worker-1", 30_000, _NOW, field, value)


@pytest.mark.parametrize("keeps", [False, True])
def test_a_value_comes_back_with_its_instants_at_the_time_it_was_written(*, keeps: bool) -> None:
    new = new_job(delay=_HOUR, expires_in=2 * _HOUR, unique_key="one", metadata={"a": "b"}, payload_json=b'{"n":12345678901234567890123}')
    job, kept = read_value(value_of(rest_of(lifecycle.accept(new, EPOCH), keeps=keeps)))
    assert (job, kept) == (lifecycle.accept(new, _NOW), keeps)


def test_instants_that_are_known_stay_as_they_are() -> None:
    job = dead_job()
    assert absolute(job, _NOW_US) is job


@pytest.mark.parametrize(
    "fields", [("unknown_since",), ("completed_at",), ("created_at", "scheduled_at", "completed_at", "expires_at", "unknown_since")]
)
def test_each_instant_may_be_relative(fields: tuple[str, ...]) -> None:
    job = dead_job(**dict.fromkeys(fields, EPOCH + _HOUR))
    shown = absolute(job, _NOW_US)
    assert [getattr(shown, name) for name in fields] == [_NOW + _HOUR] * len(fields)


@pytest.mark.parametrize("place", [Place(letter, priority, queue) for letter in "srudt" for priority in Priority for queue in ("a", "a.b-c_d", "9")])
def test_a_place_comes_back_from_its_code(place: Place) -> None:
    assert Place.from_code(place.code) == place


@pytest.mark.parametrize("code", ["", "s", "s2", "x2default", "s4default", "2sdefault"])
def test_what_is_no_code_is_refused(code: str) -> None:
    with pytest.raises(ValueError, match="not a place"):
        Place.from_code(code)


@pytest.mark.parametrize(("letter", "state"), [("d", JobState.SCHEDULED), ("t", JobState.RETRYING)], ids=["scheduled", "retrying"])
def test_the_place_of_a_delayed_job_tells_its_state(letter: str, state: JobState) -> None:
    job = lifecycle.accept(new_job(), EPOCH)
    known = read_look(job.id, [b"\x01d" + letter.encode() + b"2default " + value_of(rest_of(job, keeps=False))])
    assert known is not None
    assert (known.job.state, known.job.id, known.place) == (state, job.id, Place(letter, Priority.MEDIUM, "default"))


def test_a_job_in_a_stream_is_queued_whatever_it_was_before() -> None:
    job = replace(lifecycle.accept(new_job(), EPOCH), state=JobState.RETRYING)
    known = read_look(job.id, [b"\x01wr0default 5-1", [b"1", value_of(rest_of(job, keeps=True))]])
    assert known is not None
    assert (known.job.state, known.token, known.keeps, known.readable) == (JobState.QUEUED, "r0default 5-1", True, True)


def test_a_record_without_its_entry_is_shown_with_what_it_tells() -> None:
    known = read_look("01a20c76-5453-70df-8d52-6e6630b860dc", [b"\x01wr0letters 5-1", []])
    assert known is not None
    assert (known.job.queue, known.job.priority, known.readable) == ("letters", Priority.CRITICAL, False)
    assert known.job.last_error == "its entry is missing from the stream"


def test_an_unknown_job_is_none() -> None:
    assert read_look("x", None) is None


@pytest.mark.parametrize("kind", ["w", "d", "f"])
def test_a_record_cut_short_anywhere_is_shown_as_unreadable_or_read(kind: str) -> None:
    job = dead_job()
    record = {
        "w": b"\x01ws2default 5-1",
        "d": b"\x01dt2default " + value_of(rest_of(job, keeps=False)),
        "f": b"\x01fd1:default " + value_of(rest_of(job, keeps=False)),
    }[kind]
    for length in range(1, len(record)):
        known = read_look(job.id, [record[:length], [b"1", value_of(rest_of(job, keeps=False))[:length]]])
        assert known is not None
        assert known.job.id == job.id


def test_a_record_of_a_newer_release_is_refused() -> None:
    with pytest.raises(IncompatibleData, match=r"format 2.*upgrade"):
        read_look("x", [b"\x02whatever"])
    newer = bytearray(value_of(rest_of(dead_job(), keeps=False)))
    newer[9] = 2
    with pytest.raises(IncompatibleData, match=r"format 2.*upgrade"):
        read_value(bytes(newer))


def test_an_entry_of_a_newer_release_is_refused_and_never_buried() -> None:
    with pytest.raises(IncompatibleData, match=r"format 2.*upgrade"):
        read_entry(entry(b"anything", field=b"2"), _NOW)


@pytest.mark.parametrize("field", [b"1", b"?", b"payload", b"0", b""])
def test_garbage_becomes_a_dead_letter_with_its_bytes(field: bytes) -> None:
    found = read_entry(entry(b"garbage \xff\x00", field=field), _NOW)
    assert isinstance(found, End)
    assert found.dead_letter is not None
    assert (found.dead_letter.raw, found.job.state, found.job.dead_reason) == (b"garbage \xff\x00", JobState.DEAD, DeadReason.UNDECODABLE)
    assert (found.job.queue, found.job.completed_at) == ("default", _NOW)


def test_a_record_is_kept_as_long_as_its_keys_may_be_asked_for() -> None:
    plain, unique = dead_job(created_at=_NOW), dead_job(created_at=_NOW, unique_key="one", unique_for=48 * _HOUR)
    day = 24 * 3_600_000_000
    assert keep_until(plain, keeps=False) is None
    assert keep_until(plain, keeps=True) == _NOW_US + day
    assert keep_until(unique, keeps=True) == _NOW_US + 2 * day


def test_what_finishing_needs_is_said_only_when_there_is_something_to_say() -> None:
    job = dead_job(created_at=_NOW, deaths=0)
    assert extra(job, keeps=False) == b""
    assert msgpack.decode(extra(replace(job, deaths=3, unique_key="one"), keeps=False)) == {"deaths": 3, "unique": "one"}


def test_records_of_format_1_are_read_as_they_were_meant() -> None:
    recorded = json.loads(_FIXTURE.read_text(encoding="utf-8"))
    assert {one["name"] for one in recorded} >= {"queued", "processing", "scheduled", "retrying", "completed", "dead", "cancelled", "given back"}
    for one in recorded:
        known = read_look(one["id"], _decoded(one["look"]))
        assert known is not None
        assert known.readable, one["name"]
        assert known.job == decode_job(base64.b64decode(one["job"])), one["name"]
        assert known.job.state == one["state"], one["name"]
        assert known.keeps == one["keeps"], one["name"]


def _decoded(look: list[object]) -> list[object]:
    return [base64.b64decode(part) if isinstance(part, str) else _decoded(part) if isinstance(part, list) else part for part in look]
