"""The job: its names, its ids, and the bytes in which it is written down for ever."""

from __future__ import annotations

import contextlib
import re
import string
import uuid
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqueue_core import InvalidJob, Job, JobState, Priority
from jobqueue_core.errors import IncompatibleData
from jobqueue_core.job import (
    WIRE_FORMAT,
    DeadReason,
    Progress,
    check_job_id,
    check_job_type,
    check_queue,
    decode_job,
    encode_job,
    new_job_id,
    rfc3339,
)

FIXTURES = Path(__file__).parents[1] / "fixtures"
NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
FULL = Job(
    id="01890a5d-ac96-774b-bcce-b302099a8057",
    type="email.send",
    payload_json=b'{"to":"a@b.c","n":1267650600228229401496703205376,"\\u0000":[1.50,null]}',
    queue="mail",
    priority=Priority.HIGH,
    state=JobState.DEAD,
    created_at=NOON,
    scheduled_at=NOON + timedelta(microseconds=1),
    started_at=NOON + timedelta(seconds=1),
    completed_at=NOON + timedelta(seconds=2),
    expires_at=NOON + timedelta(days=1),
    max_retries=5,
    timeout=timedelta(seconds=30),
    retry_count=4,
    retry_delay=timedelta(milliseconds=1500),
    run=7,
    crashes=2,
    deaths=3,
    last_error="ValueError: ü ✓",
    dead_reason=DeadReason.RETRIES_EXHAUSTED,
    metadata={"tenant": "acme"},
    headers={"traceparent": "00-1-2-01"},
    result_json=b'{"ok":true}',
    progress=Progress(0.25, "a quarter"),
    unique_key="welcome:42",
    unique_for=timedelta(hours=1),
    worker_id="worker-1",
    cancel_requested=True,
    unknown_since=NOON - timedelta(days=1),
    archived=False,
)

instants = st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(9000, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds the zone
durations = st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=36_500))
texts = st.text(max_size=20)
counts = st.integers(0, 2**40)
jobs = st.builds(
    Job,
    id=st.uuids().map(str),
    type=texts,
    payload_json=st.binary(max_size=50),
    queue=texts,
    priority=st.sampled_from(Priority),
    state=st.sampled_from(JobState),
    created_at=instants,
    scheduled_at=st.none() | instants,
    expires_at=st.none() | instants,
    max_retries=st.none() | counts,
    timeout=st.none() | durations,
    retry_count=counts,
    retry_delay=st.none() | durations,
    run=counts,
    last_error=st.none() | texts,
    dead_reason=st.none() | st.sampled_from(DeadReason),
    metadata=st.dictionaries(texts, texts, max_size=3),
    result_json=st.none() | st.binary(max_size=50),
    progress=st.none() | st.builds(Progress, st.floats(0, 1), st.none() | texts),
    unique_key=st.none() | texts,
    cancel_requested=st.booleans(),
    unknown_since=st.none() | instants,
)


@given(jobs)
def test_what_is_written_down_is_read_back_unchanged(job: Job) -> None:
    assert decode_job(encode_job(job)) == job


def test_a_record_that_was_written_in_format_1_is_readable_for_ever() -> None:
    # The file was written by the release that introduced the format. Never write it anew: change the code instead.
    assert decode_job((FIXTURES / "job-format-1.bin").read_bytes()) == FULL


def test_the_first_byte_of_a_record_is_the_format_number() -> None:
    assert encode_job(FULL)[0] == WIRE_FORMAT


def test_a_record_without_the_newest_fields_gets_their_defaults() -> None:
    fields = msgspec.msgpack.decode(encode_job(FULL)[1:])
    assert decode_job(b"\x01" + msgspec.msgpack.encode(fields[:7])).max_retries is None


def test_a_record_with_fields_that_a_later_release_has_added_is_read_without_them() -> None:
    fields = msgspec.msgpack.decode(encode_job(FULL)[1:])
    assert decode_job(b"\x01" + msgspec.msgpack.encode([*fields, "new", 1])) == FULL


@pytest.mark.parametrize("number", [WIRE_FORMAT + 1, 255])
def test_a_record_of_a_newer_format_is_refused_and_says_what_to_do(number: int) -> None:
    with pytest.raises(IncompatibleData, match=rf"format {number}.*upgrade"):
        decode_job(bytes([number]) + encode_job(FULL)[1:])


@pytest.mark.parametrize("data", [b"", b"\x00\x90", b"\x01", b"\x01\xc1", b"\x01\x90", encode_job(FULL)[:40], b"\x01" + b"\x91" * 100_000])
def test_bytes_that_are_no_job_are_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a job record"):
        decode_job(data)


