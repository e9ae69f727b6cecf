"""Taking jobs in, making them ready and taking them out again on Redis: what the conformance suite cannot ask of every broker."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace
from redis import Redis
from servers import RedisServer

from jobqueue_core.attempt import DeadLetter, Lease
from jobqueue_core.errors import BrokerError, BrokerUnavailable, IncompatibleData, QueueFull
from jobqueue_core.job import DeadReason, Idempotency, Job, JobState, NewJob, Priority, new_job_id
from jobqueue_core.testing.factories import completed, dead_job, died, failed, log_line, new_job, new_jobs, report
from jobqueue_redis import control
from jobqueue_redis.broker import RedisBroker
from jobqueue_redis.keys import Shard
from jobqueue_redis.link import Link
from jobqueue_redis.promoting import promote
from jobqueue_redis.times import to_us
from jobqueue_redis.values import Known

_SECOND = timedelta(seconds=1)
_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)
_YEAR = timedelta(days=365)
_Y2000 = datetime(2000, 1, 1, tzinfo=UTC)
_MIB = 1 << 20
_BIG = b'"' + b"x" * _MIB + b'"'


# Arrangement ---------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def broker(redis_url: str, redis_namespace: str) -> Iterator[RedisBroker]:
    with closing(RedisBroker(redis_url, namespace=redis_namespace)) as broker:
        yield broker


@pytest.fixture
def prefix(redis_namespace: str) -> str:
    return f"{redis_namespace}:"


def put(broker: RedisBroker, *jobs: NewJob) -> list[Job]:
    answers = broker.enqueue(jobs)
    assert [answer.status for answer in answers] == ["created"] * len(jobs)
    return [answer.job for answer in answers if answer.job is not None]


def put_soon(broker: RedisBroker, *jobs: NewJob) -> list[Job]:
    """Enqueue *jobs* with a delay that has passed afterwards."""
    stored = put(broker, *(replace(job, delay=timedelta(milliseconds=1)) for job in jobs))
    due = max(job.scheduled_at for job in stored if job.scheduled_at is not None)
    while broker.now() <= due:
        pass
    return stored


def take(broker: RedisBroker, limit: int = 1000, *, queues: Sequence[str] = ("default",)) -> list[Lease]:
    return broker.lease(queues, limit, worker_id="worker-1", lease_for=timedelta(seconds=30), wait=timedelta(0), suspects=1000)


def begin(broker: RedisBroker, **options: Any) -> Lease:
    put(broker, new_job(**options))
    (lease,) = take(broker)
    return lease


def get(broker: RedisBroker, job_id: str) -> Job:
    (job,) = broker.get([job_id])
    assert job is not None
    return job


def state(broker: RedisBroker, job_id: str) -> JobState:
    return get(broker, job_id).state


def letters(broker: RedisBroker) -> list[DeadLetter]:
    return list(broker.outbox("dead", 1000).dead_letters)


def contents(client: Redis) -> dict[bytes, bytes | None]:
    """Every key and all that is in it."""
    return {key: client.dump(key) for key in client.scan_iter()}


def count_calls(monkeypatch: pytest.MonkeyPatch, broker: RedisBroker, *, fail: Callable[[int], Exception | None] = lambda _: None) -> list[int]:
    """The lengths of the arguments of each script that *broker* sends from now on; *fail* says whether to raise instead of sending."""
    sizes: list[int] = []
    call = broker.link.call

    def counting(name: str, shard: Shard, *args: Any, **options: Any) -> Any:
        error = fail(len(sizes))
        sizes.append(sum(len(one) for one in args if isinstance(one, (bytes, str))))
        if error is not None:
            raise error
        return call(name, shard, *args, **options)

    monkeypatch.setattr(broker.link, "call", counting)
    return sizes


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
    jobs = new_jobs(5, payload_json=_BIG)
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
    answers = broker.enqueue([new, new_job()], not_after=broker.now() - _SECOND)
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
    assert abs(job.scheduled_at - job.created_at - years * _YEAR) < 10 * _SECOND
    assert abs(job.expires_at - job.created_at - (years + 1) * _YEAR) < 10 * _SECOND
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
        broker.enqueue([new_job(priority=Priority.HIGH), new_job(), new_job(delay=_HOUR, unique_key="one")])
    assert contents(redis_client) == before


def test_an_id_whose_record_a_newer_release_wrote_is_not_answered_for(broker: RedisBroker, redis_client: Redis, prefix: str) -> None:
    new = new_job()
    redis_client.set(f"{prefix}job:{new.id}", b"\x02w something else")
    with pytest.raises(IncompatibleData, match="upgrade"):
        broker.enqueue([new])


# A full server -------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def full(redis_server: RedisServer) -> Iterator[tuple[RedisBroker, RedisServer, Redis]]:
    """A broker on a server of the test's own, which can be made full."""
    with closing(RedisBroker(redis_server.url)) as broker, Redis.from_url(redis_server.url) as client:
        yield broker, redis_server, client


