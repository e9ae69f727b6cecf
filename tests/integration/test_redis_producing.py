"""Taking jobs in on Redis, new ones and dead ones that are revived: what the conformance suite cannot ask of every broker."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from redis import Redis
from redis_jobs import BIG, HOUR, SECOND, begin, contents, count_calls, get, key_prefix, open_broker, put, take

from jobqueue_core.errors import BrokerError, BrokerUnavailable, IncompatibleData, QueueFull
from jobqueue_core.job import Idempotency, Job, JobState, Priority
from jobqueue_core.testing.factories import completed, dead_job, died, log_line, new_job, new_jobs, report
from jobqueue_redis.broker import RedisBroker
from jobqueue_redis.times import to_us

broker = pytest.fixture(open_broker)
prefix = pytest.fixture(key_prefix)

_DAY = timedelta(days=1)
_YEAR = timedelta(days=365)
_Y2000 = datetime(2000, 1, 1, tzinfo=UTC)


# Enqueue -------------------------------------------------------------------------------------------------------------------------------


def test_many_jobs_go_in_steps_and_are_answered_in_their_order(broker: RedisBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = count_calls(monkeypatch, broker)
    jobs = new_jobs(1200)
    assert [job.id for job in put(broker, *jobs)] == [job.id for job in jobs]
    assert len(sizes) == 3
    assert [lease.job.id for lease in take(broker, 2000)] == [job.id for job in jobs]


def test_large_jobs_go_in_steps_that_keep_no_script_long(broker: RedisBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = count_calls(monkeypatch, broker)
    small, large = b'"' + b"x" * 300_000 + b'"', b'"' + b"x" * 3_000_000 + b'"'
    put(broker, *new_jobs(7, payload_json=small), new_job(payload_json=large), new_job())
    assert [round(size / 300_000) for size in sizes] == [3, 3, 1, 10, 0]


def test_ids_hold_over_the_steps_of_a_call(broker: RedisBroker) -> None:
    jobs = new_jobs(700)
    answers = broker.enqueue([*jobs, *jobs])
    assert [answer.status for answer in answers] == ["created"] * 700 + ["existing"] * 700
    assert [answer.job for answer in answers[:700]] == [answer.job for answer in answers[700:]]


def test_large_jobs_that_are_there_are_shown_a_few_at_a_time(broker: RedisBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = new_jobs(5, payload_json=BIG)
    stored = put(broker, *jobs)
    sizes = count_calls(monkeypatch, broker)
    again = broker.enqueue([replace(job, payload_json=b"1") for job in jobs])
    assert [(answer.status, answer.job) for answer in again] == [("existing", job) for job in stored]
    assert len(sizes) == 5, "one answer would be too large for one script"


@pytest.mark.parametrize("error", [BrokerUnavailable("away"), QueueFull("full")], ids=lambda one: type(one).__name__)
def test_a_failure_is_raised_when_nothing_was_stored(broker: RedisBroker, monkeypatch: pytest.MonkeyPatch, error: BrokerError) -> None:
    count_calls(monkeypatch, broker, fail=lambda _: error)
    with pytest.raises(type(error)):
        broker.enqueue(new_jobs(600))
    assert broker.queues() == []


@pytest.mark.parametrize(
    ("error", "status"), [(BrokerUnavailable("away"), "unknown"), (QueueFull("full"), "refused")], ids=lambda one: type(one).__name__
)
def test_a_failure_after_some_were_stored_is_told_of_the_others(
    broker: RedisBroker, monkeypatch: pytest.MonkeyPatch, error: BrokerError, status: str
) -> None:
    count_calls(monkeypatch, broker, fail=lambda number: error if number == 1 else None)
    jobs = new_jobs(1100)
    answers = broker.enqueue(jobs)
    assert [answer.status for answer in answers] == ["created"] * 500 + [status] * 600
    assert {answer.problem for answer in answers[500:]} == {f"{type(error).__name__}: {error}"}
    assert [answer.status for answer in broker.enqueue(jobs[400:])] == ["existing"] * 100 + ["created"] * 600


def test_a_job_that_was_stored_in_time_is_there_also_when_the_call_is_repeated_too_late(broker: RedisBroker) -> None:
    (job,) = put(broker, new := new_job())
    answers = broker.enqueue([new, new_job()], not_after=broker.now() - SECOND)
    assert [(answer.status, answer.job, answer.problem) for answer in answers] == [("existing", job, None), ("refused", None, "late")]


def test_instants_of_another_century_are_moved_up_to_this_one(broker: RedisBroker) -> None:
    (job,) = put(broker, new_job(scheduled_at=datetime(1999, 12, 31, tzinfo=UTC), expires_at=datetime(1, 1, 1, tzinfo=UTC)))
    assert (job.state, job.scheduled_at, job.expires_at) == (JobState.QUEUED, _Y2000, _Y2000)
    assert get(broker, job.id) == job
    assert take(broker) == []
    assert get(broker, job.id).last_error == "expired"


@pytest.mark.parametrize("years", [20, 29, 31, 60, 99])
def test_delays_of_any_length_count_from_acceptance(broker: RedisBroker, redis_client: Redis, prefix: str, years: int) -> None:
    (job,) = put(broker, new_job(delay=years * _YEAR, expires_in=(years + 1) * _YEAR))
    assert job.scheduled_at is not None
    assert job.expires_at is not None
    assert abs(job.scheduled_at - job.created_at - years * _YEAR) < 10 * SECOND
    assert abs(job.expires_at - job.created_at - (years + 1) * _YEAR) < 10 * SECOND
    assert get(broker, job.id) == job
    assert redis_client.zscore(f"{prefix}delayed:default", job.id) == to_us(job.scheduled_at)
    assert redis_client.zscore(f"{prefix}expiring", job.id) == to_us(job.expires_at)
    assert broker.cancel(job.id) == "cancelled"


def test_an_idempotency_key_that_met_a_unique_key_stands_for_its_holder(broker: RedisBroker) -> None:
    (holder,) = put(broker, new_job(unique_key="one"))
    keyed = new_job(unique_key="one", idempotency=Idempotency("key", "body"))
    assert broker.enqueue([keyed])[0].job == holder
    broker.cancel(holder.id)
    (again,) = broker.enqueue([keyed])
    assert again.job is not None
    assert (again.status, again.job.id) == ("existing", holder.id)


def test_keys_of_a_job_that_is_gone_are_taken_over(broker: RedisBroker, redis_client: Redis, prefix: str) -> None:
    keyed = {"unique_key": "one", "idempotency": Idempotency("key", "body")}
    (job,) = put(broker, new_job(**keyed))
    redis_client.delete(f"{prefix}job:{job.id}")
    (other,) = put(broker, new_job(**keyed))
    assert broker.enqueue([new_job(**keyed)])[0].job == other


@pytest.mark.parametrize("kind", ["stream:default:medium", "delayed:default"])
def test_what_stands_in_the_place_of_a_stream_is_refused_before_anything_is_stored(
    broker: RedisBroker, redis_client: Redis, prefix: str, kind: str
) -> None:
    redis_client.set(f"{prefix}{kind}", "something else")
    before = contents(redis_client)
    with pytest.raises(BrokerError):
        broker.enqueue([new_job(priority=Priority.HIGH), new_job(), new_job(delay=HOUR, unique_key="one")])
    assert contents(redis_client) == before


def test_an_id_whose_record_a_newer_release_wrote_is_not_answered_for(broker: RedisBroker, redis_client: Redis, prefix: str) -> None:
    new = new_job()
    redis_client.set(f"{prefix}job:{new.id}", b"\x02w something else")
    with pytest.raises(IncompatibleData, match="upgrade"):
        broker.enqueue([new])


# Requeue -------------------------------------------------------------------------------------------------------------------------------


def dead(broker: RedisBroker, **options: Any) -> Job:
    """A job that has run, logged and died."""
    lease = begin(broker, **options)
    broker.report([report(lease, lines=[log_line("one")])], worker_id="worker-1")
    assert broker.settle([died(lease)], worker_id="worker-1") == [True]
    return get(broker, lease.job.id)


def test_a_revived_job_keeps_what_it_logged_as_long_as_it_lives(broker: RedisBroker, redis_client: Redis, prefix: str) -> None:
    job = dead(broker)
    logs = f"{prefix}logs:{job.id}"
    assert redis_client.ttl(logs) > 0
    assert broker.requeue(job) == "requeued"
    assert redis_client.ttl(logs) == -1
    broker.settle([completed(lease) for lease in take(broker)], worker_id="worker-1")
    assert redis_client.ttl(logs) > 0


def test_a_revived_job_is_kept_for_its_idempotency_key(redis_url: str, redis_namespace: str, redis_client: Redis, prefix: str) -> None:
    with closing(RedisBroker(redis_url, namespace=redis_namespace, result_ttl=SECOND)) as broker:
        job = dead(broker, idempotency=Idempotency("key", "body"))
        assert broker.requeue(job) == "requeued"
        broker.settle([completed(lease) for lease in take(broker)], worker_id="worker-1")
        assert redis_client.ttl(f"{prefix}job:{job.id}") > 80_000


def test_unique_for_counts_from_the_first_enqueue_also_when_a_job_is_revived(broker: RedisBroker, redis_client: Redis, prefix: str) -> None:
    job = dead(broker, unique_key="one", unique_for=HOUR)
    assert broker.requeue(job) == "requeued"
    held = redis_client.get(f"{prefix}unique:default:one")
    assert isinstance(held, bytes)
    assert held == f"{job.id}{to_us(job.created_at + HOUR)}".encode()


def test_a_dead_letter_of_the_future_was_created_now(broker: RedisBroker) -> None:
    letter = dead_job(died_at=broker.now() + _DAY)
    before = broker.now()
    assert broker.requeue(letter) == "requeued"
    assert before <= get(broker, letter.id).created_at <= broker.now()


def test_a_record_that_cannot_be_read_does_not_keep_a_dead_job_dead(broker: RedisBroker, redis_client: Redis, prefix: str) -> None:
    letter = dead_job()
    redis_client.set(f"{prefix}job:{letter.id}", b"\x01f?garbage")
    assert broker.requeue(letter) == "requeued"
    assert [lease.job.id for lease in take(broker)] == [letter.id]


def test_a_record_of_a_newer_release_is_not_overwritten_by_a_retry(broker: RedisBroker, redis_client: Redis, prefix: str) -> None:
    letter = dead_job()
    redis_client.set(f"{prefix}job:{letter.id}", b"\x02fd1:default something")
    with pytest.raises(IncompatibleData, match="upgrade"):
        broker.requeue(letter)


def test_a_retry_that_was_carried_out_is_not_too_late_when_it_is_repeated(broker: RedisBroker) -> None:
    job = dead(broker)
    assert broker.requeue(job) == "requeued"
    assert broker.requeue(job, not_after=broker.now() - SECOND) == "already"
