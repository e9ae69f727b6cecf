"""Answers from Redis: lists of more jobs than one call may look at, and numbers that cost the same whatever the depth."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest
from redis import Redis
from servers import RedisServer

from jobqueue_core.attempt import Lease
from jobqueue_core.broker import JobFilter, JobPage
from jobqueue_core.errors import IncompatibleData, InvalidJob
from jobqueue_core.job import Job, JobState, NewJob, Priority, new_job_id
from jobqueue_core.testing.factories import completed, failed, new_job, new_jobs, tampered
from jobqueue_redis.broker import RedisBroker
from jobqueue_redis.keyspace import Part, Scanner
from jobqueue_redis.values import EPOCH, rest_of

_HOUR = timedelta(hours=1)
_EXAMINED = 10_000


# Arrangement ---------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(start_redis: Callable[..., RedisServer]) -> RedisServer:
    """Of the test's own: its keys and commands are counted."""
    return start_redis(appendonly=False)


@pytest.fixture
def client(server: RedisServer) -> Iterator[Redis]:
    with Redis.from_url(server.url) as client:
        yield client


@pytest.fixture
def broker(server: RedisServer) -> Iterator[RedisBroker]:
    with closing(RedisBroker(server.url)) as broker:
        yield broker


def put(broker: RedisBroker, jobs: Sequence[NewJob]) -> list[str]:
    for start in range(0, len(jobs), 500):
        assert {answer.status for answer in broker.enqueue(jobs[start : start + 500])} == {"created"}
    return [job.id for job in jobs]


def take(broker: RedisBroker, limit: int = 1000, *, queues: Sequence[str] = ("default",)) -> list[Lease]:
    return broker.lease(queues, limit, worker_id="worker-1", lease_for=timedelta(seconds=30), wait=timedelta(0), suspects=1000)


def write_finished(client: Redis, count: int) -> list[str]:
    """Records of finished jobs, as settling leaves them behind; written at once, because running so many takes long."""
    ids = [new_job_id("default") for _ in range(count)]
    for start in range(0, count, 1000):
        client.mset({f"job:{job_id}": _finished(job_id) for job_id in ids[start : start + 1000]})
    return ids


def _finished(job_id: str) -> bytes:
    job = Job(
        id=job_id,
        type="test.finished",
        payload_json=b"{}",
        queue="default",
        priority=Priority.MEDIUM,
        state=JobState.COMPLETED,
        created_at=EPOCH,
    )
    return b"\x01fc0:default " + bytes(8) + rest_of(job, keeps=False)


def walk(
    broker: RedisBroker, wanted: JobFilter | None = None, *, limit: int = 500, meanwhile: Callable[[int], object] = lambda _page: None
) -> list[JobPage]:
    """All pages; *meanwhile* is called after each with its number."""
    pages: list[JobPage] = []
    cursor = None
    while True:
        pages.append(broker.jobs(wanted or JobFilter(), cursor=cursor, limit=limit))
        cursor = pages[-1].next
        if cursor is None:
            return pages
        meanwhile(len(pages))


def ids_of(pages: Sequence[JobPage]) -> list[str]:
    return [job.id for page in pages for job in page.jobs]


def calls(client: Redis, what: str = "") -> int:
    """How many commands the server has carried out, also within scripts; those that begin with *what*."""
    stats: dict[str, Any] = client.info("commandstats")
    return sum(one["calls"] for name, one in stats.items() if name.startswith(f"cmdstat_{what}") and not name.startswith("cmdstat_info"))


# Lists ---------------------------------------------------------------------------------------------------------------------------------


def test_a_walk_over_many_pages_finds_each_job_once(broker: RedisBroker, client: Redis) -> None:
    ids = write_finished(client, 25_000)
    found = ids_of(walk(broker))
    assert len(found) == len(ids)
    assert set(found) == set(ids)


def test_nothing_comes_twice_and_nothing_is_missed_while_the_table_of_keys_grows(broker: RedisBroker, client: Redis) -> None:
    ids = write_finished(client, 15_000)
    found = ids_of(walk(broker, meanwhile=lambda page: write_finished(client, 4_000) if page < 20 else None))
    assert client.dbsize() > 5 * len(ids)
    assert len(found) == len(set(found))
    assert set(ids) <= set(found)