_REFUSED: dict[str, Callable[[], list[NewJob]]] = {
    "plain": lambda: new_jobs(3),
    "delayed": lambda: new_jobs(2, delay=_HOUR),
    "with-keys": lambda: [new_job(unique_key="free", expires_in=_HOUR, idempotency=Idempotency("free", "body"))],
    "of-a-new-queue": lambda: [new_job(queue="new")],
    "duplicate-under-a-new-idempotency-key": lambda: [new_job(unique_key="held", idempotency=Idempotency("free", "body"))],
    "large": lambda: [new_job(payload_json=_BIG)],
}


@pytest.mark.parametrize("jobs", _REFUSED.values(), ids=_REFUSED)
def test_a_full_server_refuses_jobs_and_nothing_of_them_is_stored(
    full: tuple[RedisBroker, RedisServer, Redis], jobs: Callable[[], list[NewJob]]
) -> None:
    broker, server, client = full
    put(broker, new_job(unique_key="held"))
    before = contents(client)
    server.config(maxmemory="1")
    with pytest.raises(QueueFull):
        broker.enqueue(jobs())
    assert contents(client) == before
    server.config(maxmemory="0")
    assert {answer.status for answer in broker.enqueue(jobs())} <= {"created", "existing"}


def test_a_full_server_answers_for_jobs_that_are_there(full: tuple[RedisBroker, RedisServer, Redis]) -> None:
    broker, server, _ = full
    (job,) = put(broker, new := new_job(unique_key="one"))
    server.config(maxmemory="1")
    assert [answer.job for answer in broker.enqueue([new, new_job(unique_key="one")])] == [job, job]


def test_a_full_server_refuses_to_revive_a_dead_job_which_stays_dead(full: tuple[RedisBroker, RedisServer, Redis]) -> None:
    broker, server, client = full
    lease = begin(broker, unique_key="one")
    broker.settle([died(lease)], worker_id="worker-1")
    dead = get(broker, lease.job.id)
    before = contents(client)
    server.config(maxmemory="1")
    with pytest.raises(QueueFull):
        broker.requeue(dead)
    assert contents(client) == before


def test_a_full_server_still_does_what_operators_and_upkeep_ask_for(full: tuple[RedisBroker, RedisServer, Redis]) -> None:
    broker, server, client = full
    lease = begin(broker)
    waiting, scheduled, *_ = put(broker, new_job(), new_job(delay=_HOUR), *new_jobs(5), *new_jobs(5, delay=_HOUR))
    due = put_soon(broker, *new_jobs(3, queue="due"))
    garbage = new_job_id("due")
    client.zadd("delayed:due", {garbage: 1})
    server.config(maxmemory="1")
    assert [broker.cancel(waiting.id), broker.cancel(scheduled.id), broker.cancel(lease.job.id)] == ["cancelled", "cancelled", "requested"]
    assert broker.purge("default", 100) == 10
    broker.pause("due")
    broker.resume("due")
    assert broker.promote(100) == 3
    assert [one.job.id for one in letters(broker)] == [garbage]
    assert [one.job.id for one in take(broker, queues=["due"])] == sorted(job.id for job in due)


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
    with closing(RedisBroker(redis_url, namespace=redis_namespace, result_ttl=_SECOND)) as broker:
        job = dead(broker, idempotency=Idempotency("key", "body"))
        assert broker.requeue(job) == "requeued"
        broker.settle([completed(lease) for lease in take(broker)], worker_id="worker-1")
        assert redis_client.ttl(f"{prefix}job:{job.id}") > 80_000


