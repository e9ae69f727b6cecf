"""Leases on Redis under what servers, networks and people do to them, beyond what every broker is asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from jobqueue_core.attempt import DeadLetter, ExecutionState, Lease
from jobqueue_core.broker import Reclaimed
from jobqueue_core.errors import IncompatibleData
from jobqueue_core.job import DeadReason, JobState, Progress
from jobqueue_core.testing.factories import completed, died, failed, new_job, new_jobs, release, report, snoozed
from jobqueue_redis.broker import RedisBroker
from jobqueue_redis.entries import held_by
from jobqueue_redis.scripts import script

if TYPE_CHECKING:
    from servers import Proxy, RedisServer

SECOND = timedelta(seconds=1)
NOTHING = timedelta(0)
STREAM = "stream:default:medium"


@pytest.fixture
def broker(redis_server: RedisServer) -> Iterator[RedisBroker]:
    broker = RedisBroker(redis_server.url)
    yield broker
    broker.close()


def put(broker: RedisBroker, count: int = 1, **options: object) -> list[str]:
    answers = broker.enqueue(new_jobs(count, **options))
    assert {one.status for one in answers} == {"created"}
    return [one.job.id for one in answers if one.job is not None]


def take(broker: RedisBroker, limit: int = 100, *, lease_for: timedelta = 30 * SECOND, worker_id: str = "worker-1") -> list[Lease]:
    return broker.lease(["default"], limit, worker_id=worker_id, lease_for=lease_for, wait=NOTHING, suspects=100)


def begin(broker: RedisBroker, *, lease_for: timedelta = 30 * SECOND, **options: object) -> Lease:
    put(broker, **options)
    (lease,) = take(broker, 1, lease_for=lease_for)
    return lease


def settled(broker: RedisBroker, *ends: object) -> list[bool]:
    return broker.settle(ends, worker_id="worker-1")  # type: ignore[arg-type]  # settlements


def state(broker: RedisBroker, job_id: str) -> JobState:
    (job,) = broker.get([job_id])
    assert job is not None
    return job.state


def letters(broker: RedisBroker) -> list[DeadLetter]:
    return list(broker.outbox("dead", 1000).dead_letters)


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        threading.Event().wait(0.01)


# Answers that are lost -------------------------------------------------------------------------------------------------------------------


def test_leases_whose_answer_was_lost_are_handed_out_all_the_same_and_count_no_crash(redis_server: RedisServer, redis_proxy: Proxy) -> None:
    broker = RedisBroker(redis_proxy.url)
    take(broker)  # what is sent first is the script itself, not its name
    ids = put(broker, 20)
    redis_proxy.cut_reply(containing=script("lease").sha.encode())
    leases = [lease for _ in range(3) for lease in take(broker, 8)]
    assert redis_proxy.cuts == 1
    assert [lease.job.id for lease in leases] == ids
    assert {(lease.job.run, lease.job.crashes) for lease in leases} == {(1, 0)}
    assert settled(broker, *map(completed, leases)) == [True] * 20
    broker.close()
    assert redis_server.command("XLEN", STREAM) == 0


def test_what_is_held_is_not_handed_out_again_after_a_lost_answer(redis_proxy: Proxy) -> None:
    broker = RedisBroker(redis_proxy.url)
    take(broker)
    put(broker, 3)
    held = take(broker, 2)
    redis_proxy.cut_reply(containing=script("lease").sha.encode())
    (found,) = take(broker, 1)
    assert redis_proxy.cuts == 1
    assert found.token not in {lease.token for lease in held}
    assert take(broker, 10) == []
    broker.close()


# Time ------------------------------------------------------------------------------------------------------------------------------------


def test_what_is_settled_while_lost_answers_are_looked_for_is_not_handed_out_again(redis_proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = RedisBroker(redis_proxy.url)
    take(broker)
    put(broker, 3)
    leases = take(broker, 3)
    ends: list[bool] = []

    def settled_meanwhile(*args: Any) -> Iterator[Any]:
        # What the server says it holds has been said, and another thread is quicker than who reads it.
        found = list(held_by(*args))
        ends.extend(settled(broker, *map(completed, leases)))
        yield from found

    monkeypatch.setattr("jobqueue_redis.leasing.held_by", settled_meanwhile)
    redis_proxy.cut_reply(containing=script("lease").sha.encode())
    assert [lease.job.id for _ in range(2) for lease in take(broker, 8)] == []
    assert ends[:3] == [True] * 3
    broker.close()


def test_after_a_restart_nothing_is_reclaimed_for_the_length_of_a_lease(redis_server: RedisServer, broker: RedisBroker) -> None:
    lease = begin(broker, lease_for=2 * SECOND)
    redis_server.stop()
    threading.Event().wait(2.1)
    redis_server.start()
    other = RedisBroker(redis_server.url)
    try:
        assert [one.reclaim(100, max_crashes=3) for one in (broker, other)] == [Reclaimed(), Reclaimed()]
        assert settled(broker, completed(lease)) == [True], "its worker has been given time to say so"
        begin(broker, lease_for=2 * SECOND)
        until(lambda: other.reclaim(100, max_crashes=3).requeued == 1)
    finally:
        other.close()


def test_a_renewal_in_between_keeps_a_lease_from_being_reclaimed(broker: RedisBroker) -> None:
    lease = begin(broker, lease_for=SECOND)
    for _ in range(4):
        threading.Event().wait(0.5)
        assert broker.renew([lease.token], worker_id="worker-1", lease_for=SECOND).lost == frozenset()
        assert broker.reclaim(100, max_crashes=3) == Reclaimed()
    assert settled(broker, completed(lease)) == [True]


def test_a_delay_of_decades_is_held_to_what_can_be_written(broker: RedisBroker) -> None:
    lease = begin(broker)
    assert settled(broker, failed(lease, delay=timedelta(days=36_500))) == [True]
    (job,) = broker.get([lease.job.id])
    assert job is not None
    assert job.scheduled_at is not None
    assert job.scheduled_at - broker.now() > timedelta(days=9_999)
    assert broker.cancel(lease.job.id) == "cancelled"


# What belongs to a newer release -----------------------------------------------------------------------------------------------------------


def test_jobs_of_a_newer_release_go_back_and_those_around_them_untouched(redis_server: RedisServer, broker: RedisBroker) -> None:
    (first,) = put(broker)
    redis_server.command("XADD", STREAM, "*", "2", "of tomorrow")
    (last,) = put(broker)
    with pytest.raises(IncompatibleData, match="upgrade jobqueue"):
        take(broker)
    assert [state(broker, one) for one in (first, last)] == [JobState.QUEUED] * 2
    entries = redis_server.command("XRANGE", "ready:default:medium", "-", "+")
    assert {b"2": b"of tomorrow"} in [fields for _, fields in entries]
    assert [job.run for job in broker.get([first, last]) if job is not None] == [0, 0]
    assert letters(broker) == []


# What somebody has destroyed -----------------------------------------------------------------------------------------------------------------


def test_a_lease_is_kept_when_its_group_was_destroyed(redis_server: RedisServer, broker: RedisBroker) -> None:
    lease = begin(broker)
    redis_server.command("XGROUP", "DESTROY", STREAM, "workers")
    assert broker.renew([lease.token], worker_id="worker-1", lease_for=30 * SECOND).lost == frozenset()
    assert state(broker, lease.job.id) is JobState.PROCESSING
    assert settled(broker, completed(lease)) == [True]


def test_of_two_workers_that_run_a_job_after_its_group_was_destroyed_one_settles_it(redis_server: RedisServer, broker: RedisBroker) -> None:
    first = begin(broker)
    put(broker)
    redis_server.command("XGROUP", "DESTROY", STREAM, "workers")
    redis_server.command("SADD", "work", "default")
    second, _other = take(broker, worker_id="worker-2")
    assert second.token == first.token
    assert [settled(broker, completed(one, b'"%d"' % n)) for n, one in enumerate((second, first))] == [[True], [False]]
    assert [one.state for one in broker.outbox("history", 100).executions] == [ExecutionState.COMPLETED]


def test_a_running_job_ends_although_its_stream_was_deleted(redis_server: RedisServer, broker: RedisBroker) -> None:
    one, two = begin(broker), begin(broker)
    redis_server.command("DEL", STREAM)
    assert broker.renew([one.token, two.token], worker_id="worker-1", lease_for=30 * SECOND).lost == frozenset()
    assert settled(broker, completed(one), died(two)) == [True, True]
    assert [state(broker, lease.job.id) for lease in (one, two)] == [JobState.COMPLETED, JobState.DEAD]
    assert settled(broker, completed(one), died(two)) == [True, True]
    assert len(letters(broker)) == 1


def test_work_that_nobody_would_be_told_of_is_found_by_upkeep(redis_server: RedisServer, broker: RedisBroker) -> None:
    put(broker)
    put(broker, delay=0.001 * SECOND)
    redis_server.command("DEL", "work", "due", "held")
    assert take(broker) == []
    broker.reclaim(100, max_crashes=3)
    assert len(take(broker, lease_for=SECOND)) == 1
    assert broker.promote(100) == 1
    assert len(take(broker)) == 1
    redis_server.command("DEL", "held")
    until(lambda: broker.reclaim(100, max_crashes=3).requeued == 1)


def test_a_key_of_another_kind_in_the_way_holds_up_only_itself(redis_server: RedisServer, broker: RedisBroker) -> None:
    redis_server.command("SET", "stream:default:critical", "somebody's")
    (job_id,) = put(broker)
    assert [lease.job.id for lease in take(broker)] == [job_id]
    assert broker.reclaim(100, max_crashes=3) == Reclaimed()


@pytest.mark.parametrize("garbage", [("1", "some text"), ("payload", "x", "more", "y"), ("1", "x" * 10_000), ("0", "\x00\x01")], ids=str)
def test_garbage_becomes_a_dead_letter_and_is_never_handed_out(redis_server: RedisServer, broker: RedisBroker, garbage: tuple[str, ...]) -> None:
    put(broker)
    redis_server.command("XADD", STREAM, "*", *garbage)
    (good,) = put(broker)
    assert good in [lease.job.id for lease in take(broker)]
    (letter,) = letters(broker)
    assert letter.job.dead_reason is DeadReason.UNDECODABLE
    assert letter.raw
    assert state(broker, letter.job.id) is JobState.DEAD
    assert redis_server.command("XLEN", STREAM) == 2


def test_a_damaged_job_dies_under_its_own_id_and_no_other_does(redis_server: RedisServer, broker: RedisBroker) -> None:
    damaged, innocent = put(broker, 2)
    (entry, fields), _ = redis_server.command("XRANGE", STREAM, "-", "+")
    value = fields[b"1"]
    redis_server.command("XDEL", STREAM, entry)
    for text in (value[:80], innocent.encode()):
        redis_server.command("XADD", STREAM, "*", "1", text)
    moved = redis_server.command("XRANGE", STREAM, "-", "+")[1][0]
    redis_server.command("SET", f"job:{damaged}", b"\x01ws2default " + moved)
    (lease,) = take(broker)
    assert lease.job.id == innocent
    assert state(broker, damaged) is JobState.DEAD
    assert [letter.job.id == damaged for letter in letters(broker)].count(True) == 1
    assert innocent not in {letter.job.id for letter in letters(broker)}
    assert settled(broker, completed(lease)) == [True]


# Settling again ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [failed, snoozed], ids=lambda one: one.__name__)
def test_a_settle_that_is_sent_again_is_known_although_the_job_was_promoted(broker: RedisBroker, ending: Callable[..., object]) -> None:
    lease = begin(broker)
    end = ending(lease, delay=0.01 * SECOND)
    assert settled(broker, end) == [True]
    until(lambda: broker.promote(10) == 1)
    assert settled(broker, end) == [True]
    assert len(broker.outbox("history", 10).executions) == 1


def test_a_cancel_that_was_carried_out_and_whose_answer_was_lost_is_known(broker: RedisBroker) -> None:
    lease = begin(broker)
    broker.cancel(lease.job.id)
    assert settled(broker, failed(lease)) == [True]
    assert settled(broker, failed(lease)) == [True]
    assert state(broker, lease.job.id) is JobState.CANCELLED
    assert len(broker.outbox("history", 10).executions) == 1


def test_a_finished_job_still_shows_its_progress(broker: RedisBroker) -> None:
    lease = begin(broker)
    broker.report([report(lease, progress=Progress(fraction=0.75, message="nearly"))], worker_id="worker-1")
    assert settled(broker, completed(lease)) == [True]
    (job,) = broker.get([lease.job.id])
    assert job is not None
    assert job.progress == Progress(fraction=0.75, message="nearly")


# Leaving nothing behind --------------------------------------------------------------------------------------------------------------------


def test_consumers_go_when_they_hold_nothing_and_never_before(redis_server: RedisServer, broker: RedisBroker) -> None:
    put(broker, 2)
    (held,) = take(broker, 1, worker_id="holder")
    (done,) = take(broker, 1, worker_id="idle")
    assert settled(broker, completed(done)) == [True]
    broker.link.call("lapsed", broker.link.home, "0", 100, 0, 0)
    names = [consumer[b"name"] for consumer in redis_server.command("XINFO", "CONSUMERS", STREAM, "workers")]
    assert names == [b"holder:30000"]
    assert settled(broker, completed(held)) == [True]


def test_the_end_of_a_lease_leaves_neither_token_nor_progress(redis_server: RedisServer, broker: RedisBroker) -> None:
    ends = (completed, failed, died, snoozed)
    for ending in ends:
        lease = begin(broker)
        broker.report([report(lease, progress=Progress(fraction=0.5))], worker_id="worker-1")
        broker.cancel(lease.job.id)
        assert settled(broker, ending(lease)) == [True]
    lease = begin(broker)
    broker.cancel(lease.job.id)
    assert broker.release([release(lease)], worker_id="worker-1") == [True]
    assert [redis_server.command("EXISTS", key) for key in ("cancels", "progress", "logged")] == [0, 0, 0]
    assert redis_server.command("XLEN", STREAM) == redis_server.command("XLEN", "ready:default:medium") == 0


def test_new_job_of_the_factory_is_what_these_tests_think() -> None:
    assert (new_job().queue, new_job().priority.value) == ("default", "medium")


@pytest.mark.parametrize("ending", [completed, died], ids=lambda one: one.__name__)
def test_a_job_that_could_have_expired_is_remembered_for_that_no_longer_than_it_lives(
    redis_server: RedisServer, broker: RedisBroker, ending: Callable[..., object]
) -> None:
    lease = begin(broker, expires_in=timedelta(days=300))
    assert redis_server.command("ZCARD", "expiring") == 1
    assert settled(broker, ending(lease)) == [True]
    assert redis_server.command("EXISTS", "expiring") == 0