def test_nothing_comes_twice_and_nothing_is_missed_while_the_table_of_keys_shrinks(broker: RedisBroker, client: Redis) -> None:
    ids = write_finished(client, 60_000)
    stay = set(random.sample(ids, 2_000))
    go = [job_id for job_id in ids if job_id not in stay]

    def shrink(page: int) -> None:
        if page == 20:
            for start in range(0, len(go), 1000):
                client.unlink(*(f"job:{job_id}" for job_id in go[start : start + 1000]))
            table = client.execute_command("DEBUG", "HTSTATS", 0).split(b"[Expires")[0]
            assert b"table size: 131072" not in table or b"rehashing target" in table, "the table must shrink for this test to say anything"

    found = ids_of(walk(broker, limit=1000, meanwhile=shrink))
    assert len(found) > 20_000
    assert len(found) == len(set(found))
    assert stay <= set(found)


def test_each_part_of_a_long_list_goes_from_new_to_old(broker: RedisBroker, client: Redis) -> None:
    write_finished(client, 25_000)
    found = ids_of(walk(broker))
    rises = sum(after > before for before, after in itertools.pairwise(found))
    assert 1 <= rises < 16


def test_a_list_that_becomes_long_in_the_middle_of_a_walk_goes_on_rightly(broker: RedisBroker, client: Redis) -> None:
    ids = write_finished(client, 8_000)
    found = ids_of(walk(broker, meanwhile=lambda page: write_finished(client, 30_000) if page == 5 else None))
    assert found[: 5 * 500] == sorted(ids, reverse=True)[: 5 * 500]
    assert len(found) == len(set(found))
    assert set(ids) <= set(found)


def test_a_page_looks_at_ten_thousand_jobs_at_most(broker: RedisBroker, client: Redis) -> None:
    put(broker, [new_job(type="test.rare")])
    write_finished(client, 30_000)
    looked_at: list[int] = []
    before = calls(client, "get")

    def look(_page: int) -> None:
        nonlocal before
        looked_at.append(calls(client, "get") - before)
        before = calls(client, "get")

    pages = walk(broker, JobFilter(type="test.rare"), limit=50, meanwhile=look)
    assert len(ids_of(pages)) == 1
    assert len(pages) >= 3
    assert max(looked_at) <= _EXAMINED
    assert len(pages) <= 10


def test_a_database_full_of_other_things_is_gone_through_a_little_at_a_time(broker: RedisBroker, client: Redis) -> None:
    ids = put(broker, new_jobs(40))
    for start in range(0, 300_000, 10_000):
        client.mset({f"of another program {number}": 1 for number in range(start, start + 10_000)})
    scans: list[int] = []
    before = calls(client, "scan")

    def look(_page: int) -> None:
        nonlocal before
        scans.append(calls(client, "scan") - before)
        before = calls(client, "scan")

    pages = walk(broker, limit=1000, meanwhile=look)
    assert sorted(ids_of(pages)) == sorted(ids)
    assert max(scans) < 250
    assert len(pages) < 10


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.PROCESSING, JobState.SCHEDULED, JobState.RETRYING])
def test_jobs_that_are_not_finished_are_found_among_many_that_are_without_going_through_these(
    broker: RedisBroker, client: Redis, state: JobState
) -> None:
    put(broker, [new_job(queue=f"queue-{number % 3}") for number in range(60)])
    leases = [lease for number in range(3) for lease in take(broker, 10, queues=[f"queue-{number}"])]
    broker.settle([failed(lease, delay=_HOUR) for lease in leases[::2]], worker_id="worker-1")
    put(broker, [new_job(queue=f"queue-{number}", delay=_HOUR) for number in range(3)])
    write_finished(client, 30_000)
    client.config_resetstat()
    (page,) = walk(broker, JobFilter(state=state))
    assert calls(client, "scan") == 0
    assert len(page.jobs) == {JobState.QUEUED: 30, JobState.PROCESSING: 15, JobState.SCHEDULED: 3, JobState.RETRYING: 15}[state]
    assert {job.state for job in page.jobs} == {state}
    assert [job.id for job in page.jobs] == sorted((job.id for job in page.jobs), reverse=True)


