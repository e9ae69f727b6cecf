"""Taking jobs out of Redis, by cancel or purge, whatever happens to them meanwhile and whatever stands in their place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest
from redis import Redis
from redis_jobs import BIG, HOUR, MIB, begin, count_calls, get, key_prefix, letters, open_broker, purge, put, state, take

from jobqueue_core.errors import BrokerUnavailable, IncompatibleData
from jobqueue_core.job import DeadReason, JobState, Priority, new_job_id
from jobqueue_core.testing.factories import completed, failed, new_job, new_jobs
from jobqueue_redis import control
from jobqueue_redis.broker import RedisBroker
from jobqueue_redis.link import Link
from jobqueue_redis.values import Known

broker = pytest.fixture(open_broker)
prefix = pytest.fixture(key_prefix)


# Cancel --------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def stale(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Let something happen between the look at a job and its cancellation, once."""

    def stale(meanwhile: Callable[[], object]) -> None:
        find = control.find
        happens = [meanwhile]

        def outdated(link: Link, job_ids: Sequence[str]) -> list[Known | None]:
            found = find(link, job_ids)
            if happens:
                happens.pop()()
            return found

        monkeypatch.setattr(control, "find", outdated)

    return stale


def test_a_job_that_is_leased_meanwhile_is_asked_to_stop(broker: RedisBroker, stale: Callable[..., None]) -> None:
    (job,) = put(broker, new_job())
    stale(lambda: take(broker))
    assert broker.cancel(job.id) == "requested"
    assert get(broker, job.id).cancel_requested


def test_a_job_that_ends_meanwhile_has_finished(broker: RedisBroker, stale: Callable[..., None]) -> None:
    lease = begin(broker)
    stale(lambda: broker.settle([completed(lease)], worker_id="worker-1"))
    assert broker.cancel(lease.job.id) == "finished"
    assert state(broker, lease.job.id) is JobState.COMPLETED


def test_a_job_that_runs_and_fails_meanwhile_is_cancelled_as_it_is_then(broker: RedisBroker, stale: Callable[..., None]) -> None:
    lease = begin(broker)
    broker.settle([failed(lease, delay=timedelta(0), error="first")], worker_id="worker-1")

    def fail_again() -> None:
        assert broker.promote(10) == 1
        broker.settle([failed(one, delay=HOUR, error="second") for one in take(broker)], worker_id="worker-1")

    stale(fail_again)
    assert broker.cancel(lease.job.id) == "cancelled"
    job = get(broker, lease.job.id)
    assert (job.state, job.run, job.retry_count) == (JobState.CANCELLED, 2, 2)