@given(st.binary(max_size=300))
def test_no_bytes_make_decoding_fail_in_another_way(data: bytes) -> None:
    with contextlib.suppress(ValueError, IncompatibleData):
        decode_job(data)


# Names ---------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "email.send", "A-b_c:d.9", "9lives", "x" * 128])
def test_a_job_type_may_be(name: str) -> None:
    assert check_job_type(name) == name


@pytest.mark.parametrize("name", ["", ".a", "-a", "a b", "a\n", "é", "x" * 129, "a/b", "٣", None, 3, b"a"])
def test_a_job_type_may_not_be(name: Any) -> None:
    with pytest.raises(InvalidJob, match="job type") as caught:
        check_job_type(name, "jobs[2].type")
    assert caught.value.field == "jobs[2].type"


@pytest.mark.parametrize("name", ["", "*", "a:b", "a\n", "x" * 101, "{a}", None, ["a"]])
def test_a_queue_may_not_be(name: Any) -> None:
    with pytest.raises(InvalidJob, match="queue name") as caught:
        check_queue(name)
    assert caught.value.field == "queue"


def test_an_error_about_a_long_name_is_short() -> None:
    with pytest.raises(InvalidJob) as caught:
        check_queue("x" * 1_000_000)
    assert len(str(caught.value)) < 300


# Ids -----------------------------------------------------------------------------------------------------------------------------------


@given(st.uuids())
def test_any_uuid_is_an_id_in_its_canonical_form(one: uuid.UUID) -> None:
    assert check_job_id(one) == check_job_id(str(one).upper()) == check_job_id(one.hex) == str(one)


NEARLY = [
    "{01890a5dac96774bbcceb302099a8057}--",
    "urn:uuid:01890a5dac96774bbcceb30209",
    "01890a5dac96-774b-bcce-b302099a80-57",
    "0x890a5dac96774bbcceb302099a8057ab",
    "01890a5d-ac96-774b-bcce-b302099a8057\n",
    "\u0660" * 32,
]
"""What ``uuid.UUID`` takes, and things like it."""


@pytest.mark.parametrize("given_id", ["", "x", "1" * 31, "g" * 32, 7, None, b"0" * 32, "0" * 1_000_000, *NEARLY])
def test_what_is_no_uuid_is_no_id(given_id: Any) -> None:
    with pytest.raises(InvalidJob) as caught:
        check_job_id(given_id)
    assert caught.value.field == "id"


def test_ids_made_here_are_version_7_ordered_by_time_and_name_their_queue() -> None:
    before = datetime.now(UTC)
    made = uuid.UUID(new_job_id("mail"))
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 >= int(before.timestamp() * 1000)
    assert made.int >> 64 & 0xFFF == zlib.crc32(b"mail") & 0xFFF


def test_ids_made_here_do_not_collide() -> None:
    assert len({new_job_id("default") for _ in range(20_000)}) == 20_000


# Shown ---------------------------------------------------------------------------------------------------------------------------------


def test_a_job_is_shown_with_json_values_only() -> None:
    shown = FULL.to_dict()
    assert msgspec.json.decode(msgspec.json.encode(shown)) == shown
    assert shown["timeout"] == "30s"
    assert shown["retry_delay"] == "1s500ms"
    assert shown["created_at"] == "2030-01-01T12:00:00Z"
    assert shown["payload"]["to"] == "a@b.c"
    assert (shown["attempt"], shown["priority"], shown["state"]) == (5, "high", "dead")


def test_payload_and_result_of_an_archived_job_are_none() -> None:
    archived = msgspec.structs.replace(FULL, payload_json=b"", result_json=None, archived=True)
    assert (archived.payload, archived.result, archived.to_dict()["archived"]) == (None, None, True)


def test_priorities_are_ranked_by_urgency() -> None:
    assert [one.rank for one in (Priority.CRITICAL, Priority.HIGH, Priority.MEDIUM, Priority.LOW)] == [0, 1, 2, 3]


@given(instants)
def test_times_are_shown_in_rfc_3339(instant: datetime) -> None:
    text = rfc3339(instant)
    assert text is not None
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z", text)
    assert datetime.fromisoformat(text) == instant


def test_the_characters_of_names_are_plain_ascii() -> None:
    allowed = set(string.ascii_letters + string.digits + "_.:-")
    accepted = {one for one in map(chr, range(0x3000)) if _accepts(one)}
    assert accepted == allowed


def _accepts(character: str) -> bool:
    try:
        check_job_type(f"a{character}")
    except InvalidJob:
        return False
    return True
