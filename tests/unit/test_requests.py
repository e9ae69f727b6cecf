"""From what a producer writes to what a broker is sent: every option is checked, and an error names the field."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import attrs
import pytest

from jobqueue_core import InvalidJob, InvalidPayload, Priority, handler
from jobqueue_core.job import Idempotency, NewJob
from jobqueue_core.requests import OPTION_NAMES, JobOptions, build_job

ID = "01890a5d-ac96-774b-bcce-b302099a8057"


class Declared:
    """A routing that knows what it is told."""

    def __init__(self, **routes: tuple[str | None, Priority | None]) -> None:
        self.routes = routes
        self.asked: list[str] = []

    def route(self, job_type: str) -> tuple[str | None, Priority | None]:
        self.asked.append(job_type)
        return self.routes.get(job_type, (None, None))


@attrs.define
class Payload:
    to: str


@handler("email.send", queue="mail", priority="high")
def send(payload: Payload) -> None: ...


@handler("plain")
def plain(payload: object) -> None: ...


def build(job_type: Any = "t", payload: Any = None, *, routing: Any = None, at: str = "", ours: bool = False, **options: Any) -> NewJob:
    return build_job(job_type, payload, JobOptions(**options), routing=routing or Declared(), max_payload=100, at=at, ours=ours)


def test_everything_that_is_given_arrives() -> None:
    job = build(
        payload={"a": 1},
        queue="mail",
        priority="critical",
        delay="1h30m",
        expires_in=timedelta(days=1),
        max_retries=0,
        timeout="500ms",
        unique_key="welcome:42",
        unique_for="2d",
        metadata={"tenant": "acme"},
        headers={"traceparent": "x"},
        id=ID.upper(),
        idempotency=Idempotency("key", "hash"),
    )
    assert job == NewJob(
        id=ID,
        type="t",
        payload_json=b'{"a":1}',
        queue="mail",
        priority=Priority.CRITICAL,
        delay=timedelta(minutes=90),
        expires_in=timedelta(days=1),
        max_retries=0,
        timeout=timedelta(milliseconds=500),
        unique_key="welcome:42",
        unique_for=timedelta(days=2),
        metadata={"tenant": "acme"},
        headers={"traceparent": "x"},
        idempotency=Idempotency("key", "hash"),
    )


def test_what_is_not_given_stays_unset_but_queue_and_priority() -> None:
    job = build()
    assert (job.queue, job.priority) == ("default", Priority.MEDIUM)
    assert (job.max_retries, job.timeout, job.delay, job.expires_in, job.unique_key, job.metadata) == (None, None, None, None, None, {})
    assert UUID(job.id).version == 7


def test_times_are_brought_to_utc() -> None:
    local = datetime(2030, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    job = build(scheduled_at=local, expires_at=local)
    assert job.scheduled_at == job.expires_at == datetime(2030, 1, 1, 10, tzinfo=UTC)
    assert job.scheduled_at is not None
    assert job.scheduled_at.tzinfo is UTC


def test_a_function_stands_for_its_type_and_an_instance_for_its_payload() -> None:
    job = build(send, Payload("a@b.c"))
    assert (job.type, job.payload_json, job.queue, job.priority) == ("email.send", b'{"to":"a@b.c"}', "mail", Priority.HIGH)


class Nowhere(datetime):
    """Says that it has a zone, and does not know it."""

    def utcoffset(self) -> None:
        return None


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"job_type": "no spaces"}, "type"),
    ({"job_type": ""}, "type"),
    ({"job_type": 3}, "type"),
    ({"job_type": None}, "type"),
    ({"job_type": lambda payload: payload}, "type"),
    ({"queue": "a:b"}, "queue"),
    ({"queue": ""}, "queue"),
    ({"queue": 1}, "queue"),
    ({"priority": "urgent"}, "priority"),
    ({"priority": 1}, "priority"),
    ({"priority": ["high"]}, "priority"),
    ({"priority": ""}, "priority"),
    ({"delay": "soon"}, "delay"),
    ({"delay": 30}, "delay"),
    ({"delay": timedelta(seconds=-1)}, "delay"),
    ({"delay": "101000d"}, "delay"),
    ({"delay": "9" * 5_000 + "s"}, "delay"),
    ({"scheduled_at": datetime(2030, 1, 1)}, "scheduled_at"),  # noqa: DTZ001 - what is tested
    ({"scheduled_at": Nowhere(2030, 1, 1, tzinfo=UTC)}, "scheduled_at"),
    ({"scheduled_at": "2030-01-01T00:00:00Z"}, "scheduled_at"),
    ({"scheduled_at": datetime.max.replace(tzinfo=timezone(timedelta(hours=-5)))}, "scheduled_at"),
    ({"scheduled_at": datetime.min.replace(tzinfo=timezone(timedelta(hours=5)))}, "scheduled_at"),
    ({"delay": "1s", "scheduled_at": datetime(2030, 1, 1, tzinfo=UTC)}, "delay"),
    ({"expires_in": -1}, "expires_in"),
    ({"expires_at": 1.5}, "expires_at"),
    ({"expires_in": "1s", "expires_at": datetime(2030, 1, 1, tzinfo=UTC)}, "expires_in"),
    ({"max_retries": -1}, "max_retries"),
    ({"max_retries": 10_001}, "max_retries"),
    ({"max_retries": True}, "max_retries"),
    ({"max_retries": 1.0}, "max_retries"),
    ({"max_retries": "3"}, "max_retries"),
    ({"timeout": "0s"}, "timeout"),
    ({"timeout": 30}, "timeout"),
    ({"unique_key": ""}, "unique_key"),
    ({"unique_key": "x" * 256}, "unique_key"),
    ({"unique_key": "a\nb"}, "unique_key"),
    ({"unique_key": "\x00"}, "unique_key"),
    ({"unique_key": "\ud800"}, "unique_key"),
    ({"unique_key": 42}, "unique_key"),
    ({"unique_for": "1h"}, "unique_for"),
    ({"unique_key": "a", "unique_for": "x"}, "unique_for"),
    ({"metadata": {"a": 1}}, "metadata.a"),
    ({"metadata": {"jobqueue.schedule": "x"}}, "metadata.jobqueue.schedule"),
    ({"metadata": "a"}, "metadata"),
    ({"headers": {"a": None}}, "headers.a"),
    ({"headers": []}, "headers"),
    ({"id": "x"}, "id"),
    ({"id": 7}, "id"),
    ({"idempotency": "key"}, "idempotency"),
    ({"idempotency": Idempotency("", "hash")}, "idempotency.key"),
    ({"idempotency": Idempotency("x" * 256, "hash")}, "idempotency.key"),
    ({"payload": {"a": [float("nan")]}}, "payload.a[0]"),
    ({"payload": object()}, "payload"),
    ({"payload": "x" * 99}, "payload"),
]


@pytest.mark.parametrize("at", ["", "jobs[3]."])
@pytest.mark.parametrize(("given", "field"), WRONG, ids=lambda value: re.sub(r" at 0x\w+", "", repr(value))[:50])
def test_a_wrong_option_is_refused_by_the_path_of_its_field(given: dict[str, Any], field: str, at: str) -> None:
    with pytest.raises(InvalidJob) as caught:
        build(**given, at=at)
    assert caught.value.field == at + field
    assert len(str(caught.value)) < 500
    assert isinstance(caught.value, InvalidPayload) == field.startswith("payload")


def test_every_option_has_a_value_that_is_refused() -> None:
    assert {name for given, _ in WRONG for name in given if name in OPTION_NAMES} == OPTION_NAMES


def test_an_invalid_job_is_a_value_error_too() -> None:
    with pytest.raises(ValueError, match="queue"):
        build(queue="a:b")


# Where a job goes ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("job_type", "options", "routes", "expected"),
    [
        ("t", {"queue": "mine", "priority": "low"}, {"t": ("routed", Priority.HIGH)}, ("mine", Priority.LOW)),
        ("t", {"queue": "mine"}, {"t": ("routed", Priority.HIGH)}, ("mine", Priority.HIGH)),
        ("t", {}, {"t": ("routed", Priority.HIGH)}, ("routed", Priority.HIGH)),
        ("t", {}, {"t": (None, Priority.HIGH)}, ("default", Priority.HIGH)),
        ("t", {}, {"u": ("routed", Priority.HIGH)}, ("default", Priority.MEDIUM)),
        (send, {}, {"email.send": ("routed", Priority.LOW)}, ("mail", Priority.HIGH)),
        (send, {"queue": "mine"}, {}, ("mine", Priority.HIGH)),
        (plain, {}, {"plain": ("routed", Priority.LOW)}, ("routed", Priority.LOW)),
    ],
)
def test_what_is_said_counts_before_what_is_declared_and_that_before_the_default(job_type: Any, options: Any, routes: Any, expected: object) -> None:
    job = build(job_type, routing=Declared(**routes), **options)
    assert (job.queue, job.priority) == expected


def test_nobody_is_asked_when_the_producer_has_said_all() -> None:
    routing = Declared()
    build(routing=routing, queue="mine", priority="low")
    build(send, Payload("a"), routing=routing)
    assert routing.asked == []


def test_our_own_metadata_is_allowed_to_ourselves() -> None:
    assert build(metadata={"jobqueue.schedule": "nightly"}, ours=True).metadata == {"jobqueue.schedule": "nightly"}