@pytest.mark.parametrize(("count", "is_sorted"), [(9_990, True), (12_000, False)])
def test_of_jobs_in_one_state_up_to_ten_thousand_are_listed_newest_first_and_more_each_once(broker: RedisBroker, count: int, is_sorted: bool) -> None:
    ids = put(broker, [new_job(queue=f"queue-{number % 2}", payload_json=b'"%d"' % number) for number in range(count)])
    put(broker, new_jobs(20, queue="queue-0", delay=_HOUR))
    found = ids_of(walk(broker, JobFilter(state=JobState.QUEUED)))
    assert sorted(found) == sorted(ids)
    assert (found == sorted(ids, reverse=True)) is is_sorted


def test_a_job_that_moves_during_a_walk_over_its_state_comes_once(broker: RedisBroker) -> None:
    ids = put(broker, new_jobs(300))

    def move(_page: int) -> None:
        broker.reclaim_worker("worker-1", started=(), error="stopped", max_crashes=3)
        take(broker, 50)

    found = ids_of(walk(broker, JobFilter(state=JobState.QUEUED), limit=20, meanwhile=move))
    assert len(found) == len(set(found))
    assert set(found) <= set(ids)
    assert len(found) >= 250


def test_big_payloads_do_not_make_a_script_of_a_list_read_them_all_at_once(broker: RedisBroker, client: Redis) -> None:
    put(broker, [new_job(payload_json=b'"' + b"x" * 200_000 + b'"') for _ in range(60)])
    client.config_resetstat()
    assert len(ids_of(walk(broker, JobFilter(state=JobState.QUEUED), limit=1))) == 60
    client.config_resetstat()
    broker.jobs(JobFilter(state=JobState.QUEUED), cursor=None, limit=1)
    assert calls(client, "evalsha") > 3


def test_a_cursor_of_a_long_walk_that_was_tampered_with_is_refused_or_read(broker: RedisBroker, client: Redis) -> None:
    write_finished(client, 12_000)
    cursor = broker.jobs(JobFilter(), cursor=None, limit=10).next
    assert cursor is not None
    assert "~" in cursor
    for forged in (*tampered(cursor), "33.0", "1.2", "1.0~" * 70 + "1.1", "shard.zz.0@@", f"{cursor}~", "@", "1.0@"):
        try:
            assert len(broker.jobs(JobFilter(), cursor=forged, limit=10).jobs) <= 10
        except InvalidJob as error:
            assert error.field == "cursor"


def test_what_stands_under_the_name_of_a_record_and_is_none_is_not_listed(broker: RedisBroker, client: Redis) -> None:
    (job_id,) = put(broker, [new_job()])
    client.mset({"job:": b"", "job:nonsense": b"x", f"job:{job_id}x": b"x", "jobs:" + job_id: b"x"})
    client.xadd("stream:default:medium", {"1": b"nothing of ours"})
    client.zadd("delayed:default", {"nonsense": 1})
    client.zadd("due", {"default": 1})
    assert ids_of(walk(broker)) == [job_id]
    assert ids_of(walk(broker, JobFilter(state=JobState.QUEUED))) == [job_id]
    assert ids_of(walk(broker, JobFilter(state=JobState.SCHEDULED))) == []


def test_a_namespace_with_special_characters_lists_its_own_jobs_only(server: RedisServer) -> None:
    namespaces = ["a*", "ab", "a?c", "[ab]", "a\\b"]
    brokers = [RedisBroker(server.url, namespace=namespace) for namespace in namespaces]
    ids = [put(broker, [new_job()]) for broker in brokers]
    assert [ids_of(walk(broker)) for broker in brokers] == ids
    for broker in brokers:
        broker.close()


def test_parts_of_the_keyspace_do_not_overlap_and_leave_nothing_out(broker: RedisBroker, client: Redis) -> None:
    ids = write_finished(client, 3_000)
    for level in (0, 1, 4, 7):
        found = [Scanner(broker.link).ids(broker.link.home, Part(level, index)) or set() for index in range(1 << level)]
        assert sum(map(len, found)) == len(ids)
        assert set().union(*found) == set(ids)


# Jobs by id ----------------------------------------------------------------------------------------------------------------------------


def test_many_jobs_are_looked_up_in_a_few_scripts(broker: RedisBroker, client: Redis) -> None:
    ids = put(broker, new_jobs(1_000))
    assert broker.get([]) == []
    broker.get(ids[:1])
    client.config_resetstat()
    assert [job.id for job in broker.get(ids) if job is not None] == ids
    assert calls(client, "evalsha") == 5