def test_unique_for_counts_from_the_first_enqueue_also_when_a_job_is_revived(broker: RedisBroker, redis_client: Redis, prefix: str) -> None:
    job = dead(broker, unique_key="one", unique_for=_HOUR)
    assert broker.requeue(job) == "requeued"
    held = redis_client.get(f"{prefix}unique:default:one")
    assert isinstance(held, bytes)
    assert held == f"{job.id}{to_us(job.created_at + _HOUR)}".encode()


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
    assert broker.requeue(job, not_after=broker.now() - _SECOND) == "already"


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
        broker.settle([failed(one, delay=_HOUR, error="second") for one in take(broker)], worker_id="worker-1")

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
    (job,) = put(broker, new_job(delay=_HOUR))
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
    (job,) = put(broker, new_job(delay=_HOUR))
    redis_client.delete(f"{prefix}delayed:default")
    assert broker.cancel(job.id) == "cancelled"
    assert state(broker, job.id) is JobState.CANCELLED


def test_a_record_that_says_nothing_names_no_job(broker: RedisBroker, redis_client: Redis, prefix: str) -> None:
    job_id = new_job_id("default")
    redis_client.set(f"{prefix}job:{job_id}", b"garbage")
    assert broker.cancel(job_id) == "unknown"


# Purge ---------------------------------------------------------------------------------------------------------------------------------


def purge(broker: RedisBroker, queue: str = "default", limit: int = 50) -> int:
    """Purge until there is nothing left; how many."""
    steps = list(itertools.takewhile(bool, (broker.purge(queue, limit) for _ in range(100))))
    assert len(steps) < 100, "it does not come to an end"
    return sum(steps)


def test_a_queue_full_of_garbage_can_be_purged(broker: RedisBroker, redis_client: Redis, prefix: str) -> None:
    jobs = put(broker, *new_jobs(5), *new_jobs(5, delay=_HOUR))
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
    broker.settle([failed(rest[0], delay=_HOUR)], worker_id="worker-1")
    broker.reclaim_worker("worker-2", started=(), error="killed", max_crashes=3)
    assert purge(broker) == 1
    assert state(broker, running.job.id) is JobState.PROCESSING