def test_a_job_that_is_never_where_it_just_was_is_given_up(broker: RedisBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    (job,) = put(broker, new_job())
    monkeypatch.setattr(control, "withdraw", lambda *_, **__: [False])
    with pytest.raises(BrokerUnavailable, match="from hand to hand"):
        broker.cancel(job.id)
    assert state(broker, job.id) is JobState.QUEUED


def test_a_waiting_job_that_cannot_be_read_becomes_a_dead_letter(broker: RedisBroker, redis_client: Redis, prefix: str) -> None:
    job_id = new_job_id("default")
    entry = redis_client.xadd(f"{prefix}stream:default:high", {"1": b"\xff garbage"})
    redis_client.set(f"{prefix}job:{job_id}", b"\x01ws1default " + entry)
    assert [broker.cancel(job_id), broker.cancel(job_id)] == ["finished", "finished"]
    (letter,) = letters(broker)
    assert (letter.job.id, letter.job.dead_reason, letter.job.priority) == (job_id, DeadReason.UNDECODABLE, Priority.HIGH)
    assert letter.raw == b"\xff garbage"
    assert redis_client.xlen(f"{prefix}stream:default:high") == 0
    assert state(broker, job_id) is JobState.DEAD


def test_a_delayed_job_that_cannot_be_read_becomes_a_dead_letter(broker: RedisBroker, redis_client: Redis, prefix: str) -> None:
    (job,) = put(broker, new_job(delay=HOUR))
    record = b"\x01dd2default \xff garbage"
    redis_client.set(f"{prefix}job:{job.id}", record)
    assert broker.cancel(job.id) == "finished"
    assert [(one.job.id, one.raw) for one in letters(broker)] == [(job.id, record)]
    assert redis_client.zcard(f"{prefix}delayed:default") == 0


def test_a_job_whose_entry_is_gone_becomes_a_dead_letter(broker: RedisBroker, redis_client: Redis, prefix: str) -> None:
    (job,) = put(broker, new_job())
    redis_client.delete(f"{prefix}stream:default:medium")
    assert broker.cancel(job.id) == "finished"
    assert [(one.job.id, one.raw) for one in letters(broker)] == [(job.id, None)]


def test_a_running_job_whose_entry_was_deleted_is_asked_to_stop(broker: RedisBroker, redis_client: Redis, prefix: str) -> None:
    lease = begin(broker)
    redis_client.xdel(f"{prefix}stream:default:medium", lease.token.partition(" ")[2])
    assert broker.cancel(lease.job.id) == "requested"
    assert letters(broker) == []


def test_a_delayed_job_that_fell_out_of_its_set_is_cancelled(broker: RedisBroker, redis_client: Redis, prefix: str) -> None:
    (job,) = put(broker, new_job(delay=HOUR))
    redis_client.delete(f"{prefix}delayed:default")
    assert broker.cancel(job.id) == "cancelled"
    assert state(broker, job.id) is JobState.CANCELLED


def test_a_record_that_says_nothing_names_no_job(broker: RedisBroker, redis_client: Redis, prefix: str) -> None:
    job_id = new_job_id("default")
    redis_client.set(f"{prefix}job:{job_id}", b"garbage")
    assert broker.cancel(job_id) == "unknown"


# Purge ---------------------------------------------------------------------------------------------------------------------------------


def test_a_queue_full_of_garbage_can_be_purged(broker: RedisBroker, redis_client: Redis, prefix: str) -> None:
    jobs = put(broker, *new_jobs(5), *new_jobs(5, delay=HOUR))
    raw = [b"\xff %d" % number for number in range(120)]
    for one in raw:
        redis_client.xadd(f"{prefix}stream:default:low", {"1": one})
    redis_client.xadd(f"{prefix}stream:default:low", {"a": "b", "c": "d"})
    redis_client.zadd(f"{prefix}delayed:default", {b"\xff\x00 no id": 1, new_job_id("default"): 2, (odd := new_job_id("default")): 3})
    redis_client.set(f"{prefix}job:{odd}", b"\x01dd2default garbage")
    assert purge(broker) == 10 + 120 + 1 + 3
    assert [state(broker, job.id) for job in jobs] == [JobState.CANCELLED] * 10
    found = [one.raw for one in letters(broker)]
    assert found[:120] == raw
    assert (len(found), found[122:]) == (124, [None, b"\x01dd2default garbage"])
    assert redis_client.exists(f"{prefix}delayed:default") == 0
    assert redis_client.xlen(f"{prefix}stream:default:low") == 0


def test_purging_leaves_what_a_newer_release_wrote_and_says_so(broker: RedisBroker, redis_client: Redis, prefix: str) -> None:
    redis_client.xadd(f"{prefix}stream:default:critical", {"2": b"newer"})
    redis_client.zadd(f"{prefix}retry:default", {(newer := new_job_id("default")): 1})
    redis_client.set(f"{prefix}job:{newer}", b"\x02dt2default newer")
    jobs = put(broker, *new_jobs(3))
    with pytest.raises(IncompatibleData, match="upgrade"):
        broker.purge("default", 100)
    assert [state(broker, job.id) for job in jobs] == [JobState.CANCELLED] * 3
    assert (redis_client.xlen(f"{prefix}stream:default:critical"), redis_client.zcard(f"{prefix}retry:default")) == (1, 1)
    assert letters(broker) == []


def test_purging_leaves_what_runs_and_what_was_given_back_goes(broker: RedisBroker) -> None:
    put(broker, *new_jobs(4))
    running, *rest = take(broker)
    broker.settle([failed(rest[0], delay=HOUR)], worker_id="worker-1")
    broker.reclaim_worker("worker-2", started=(), error="killed", max_crashes=3)
    assert purge(broker) == 1
    assert state(broker, running.job.id) is JobState.PROCESSING


def test_large_jobs_are_purged_in_small_steps(broker: RedisBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    put(broker, *new_jobs(20), *new_jobs(3, payload_json=BIG), *new_jobs(2, payload_json=BIG, delay=HOUR))
    sizes = count_calls(monkeypatch, broker)
    assert purge(broker, limit=1000) == 25
    assert max(sizes) < 1.1 * MIB


def test_a_member_whose_job_is_elsewhere_only_goes(broker: RedisBroker, redis_client: Redis, prefix: str) -> None:
    (waiting,) = put(broker, new_job(queue="other"))
    (delayed,) = put(broker, new_job(queue="other", delay=HOUR))
    lease = begin(broker)
    broker.settle([completed(lease)], worker_id="worker-1")
    redis_client.zadd(f"{prefix}delayed:default", {waiting.id: 1, delayed.id: 1, lease.job.id: 1})
    assert purge(broker) == 3
    assert [state(broker, one) for one in (waiting.id, delayed.id, lease.job.id)] == [JobState.QUEUED, JobState.SCHEDULED, JobState.COMPLETED]
    assert letters(broker) == []
    assert redis_client.exists(f"{prefix}delayed:default") == 0
