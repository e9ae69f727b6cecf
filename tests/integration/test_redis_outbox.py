"""The outboxes in Redis: batches as entries, read in parts, acknowledged by anybody in any order; and capped."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta

import msgspec
import pytest
from msgspec.structs import replace
from redis import Redis
from servers import RedisServer

from jobqueue_core.attempt import Lease
from jobqueue_core.broker import OutboxBatch
from jobqueue_core.errors import IncompatibleData, QueueFull
from jobqueue_core.job import Job
from jobqueue_core.testing.factories import completed, died, execution, new_job, new_jobs
from jobqueue_redis.broker import RedisBroker

_SECOND = timedelta(seconds=1)
_HISTORY = "outbox:history"

OpenBroker = Callable[..., RedisBroker]


# Arrangement ---------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def connect(redis_url: str, redis_namespace: str) -> Iterator[OpenBroker]:
    opened: list[RedisBroker] = []

    def connect(*, max_pending: int = 1_000_000) -> RedisBroker:
        opened.append(RedisBroker(redis_url, namespace=redis_namespace, max_pending=max_pending))
        return opened[-1]

    yield connect
    for broker in opened:
        broker.close()


@pytest.fixture
def broker(connect: OpenBroker) -> RedisBroker:
    return connect()


@pytest.fixture
def key(redis_namespace: str) -> Callable[[str], str]:
    return lambda name: f"{redis_namespace}:{name}"


def take(broker: RedisBroker, limit: int) -> list[Lease]:
    return broker.lease(["default"], limit, worker_id="worker-1", lease_for=30 * _SECOND, wait=timedelta(0), suspects=limit)


def run(broker: RedisBroker, *sizes: int) -> list[str]:
    """Run jobs to their end, so many in one call for each of *sizes*; their ids, in order."""
    ids: list[str] = []
    for size in sizes:
        broker.enqueue(new_jobs(size))
        leases = take(broker, size)
        assert len(leases) == size
        assert all(broker.settle([completed(lease) for lease in leases], worker_id="worker-1"))
        ids += [lease.job.id for lease in leases]
    return ids


def read(broker: RedisBroker, limit: int) -> list[str]:
    return [one.job_id for one in broker.outbox("history", limit).executions]


def ids_in(batch: OutboxBatch) -> list[str]:
    return [one.job_id for one in batch.executions]


# Parts ---------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 3, 7, 10, 13, 40, 100])
def test_a_reader_gets_as_many_rows_as_it_asked_for_whatever_the_batches_were(broker: RedisBroker, limit: int) -> None:
    ids = run(broker, 10, 1, 25, 4)
    found: list[str] = []
    while len(found) < len(ids):
        batch = broker.outbox("history", limit)
        assert len(batch.executions) == min(limit, len(ids) - len(found))
        found += ids_in(batch)
        broker.acknowledge(batch)
        assert broker.outbox_lag().history == len(ids) - len(found)
    assert found == ids
    assert broker.outbox("history", limit).receipt == ()


def test_readers_of_parts_that_overlap_lose_and_double_nothing_in_any_order(broker: RedisBroker, connect: OpenBroker) -> None:
    chance = random.Random(7)
    ids = run(broker, *(chance.randint(1, 12) for _ in range(40)))
    readers = [broker, connect(), connect()]
    held: list[OutboxBatch] = []
    stored: set[str] = set()
    while broker.outbox_lag().history:
        held.append(chance.choice(readers).outbox("history", chance.randint(1, 20)))
        stored.update(ids_in(held[-1]))
        if len(held) > 4 or chance.random() < 0.3:
            batch = held.pop(chance.randrange(len(held)))
            chance.choice(readers).acknowledge(batch)
            if chance.random() < 0.3:
                chance.choice(readers).acknowledge(batch)
        lag = broker.outbox_lag().history
        waiting = [one.job_id for one in broker.outbox("history", 10_000).executions]
        assert len(waiting) == lag
        assert set(ids) <= stored | set(waiting)
    for batch in held:
        broker.acknowledge(batch)
    assert stored == set(ids)
    assert broker.outbox_lag().history == 0


def test_what_is_read_in_parts_leaves_nothing_behind(broker: RedisBroker, redis_client: Redis, key: Callable[[str], str]) -> None:
    run(broker, 10, 10)
    first = broker.outbox("history", 15)
    broker.acknowledge(first)
    assert redis_client.hlen(key("outbox:lag")) == 2
    broker.acknowledge(broker.outbox("history", 15))
    broker.acknowledge(first)
    assert redis_client.hgetall(key("outbox:lag")) == {b"history": b"0"}
    assert redis_client.xlen(key(_HISTORY)) == 0


def test_a_part_that_was_acknowledged_before_it_was_dropped_is_not_dropped_again(connect: OpenBroker) -> None:
    broker = connect(max_pending=20)
    ids = run(broker, 15)
    batch = broker.outbox("history", 10)
    broker.acknowledge(batch)
    ids += run(broker, 25)
    assert read(broker, 100) == ids[-20:]
    for _ in range(2):
        lag = broker.outbox_lag()
        assert (lag.history, lag.dropped) == (20, 10)
        broker.acknowledge(batch)


def test_what_was_dropped_while_a_reader_had_it_counts_once(connect: OpenBroker) -> None:
    broker = connect(max_pending=10)
    ids = run(broker, 10)
    batch = broker.outbox("history", 8)
    ids += run(broker, 4)
    assert broker.outbox_lag().dropped == 4
    broker.acknowledge(batch)
    assert read(broker, 100) == ids[8:]
    lag = broker.outbox_lag()
    assert (lag.history, lag.dropped) == (6, 4)


def test_what_is_too_much_by_far_is_dropped_exactly_by_one_call_of_prune(connect: OpenBroker) -> None:
    ids = run(connect(), *([5] * 130), 7)
    broker = connect(max_pending=3)
    broker.prune(100)
    lag = broker.outbox_lag()
    assert (lag.history, lag.dropped) == (3, len(ids) - 3)
    assert read(broker, 100) == ids[-3:]


def test_rows_of_a_batch_that_were_refused_are_not_told(broker: RedisBroker, redis_client: Redis, key: Callable[[str], str]) -> None:
    broker.enqueue(new_jobs(4))
    leases = take(broker, 4)
    broker.settle([completed(leases[1])], worker_id="worker-1")
    broker.reclaim_worker("worker-1", started=[leases[3].job.id], error="killed", max_crashes=3)
    assert broker.settle([completed(lease) for lease in leases], worker_id="worker-1") == [False, True, False, False]
    broker.enqueue(new_jobs(2))
    one, two = (
        lease for lease in take(broker, 10) if lease.job.run == 1 and lease.job.crashes == 0 and lease.job.id not in {x.job.id for x in leases}
    )
    broker.reclaim_worker("worker-1", started=[], error="killed", max_crashes=3)
    again = {lease.job.id: lease for lease in take(broker, 10)}
    broker.settle([completed(one), completed(again[two.job.id])], worker_id="worker-1")
    history = broker.outbox("history", 100).executions
    assert [(row.job_id, row.state.value) for row in history] == [
        (leases[1].job.id, "completed"),
        (leases[3].job.id, "lost"),
        (two.job.id, "completed"),
    ]
    assert redis_client.xrange(key(_HISTORY))[-1][1][b"x"] == b"0"
    assert broker.outbox_lag().history == 3


def test_rows_and_dead_letters_tell_the_brokers_time(broker: RedisBroker) -> None:
    before = broker.now()
    broker.enqueue(new_jobs(2))
    broker.settle([died(lease) for lease in take(broker, 2)], worker_id="worker-1")
    after = broker.now()
    rows, letters = broker.outbox("history", 10).executions, broker.outbox("dead", 10).dead_letters
    assert all(before < row.finished_at < after for row in rows)
    assert all(before < letter.died_at < after for letter in letters)
    assert [letter.died_at for letter in letters] == [letter.job.completed_at for letter in letters]
    assert [letter.job for letter in letters] == broker.get([letter.job.id for letter in letters])


# Bounds --------------------------------------------------------------------------------------------------------------------------------


def test_big_dead_letters_are_read_a_few_at_a_time_and_all_of_them(broker: RedisBroker) -> None:
    payload = b'"' + b"x" * (1 << 20) + b'"'
    for _ in range(20):
        broker.enqueue([new_job(payload_json=payload)])
        broker.settle([died(lease) for lease in take(broker, 1)], worker_id="worker-1")
    jobs: list[Job] = []
    while batch := broker.outbox("dead", 1000):
        if not batch.receipt:
            break
        assert len(batch.dead_letters) < 20
        jobs += [letter.job for letter in batch.dead_letters]
        broker.acknowledge(batch)
    assert len({job.id for job in jobs}) == len(jobs) == 20
    assert {job.payload_json for job in jobs} == {payload}


def test_thousands_of_small_batches_are_read_by_one_call(broker: RedisBroker) -> None:
    ids = run(broker, *([1] * 1_200))
    batch = broker.outbox("history", 1_000)
    assert ids_in(batch) == ids[:1_000]
    broker.acknowledge(batch)
    assert read(broker, 1_000) == ids[1_000:]


# What others do ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"1": b"not msgpack", "n": 1, "t": 1},
        {"1": msgspec.msgpack.encode([["too", "short"]]), "n": 1, "t": 1},
        {"1": msgspec.msgpack.encode([]), "t": b"never", "n": 0},
        {"n": 1},
        {"of": "somebody else"},
    ],
)
@pytest.mark.parametrize("kind", ["history", "dead"])
def test_an_entry_that_cannot_be_read_is_counted_and_acknowledged_and_hides_nothing(
    broker: RedisBroker, redis_client: Redis, key: Callable[[str], str], fields: dict[str, bytes | int], kind: str
) -> None:
    stream = key(f"outbox:{kind}")
    broker.enqueue(new_jobs(2))
    for lease in take(broker, 2):
        redis_client.xadd(stream, fields)  # type: ignore[arg-type]  # text and bytes are all it takes
        broker.settle([died(lease)], worker_id="worker-1")
    batch = broker.outbox("dead" if kind == "dead" else "history", 10)
    assert batch.malformed == 2
    assert len(batch.executions) + len(batch.dead_letters) == 2
    broker.acknowledge(batch)
    assert redis_client.xlen(stream) == 0
    lag = broker.outbox_lag()
    assert {lag.history, lag.dead} == {0, 2}


def test_an_entry_of_a_newer_release_waits_for_it_and_what_is_before_is_read(
    broker: RedisBroker, redis_client: Redis, key: Callable[[str], str]
) -> None:
    ids = run(broker, 3)
    redis_client.xadd(key(_HISTORY), {"2": b"of tomorrow", "n": 1, "t": 1})
    ids += run(broker, 2)
    batch = broker.outbox("history", 10)
    assert (ids_in(batch), batch.malformed) == (ids[:3], 0)
    broker.acknowledge(batch)
    with pytest.raises(IncompatibleData, match="upgrade jobqueue"):
        broker.outbox("history", 10)
    assert redis_client.xlen(key(_HISTORY)) == 2


def test_an_outbox_that_somebody_has_deleted_does_not_count_for_ever(broker: RedisBroker, redis_client: Redis, key: Callable[[str], str]) -> None:
    run(broker, 10)
    broker.acknowledge(broker.outbox("history", 4))
    redis_client.delete(key(_HISTORY))
    broker.prune(100)
    assert redis_client.hgetall(key("outbox:lag")) == {b"history": b"0"}
    ids = run(broker, 2)
    assert (read(broker, 10), broker.outbox_lag().history) == (ids, 2)


def test_a_receipt_of_another_broker_removes_nothing(broker: RedisBroker) -> None:
    ids = run(broker, 2)
    batch = broker.outbox("history", 1)
    forged = OutboxBatch(kind="history", receipt=tuple(one.replace(one.split("-")[0], "1") for one in batch.receipt))
    broker.acknowledge(forged)
    assert read(broker, 10) == ids


def test_a_full_server_still_takes_acknowledgements_of_wholes_and_of_parts(redis_server: RedisServer) -> None:
    with closing(RedisBroker(redis_server.url)) as broker:
        ids = run(broker, 10, 10)
        whole = broker.outbox("history", 10)
        broker.acknowledge(whole)
        part = broker.outbox("history", 4)
        redis_server.config(maxmemory="100kb")
        with pytest.raises(QueueFull):
            broker.enqueue(new_jobs(1))
        broker.acknowledge(part)
        assert read(broker, 100) == ids[14:]
        broker.prune(100)
        assert broker.outbox_lag().history == 6


def test_an_execution_in_full_comes_back_as_it_was(broker: RedisBroker, redis_client: Redis, key: Callable[[str], str]) -> None:
    row = execution()
    redis_client.xadd(key(_HISTORY), {"1": msgspec.msgpack.encode([row]), "n": 1, "t": 1_900_000_000_000_000})
    assert broker.outbox("history", 10).executions == (row,)
    assert replace(row, error="x") != row