def test_large_jobs_are_purged_in_small_steps(broker: RedisBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    put(broker, *new_jobs(20), *new_jobs(3, payload_json=_BIG), *new_jobs(2, payload_json=_BIG, delay=_HOUR))
    sizes = count_calls(monkeypatch, broker)
    assert purge(broker, limit=1000) == 25
    assert max(sizes) < 1.1 * _MIB


def test_a_member_whose_job_is_elsewhere_only_goes(broker: RedisBroker, redis_client: Redis, prefix: str) -> None:
    (waiting,) = put(broker, new_job(queue="other"))
    (delayed,) = put(broker, new_job(queue="other", delay=_HOUR))
    lease = begin(broker)
    broker.settle([completed(lease)], worker_id="worker-1")
    redis_client.zadd(f"{prefix}delayed:default", {waiting.id: 1, delayed.id: 1, lease.job.id: 1})
    assert purge(broker) == 3
    assert [state(broker, one) for one in (waiting.id, delayed.id, lease.job.id)] == [JobState.QUEUED, JobState.SCHEDULED, JobState.COMPLETED]
    assert letters(broker) == []
    assert redis_client.exists(f"{prefix}delayed:default") == 0


# Promote -------------------------------------------------------------------------------------------------------------------------------


def put_due(client: Redis, prefix: str, queue: str, jobs: dict[str, int]) -> None:
    """Let delayed jobs of *queue* be due at the instants given (µs)."""
    client.zadd(f"{prefix}delayed:{queue}", dict(jobs))
    client.zadd(f"{prefix}due", {queue: min(jobs.values())})


def test_a_delayed_job_whose_record_is_gone_becomes_one_dead_letter(broker: RedisBroker, redis_client: Redis, prefix: str) -> None:
    jobs = put_soon(broker, *new_jobs(3))
    records = (b"garbage", b"\x01f?", b"\x01dd2default \x00\x06cut off", None)
    odd = {new_job_id("default"): record for record in records}
    for job_id, record in odd.items():
        if record is not None:
            redis_client.set(f"{prefix}job:{job_id}", record)
    put_due(redis_client, prefix, "default", {"no id": 1, **dict.fromkeys(odd, 2)})
    redis_client.zadd(f"{prefix}retry:default", {jobs[0].id: 3})
    assert [broker.promote(200), broker.promote(200)] == [3, 0]
    assert {lease.job.id for lease in take(broker)} == {job.id for job in jobs}
    found = {one.job.id: one for one in letters(broker)}
    assert len(found) == len(letters(broker)) == 5
    assert {job_id: found[job_id].raw for job_id in odd} == odd
    assert {one.job.dead_reason for one in found.values()} == {DeadReason.UNDECODABLE}
    assert [state(broker, job_id) for job_id in odd] == [JobState.DEAD] * 4
    stats = broker.queue("default")
    assert stats is not None
    assert (stats.dead, stats.scheduled, stats.retrying, stats.processing) == (5, 0, 0, 3)


def test_promoting_is_exact_however_much_stands_in_the_way(broker: RedisBroker, redis_client: Redis, prefix: str) -> None:
    jobs = put_soon(broker, *(new_job(queue=f"queue-{number}") for number in range(150)))
    # Queues whose first job is gone, and things that are no jobs.
    redis_client.zadd(f"{prefix}due", {f"gone-{number}": 1 for number in range(300)})
    put_due(redis_client, prefix, "odd", {f"odd {number}": 1 for number in range(300)})
    assert [broker.promote(100), broker.promote(100), broker.promote(100)] == [100, 50, 0]
    assert {lease.job.id for lease in take(broker, queues=["*"])} == {job.id for job in jobs}
    assert len(letters(broker)) == 300


def test_those_due_first_are_promoted_first_over_any_number_of_queues(broker: RedisBroker, redis_client: Redis, prefix: str) -> None:
    queues = [f"queue-{number}" for number in range(200)]
    jobs = put(broker, *(new_job(queue=queue, delay=_HOUR) for queue in queues for _ in range(5)))
    # Of each queue the first, then of each the second, and so on; but the last queue's are all due before.
    by_queue = {queue: [job.id for job in jobs if job.queue == queue] for queue in queues}
    due = {job_id: 1000 * turn + number for number, queue in enumerate(queues[:-1]) for turn, job_id in enumerate(by_queue[queue], 1)}
    due |= {job_id: turn for turn, job_id in enumerate(by_queue[queues[-1]])}
    for queue in queues:
        put_due(redis_client, prefix, queue, {job_id: due[job_id] for job_id in by_queue[queue]})
    expected = sorted(due, key=due.__getitem__)
    for start in range(0, 1000, 150):
        assert broker.promote(150) == min(150, 1000 - start)
        promoted = {lease.job.id for lease in take(broker, queues=["*"])}
        assert promoted == set(expected[start : start + 150])


def test_what_a_newer_release_delayed_is_left_to_it(broker: RedisBroker, redis_client: Redis, prefix: str) -> None:
    newer = new_job_id("default")
    redis_client.set(f"{prefix}job:{newer}", b"\x02dd2default newer")
    (job,) = put_soon(broker, new_job())
    put_due(redis_client, prefix, "default", {newer: 1})
    assert [broker.promote(200), broker.promote(200)] == [1, 0]
    assert [lease.job.id for lease in take(broker)] == [job.id]
    assert redis_client.zscore(f"{prefix}delayed:default", newer) == 1
    assert letters(broker) == []


def test_what_stands_in_the_place_of_a_stream_does_not_lose_delayed_jobs(broker: RedisBroker, redis_client: Redis, prefix: str) -> None:
    medium, high = put_soon(broker, new_job(), new_job(priority=Priority.HIGH))
    redis_client.set(f"{prefix}stream:default:medium", "something else")
    assert broker.promote(200) == 1
    assert [lease.job.id for lease in take(broker)] == [high.id]
    redis_client.delete(f"{prefix}stream:default:medium")
    assert broker.promote(200) == 1
    assert [lease.job.id for lease in take(broker)] == [medium.id]


def test_a_dead_letter_of_promoting_is_kept_as_long_as_it_is_told(broker: RedisBroker, redis_client: Redis, prefix: str) -> None:
    put_due(redis_client, prefix, "default", {(job_id := new_job_id("default")): 1})
    assert promote(broker.link, 10, ttl_ms=5_000) == 0
    assert 0 < redis_client.pttl(f"{prefix}job:{job_id}") <= 5_000


# How long a script takes -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def measured(start_redis: Callable[..., RedisServer]) -> Iterator[tuple[RedisBroker, Redis, Callable[[], float]]]:
    """A broker on a server of its own, and how long (ms of its processor's time) its scripts have taken on average since the last time one asked."""
    server = start_redis(appendonly=False)
    with closing(RedisBroker(server.url)) as broker, Redis.from_url(server.url) as client:
        before = [0.0, 0.0]

        def average() -> float:
            cpu, stats = client.info("cpu"), client.info("commandstats")
            now = [
                1000 * (cpu["used_cpu_user"] + cpu["used_cpu_sys"]),
                sum(one["calls"] for name, one in stats.items() if name in ("cmdstat_evalsha", "cmdstat_eval")),
            ]
            spent, calls = (one - other for one, other in zip(now, before, strict=True))
            before[:] = now
            return float(spent / calls)

        broker.promote(1)
        average()
        yield broker, client, average


def test_a_script_that_enqueues_takes_less_than_five_milliseconds(measured: tuple[RedisBroker, Redis, Callable[[], float]]) -> None:
    broker, _, average = measured
    payload = b'"' + b"x" * 150 + b'"'
    put(broker, *new_jobs(5000, payload_json=payload))
    assert average() < 5
    keyed = [
        new_job(payload_json=payload, unique_key=f"{number}", expires_in=_HOUR, delay=_HOUR, idempotency=Idempotency(f"{number}", "f" * 64))
        for number in range(3000)
    ]
    put(broker, *keyed)
    assert average() < 5
    broker.enqueue(keyed)
    assert average() < 5


def test_a_script_that_promotes_takes_less_than_five_milliseconds_whatever_is_due(
    measured: tuple[RedisBroker, Redis, Callable[[], float]],
) -> None:
    broker, client, average = measured
    jobs = put(broker, *new_jobs(20_000, delay=_HOUR))
    instant = to_us(broker.now()) - 1
    put_due(client, "", "default", dict.fromkeys((job.id for job in jobs), instant))
    average()
    assert sum(broker.promote(200) for _ in range(101)) == 20_000
    assert average() < 5
    put_soon(broker, *(new_job(queue=f"queue-{number}") for number in range(2_000)))
    average()
    assert sum(broker.promote(200) for _ in range(11)) == 2_000
    assert average() < 5


def test_a_script_that_withdraws_takes_less_than_five_milliseconds(measured: tuple[RedisBroker, Redis, Callable[[], float]]) -> None:
    broker, _, average = measured
    put(broker, *new_jobs(3_000), *new_jobs(1_000, delay=_HOUR, unique_key=None))
    average()
    assert purge(broker, limit=1000) == 4_000
    assert average() < 5


def test_a_script_that_handles_large_jobs_takes_little_more_than_one_of_them_needs(
    measured: tuple[RedisBroker, Redis, Callable[[], float]],
) -> None:
    broker, client, average = measured
    jobs = put(broker, *new_jobs(6, payload_json=_BIG, delay=_HOUR))
    needed = average()
    put_due(client, "", "default", {job.id: 1 for job in jobs})
    assert broker.promote(200) == 6
    assert average() < 3 * needed
