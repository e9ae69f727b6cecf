"""Answers from a Redis Cluster, where each queue is a shard: everything is asked of all of them, and merged."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import timedelta

import pytest
from redis import Redis
from servers import RedisServer

from jobqueue_core.attempt import Lease
from jobqueue_core.broker import EventPage, JobFilter
from jobqueue_core.errors import InvalidJob
from jobqueue_core.job import JobState, new_job_id
from jobqueue_core.testing.factories import completed, died, new_job, new_jobs, tampered, type_info, worker_info
from jobqueue_redis import audit
from jobqueue_redis.broker import RedisBroker

_SECOND = timedelta(seconds=1)
_QUEUES = ["a", "b", "c", "d", "e"]

OpenBroker = Callable[..., RedisBroker]


@pytest.fixture
def cluster(shared_redis_cluster: RedisServer) -> RedisServer:
    """A cluster of one node."""
    return shared_redis_cluster


@pytest.fixture
def connect(cluster: RedisServer) -> Iterator[OpenBroker]:
    cluster.command("FLUSHALL")
    opened: list[RedisBroker] = []

    def connect(**options: int) -> RedisBroker:
        opened.append(RedisBroker(f"redis+cluster://127.0.0.1:{cluster.port}", namespace="here", **options))  # type: ignore[arg-type]  # max_pending
        return opened[-1]

    yield connect
    for broker in opened:
        broker.close()


@pytest.fixture
def broker(connect: OpenBroker) -> RedisBroker:
    return connect()


def put(broker: RedisBroker, count: int, **options: object) -> list[str]:
    """So many jobs in each queue."""
    ids = []
    for queue in _QUEUES:
        jobs = new_jobs(count, queue=queue, **options)
        for start in range(0, count, 500):
            assert {answer.status for answer in broker.enqueue(jobs[start : start + 500])} == {"created"}
        ids += [job.id for job in jobs]
    return ids


def take(broker: RedisBroker, limit: int, *, queues: Sequence[str] = _QUEUES) -> list[Lease]:
    return broker.lease(queues, limit, worker_id="worker-1", lease_for=30 * _SECOND, wait=timedelta(0), suspects=limit)


def walk(broker: RedisBroker, wanted: JobFilter | None = None, *, limit: int = 50) -> list[str]:
    found: list[str] = []
    cursor = None
    while True:
        page = broker.jobs(wanted or JobFilter(), cursor=cursor, limit=limit)
        assert len(page.jobs) <= limit
        found += [job.id for job in page.jobs]
        cursor = page.next
        if cursor is None:
            return found


def listen(broker: RedisBroker) -> str:
    return broker.events(None, limit=100, wait=timedelta(0)).position


def after(broker: RedisBroker, position: str, *, limit: int = 100, wait: timedelta = timedelta(0)) -> EventPage:
    return broker.events(position, limit=limit, wait=wait)


# Jobs and queues -----------------------------------------------------------------------------------------------------------------------


def test_jobs_of_all_queues_are_listed_newest_first(broker: RedisBroker) -> None:
    ids = put(broker, 7)
    assert walk(broker, limit=4) == sorted(ids, reverse=True)
    assert walk(broker, JobFilter(state=JobState.QUEUED), limit=4) == sorted(ids, reverse=True)
    assert walk(broker, JobFilter(queue="b")) == sorted(ids[7:14], reverse=True)
    taken = {lease.job.id for lease in take(broker, 10)}
    assert set(walk(broker, JobFilter(state=JobState.PROCESSING))) == taken


def test_more_jobs_than_one_call_may_look_at_come_once_each(broker: RedisBroker) -> None:
    ids = put(broker, 2_500)
    found = walk(broker, limit=500)
    assert sorted(found) == sorted(ids)
    found = walk(broker, JobFilter(state=JobState.QUEUED, queue="c"), limit=500)
    assert sorted(found) == sorted(ids[5_000:7_500])


def test_one_queue_with_more_jobs_than_one_call_may_look_at_is_listed_too(broker: RedisBroker) -> None:
    jobs = new_jobs(12_000, queue="only")
    for start in range(0, len(jobs), 500):
        broker.enqueue(jobs[start : start + 500])
    assert sorted(walk(broker, limit=500)) == sorted(job.id for job in jobs)


def test_a_cluster_without_a_queue_has_no_jobs_and_no_numbers(broker: RedisBroker) -> None:
    assert walk(broker) == []
    assert (broker.queues(), broker.outbox("history", 10).receipt, broker.prune(10)) == ([], (), 0)
    assert broker.outbox_lag().history == 0


def test_a_cursor_of_a_long_walk_that_was_tampered_with_is_refused_or_read(broker: RedisBroker) -> None:
    put(broker, 2_100)
    cursor = broker.jobs(JobFilter(), cursor=None, limit=20).next
    assert cursor is not None
    assert cursor.startswith("shard.")
    for forged in tampered(cursor):
        try:
            broker.jobs(JobFilter(), cursor=forged, limit=10)
        except InvalidJob as error:
            assert error.field == "cursor"


def test_jobs_are_found_by_id_also_with_ids_that_a_client_made(broker: RedisBroker) -> None:
    foreign = new_job(queue="a", id=new_job_id("elsewhere"))
    ids = [*put(broker, 2), foreign.id]
    broker.enqueue([foreign])
    assert [job.id for job in broker.get(ids) if job is not None] == ids
    assert broker.get([new_job_id("a")]) == [None]


def test_numbers_are_of_all_queues_by_name(broker: RedisBroker) -> None:
    put(broker, 3)
    broker.settle([completed(lease) for lease in take(broker, 2)], worker_id="worker-1")
    assert [(one.name, one.waiting, one.completed) for one in broker.queues()] == [("a", 1, 2), *((name, 3, 0) for name in "bcde")]
    assert broker.queue("unknown") is None


def test_workers_and_types_belong_to_no_queue(broker: RedisBroker, connect: OpenBroker) -> None:
    broker.beat(worker_info("worker-1", types=(type_info("a"),)))
    assert [worker.id for worker in connect().workers()] == ["worker-1"]
    assert [one.type for one in connect().types()] == ["a"]


# Outbox --------------------------------------------------------------------------------------------------------------------------------


def test_outboxes_of_all_queues_are_read_and_acknowledged_as_one(broker: RedisBroker, connect: OpenBroker) -> None:
    ids = set(put(broker, 4))
    for queue in _QUEUES:
        broker.settle([died(lease) for lease in take(broker, 4, queues=[queue])], worker_id="worker-1")
    lag = broker.outbox_lag()
    assert (lag.history, lag.dead) == (20, 20)
    assert lag.oldest_age > timedelta(0)
    found: list[str] = []
    while (batch := broker.outbox("history", 7)).receipt:
        assert len(batch.executions) == min(7, 20 - len(found))
        found += [one.job_id for one in batch.executions]
        connect().acknowledge(batch)
    assert (len(found), set(found)) == (20, ids)
    letters = broker.outbox("dead", 100)
    assert {letter.job.id for letter in letters.dead_letters} == ids
    broker.acknowledge(letters)
    lag = broker.outbox_lag()
    assert (lag.history, lag.dead, lag.oldest_age) == (0, 0, timedelta(0))


def test_history_is_capped_in_each_queue(connect: OpenBroker) -> None:
    broker = connect(max_pending=3)
    put(broker, 5)
    broker.settle([completed(lease) for lease in take(broker, 25)], worker_id="worker-1")
    broker.prune(100)
    lag = broker.outbox_lag()
    assert (lag.history, lag.dropped) == (15, 10)


def test_expired_jobs_of_all_queues_are_cancelled(broker: RedisBroker) -> None:
    put(broker, 2, expires_in=timedelta(milliseconds=1))
    deadline = broker.now() + timedelta(milliseconds=5)
    while broker.now() <= deadline:
        pass
    assert [broker.prune(4), broker.prune(4), broker.prune(4), broker.prune(4)] == [4, 4, 2, 0]


# Events --------------------------------------------------------------------------------------------------------------------------------


def test_events_of_all_queues_are_told_in_order_and_a_page_at_a_time(broker: RedisBroker) -> None:
    put(broker, 1)
    start = position = listen(broker)
    for queue in [*_QUEUES, *reversed(_QUEUES)]:
        broker.pause(queue)
    told: list[str] = []
    while (page := after(broker, position, limit=3)).events:
        told += [event.data["queue"] for event in page.events]
        assert page.position == page.events[-1].id
        position = page.position
    assert told == [*_QUEUES, *reversed(_QUEUES)]
    middle = after(broker, start, limit=4).events[-1].id
    assert [event.data["queue"] for event in after(broker, middle).events] == told[4:]


def test_an_event_of_any_queue_ends_the_wait(broker: RedisBroker) -> None:
    put(broker, 1)
    position = listen(broker)
    pausing = threading.Timer(0.1, broker.pause, ["d"])
    pausing.start()
    began = time.monotonic()
    assert [event.data["queue"] for event in after(broker, position, wait=10 * _SECOND).events] == ["d"]
    assert time.monotonic() - began < 5
    pausing.join()


def test_a_queue_that_is_new_is_told_of_from_the_next_look_on(broker: RedisBroker, connect: OpenBroker) -> None:
    put(broker, 1)
    position = listen(broker)
    broker.pause("new")
    other = connect()
    page = after(other, position)
    assert not page.reset
    broker.resume("new")
    page = after(other, page.position)
    assert [(event.kind, event.data["queue"]) for event in page.events] == [("resumed", "new")]


def test_whoever_listens_before_there_is_a_queue_is_told_of_the_first_and_of_others(broker: RedisBroker, connect: OpenBroker) -> None:
    position = listen(broker)
    for number in (1, 2):
        broker.enqueue([new_job(queue=f"queue-{number}")])
        page = after(connect(), position)
        assert (page.events, page.reset) == ((), False)
        broker.pause(f"queue-{number}")
        page = after(connect(), page.position, wait=_SECOND)
        assert [event.data["queue"] for event in page.events] == [f"queue-{number}"]
        position = page.position


@pytest.mark.parametrize("position", ["nonsense", "1-1", "AAAA", "gaNmb28=", "ö"])
def test_a_position_that_was_never_given_is_answered_by_a_reset(broker: RedisBroker, position: str) -> None:
    put(broker, 1)
    listen(broker)
    page = after(broker, position)
    assert (page.events, page.reset) == ((), True)
    assert not after(broker, page.position).reset


def test_a_log_that_one_queue_has_lost_is_owned_up_to(broker: RedisBroker, cluster: RedisServer) -> None:
    put(broker, 1)
    position = listen(broker)
    cluster.command("DEL", "here:{b}events:listened")
    assert after(broker, position).reset


# Doctor --------------------------------------------------------------------------------------------------------------------------------


def test_jobs_astray_are_found_in_each_queue(broker: RedisBroker, cluster: RedisServer) -> None:
    ids = put(broker, 3)
    for queue in "ad":
        cluster.command("DEL", f"here:{{{queue}}}stream:{queue}:medium")
    found = list(audit.strays(broker.link))
    assert {one.job_id for one in found} == {*ids[:3], *ids[9:12]}
    assert audit.mend(broker.link, found, ttl_ms=1000, last_death=lambda _job_id: 0) == 6
    assert broker.outbox_lag().dead == 6
    assert list(audit.strays(broker.link)) == audit.neglected(broker.link, mend=False) == []
    assert audit.leases(broker.link) == (0, [])


def test_a_single_server_has_positions_that_are_short(redis_url: str, redis_namespace: str, redis_client: Redis) -> None:
    with closing(RedisBroker(redis_url, namespace=redis_namespace)) as broker:
        assert listen(broker).encode() == redis_client.get(f"{redis_namespace}:events:listened")