def test_a_record_of_a_newer_release_is_refused_by_name(broker: RedisBroker, client: Redis) -> None:
    (job_id,) = put(broker, [new_job()])
    client.set(f"job:{job_id}", b"\x02whatever")
    with pytest.raises(IncompatibleData, match="upgrade jobqueue"):
        broker.get([job_id])


@pytest.mark.parametrize(
    "record", [b"", b"\x01", b"\x01q", b"\x01w", b"\x01ws2default", b"\x01ws9default 1-1", b"\x01dd2default short", b"\x01fc0:default "]
)
def test_a_record_that_cannot_be_read_hides_no_other_job(broker: RedisBroker, client: Redis, record: bytes) -> None:
    good, bad = put(broker, new_jobs(2))
    client.set(f"job:{bad}", record)
    shown = broker.get([bad, good])
    assert [job.id for job in shown if job is not None] == [bad, good]
    assert set(ids_of(walk(broker))) == {good, bad}


# Queues --------------------------------------------------------------------------------------------------------------------------------


def test_numbers_of_a_queue_cost_the_same_with_ten_jobs_and_with_ten_thousand(broker: RedisBroker, client: Redis) -> None:
    def fill(queue: str, count: int) -> None:
        put(broker, [new_job(queue=queue, priority=priority) for priority in Priority for _ in range(count)])
        put(broker, new_jobs(count, queue=queue, delay=_HOUR))
        leases = take(broker, count, queues=[queue])
        broker.settle([completed(lease) for lease in leases[: count // 2]], worker_id="worker-1")

    costs = []
    for queue, count in (("small", 2), ("large", 2_000)):
        fill(queue, count)
        client.config_resetstat()
        stats = broker.queue(queue)
        costs.append(calls(client))
        assert stats is not None
        assert (stats.waiting, stats.processing, stats.scheduled, stats.completed) == (3 * count, count // 2, count, count // 2)
    assert costs[0] == costs[1]


def test_numbers_of_many_queues_take_a_script_for_twenty_five(broker: RedisBroker, client: Redis) -> None:
    put(broker, [new_job(queue=f"queue-{number:03}") for number in range(120)])
    broker.queue("queue-000")
    client.config_resetstat()
    assert [one.name for one in broker.queues()] == [f"queue-{number:03}" for number in range(120)]
    assert calls(client, "evalsha") == 5


def test_rates_are_of_the_last_five_minutes_and_of_no_others(broker: RedisBroker, client: Redis) -> None:
    put(broker, new_jobs(3))
    slot = int(client.time()[0]) // 30
    for before, count in ((4, 60), (8, 900), (12, 10_000)):
        client.hset(f"rate:default:{slot - before}", "completed", count)
    stats = broker.queue("default")
    assert stats is not None
    assert stats.rates == {"enqueued": 3 / 300, "completed": 960 / 300, "failed": 0, "dead": 0}


def test_before_a_group_is_made_and_after_it_is_destroyed_all_jobs_wait(broker: RedisBroker, client: Redis) -> None:
    put(broker, new_jobs(5))
    stats = broker.queue("default")
    assert stats is not None
    assert (stats.waiting, stats.processing) == (5, 0)
    assert stats.oldest_age is not None
    take(broker, 2)
    client.xgroup_destroy("stream:default:medium", "workers")
    stats = broker.queue("default")
    assert stats is not None
    assert (stats.waiting, stats.processing) == (5, 0)


def test_the_age_of_a_job_given_back_counts_from_then_and_is_never_negative(broker: RedisBroker, client: Redis) -> None:
    put(broker, new_jobs(2))
    take(broker, 1)
    broker.reclaim_worker("worker-1", started=(), error="stopped", max_crashes=3)
    take(broker, 2)
    client.xadd("ready:default:high", {"1": b"from a clock that is ahead"}, id=f"{(int(client.time()[0]) + 3600) * 1000}-0")
    stats = broker.queue("default")
    assert stats is not None
    assert stats.oldest_age == timedelta(0)


def test_a_paused_queue_that_never_had_a_job_is_listed(broker: RedisBroker) -> None:
    broker.pause("empty")
    (stats,) = broker.queues()
    assert (stats.name, stats.paused, stats.waiting, stats.oldest_age) == ("empty", True, 0, None)
