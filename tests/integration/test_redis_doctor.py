"""What ``jobqueue doctor`` finds on a Redis that somebody has been at, and what it mends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from redis import Redis
from redis_invariants import check_invariants
from servers import RedisServer

from jobqueue_core.app import App
from jobqueue_core.attempt import Lease
from jobqueue_core.broker import RunningJob
from jobqueue_core.checks import Finding
from jobqueue_core.job import DeadReason, Job, JobState, new_job_id
from jobqueue_core.recorder import Recorder
from jobqueue_core.testing.factories import completed, died, failed, log_line, new_jobs, report, worker_info
from jobqueue_redis.checks import checks

_HOUR = timedelta(hours=1)
_SECOND = timedelta(seconds=1)

Key = Callable[[str], str]
Examine = Callable[..., list[Finding]]
OpenApp = Callable[..., App]


# Arrangement ---------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def open_app(tmp_path: Path) -> Iterator[OpenApp]:
    """Open an app whose jobs are in Redis, and whose history is in a file."""
    opened: list[App] = []

    def open_app(url: str, *, namespace: str = "", more: str = "") -> App:
        config = tmp_path / f"jobqueue-{len(opened)}.toml"
        config.write_text(f'[run]\nnamespace = "{namespace}"\n[broker]\nplugin = "redis"\nurl = "{url}"\n{more}\n[storage]\nplugin = "sqlite"\n')
        opened.append(App.from_config(config, environ={}))
        return opened[-1]

    yield open_app
    for app in opened:
        app.close()


@pytest.fixture
def app(open_app: OpenApp, redis_url: str, redis_namespace: str) -> App:
    return open_app(redis_url, namespace=redis_namespace)


@pytest.fixture
def examine(app: App) -> Examine:
    """Run one of the checks; as a rule its findings that are not in order."""
    return lambda name, **options: look(app, name, **options)


def look(app: App, name: str, *, fix: bool = False, everything: bool = False) -> list[Finding]:
    (check,) = [check for check in checks() if check.name == f"redis {name}"]
    return [finding for finding in check.run(app, fix) if everything or finding.level != "ok"]


@pytest.fixture
def key(redis_namespace: str) -> Key:
    return lambda name: f"{redis_namespace}:{name}"


def put(app: App, count: int, **options: object) -> list[str]:
    answers = app.broker.enqueue(new_jobs(count, **options))
    assert {answer.status for answer in answers} == {"created"}
    return [answer.job.id for answer in answers if answer.job is not None]


def take(app: App, limit: int = 500, *, lease_for: timedelta = 30 * _SECOND) -> list[Lease]:
    return app.broker.lease(["default"], limit, worker_id="worker-1", lease_for=lease_for, wait=timedelta(0), suspects=limit)


def job(app: App, job_id: str) -> Job:
    (found,) = app.broker.get([job_id])
    assert found is not None
    return found


def record(app: App) -> None:
    Recorder(broker=app.broker, storage=app.storage).record_waiting()


# In order ------------------------------------------------------------------------------------------------------------------------------


def test_a_database_in_use_is_found_in_order(app: App, examine: Examine) -> None:
    put(app, 10, unique_key=None)
    put(app, 1, unique_key="one", queue="other")
    put(app, 3, delay=_HOUR)
    leases = take(app)
    app.broker.report([report(leases[0], lines=[log_line("here")])], worker_id="worker-1")
    app.broker.settle([completed(leases[0]), failed(leases[1], delay=_HOUR), died(leases[2])], worker_id="worker-1")
    for name in ("queues", "jobs", "leases"):
        assert examine(name) == []
        assert [finding.level for finding in examine(name, everything=True)] == ["ok"]


def test_other_brokers_are_none_of_its_business(tmp_path: Path) -> None:
    (tmp_path / "jobqueue.toml").write_text("")
    app = App.from_config(tmp_path / "jobqueue.toml", environ={})
    assert [look(app, check.name.removeprefix("redis "), fix=True, everything=True) for check in checks()] == [[], [], [], []]
    app.close()


# Jobs ----------------------------------------------------------------------------------------------------------------------------------


def test_jobs_of_a_deleted_stream_are_listed_and_each_becomes_one_dead_letter(
    app: App, examine: Examine, redis_client: Redis, redis_namespace: str, key: Key
) -> None:
    ids = put(app, 100)
    redis_client.delete(key("stream:default:medium"))
    found = examine("jobs")
    assert len(found) == 21
    assert found[-1].text == "and 80 more jobs"
    assert {finding.level for finding in found} == {"error"}
    assert all("missing from" in finding.text and finding.remedy == "run: jobqueue doctor --fix" for finding in found[:-1])
    assert app.broker.outbox_lag().dead == 0

    assert all(finding.fixed for finding in examine("jobs", fix=True))
    letters = app.broker.outbox("dead", 1000).dead_letters
    assert sorted(letter.job.id for letter in letters) == sorted(ids)
    assert {(letter.job.deaths, letter.job.dead_reason, letter.job.payload, letter.raw) for letter in letters} == {
        (1, DeadReason.UNDECODABLE, None, None)
    }
    assert {job(app, job_id).state for job_id in ids} == {JobState.DEAD}
    record(app)
    assert examine("jobs", fix=True) == []
    assert app.broker.outbox_lag().dead == 0
    stats = app.broker.queue("default")
    assert stats is not None
    assert (stats.waiting, stats.dead) == (0, 100)
    check_invariants(redis_client, app.broker, prefix=f"{redis_namespace}:", complete=False)


def test_a_job_that_has_died_before_gets_the_number_of_its_next_death(app: App, examine: Examine, redis_client: Redis, key: Key) -> None:
    (job_id,) = put(app, 1)
    app.broker.settle([died(lease) for lease in take(app)], worker_id="worker-1")
    record(app)
    letter = app.storage.dead_letter(job_id)
    assert letter is not None
    assert app.broker.requeue(letter.job) == "requeued"
    redis_client.delete(key("stream:default:medium"))
    (finding,) = examine("jobs", fix=True)
    assert finding.fixed
    record(app)
    letter = app.storage.dead_letter(job_id)
    assert letter is not None
    assert (letter.job.deaths, letter.job.dead_reason) == (2, DeadReason.UNDECODABLE)
    assert job(app, job_id).deaths == 2


def test_nothing_is_mended_while_storage_has_not_all_dead_letters(app: App, examine: Examine, redis_client: Redis, key: Key) -> None:
    put(app, 2)
    app.broker.settle([died(lease) for lease in take(app, 1)], worker_id="worker-1")
    redis_client.delete(key("stream:default:medium"))
    (finding,) = examine("jobs", fix=True)
    assert (finding.level, finding.fixed) == ("warning", False)
    assert "1 dead letters wait for storage" in finding.text
    assert app.broker.outbox_lag().dead == 1


def test_a_job_that_a_worker_runs_is_left_to_it_though_its_entry_is_gone(app: App, examine: Examine, redis_client: Redis, key: Key) -> None:
    put(app, 2)
    held, other = take(app)
    running = RunningJob(job_id=held.job.id, type="test.job", started_at=app.broker.now())
    app.broker.beat(worker_info("worker-1", running=(running,)))
    redis_client.delete(key("stream:default:medium"))
    (finding,) = examine("jobs", fix=True)
    assert other.job.id in finding.text
    assert app.broker.settle([completed(held)], worker_id="worker-1") == [True]
    assert job(app, held.job.id).state is JobState.COMPLETED


@pytest.mark.parametrize("ending", [None, failed])
def test_a_delayed_job_that_is_missing_from_its_set_is_put_back_with_all_it_had(
    app: App, examine: Examine, redis_client: Redis, key: Key, ending: Callable[..., object] | None
) -> None:
    if ending is None:
        (job_id,) = put(app, 1, delay=_HOUR)
    else:
        (job_id,) = put(app, 1)
        app.broker.settle([failed(lease, delay=_HOUR) for lease in take(app)], worker_id="worker-1")
    before = job(app, job_id)
    zset = key("retry:default" if ending else "delayed:default")
    score = redis_client.zscore(zset, job_id)
    redis_client.delete(zset, key("due"))
    assert job_id in examine("jobs")[0].text
    (finding,) = examine("jobs", fix=True)
    assert finding.fixed
    assert redis_client.zscore(zset, job_id) == score
    assert redis_client.zscore(key("due"), "default") == score
    assert job(app, job_id) == before
    assert examine("jobs") == examine("queues") == []


def test_a_delayed_job_without_a_record_becomes_a_dead_letter(app: App, examine: Examine, redis_client: Redis, key: Key) -> None:
    (job_id,) = put(app, 1, delay=_HOUR)
    redis_client.delete(key(f"job:{job_id}"))
    (finding,) = examine("jobs")
    assert "its record is missing" in finding.text
    examine("jobs", fix=True)
    (letter,) = app.broker.outbox("dead", 10).dead_letters
    assert letter.job.id == job_id
    assert redis_client.zcard(key("delayed:default")) == 0


def test_a_member_of_a_set_whose_job_is_elsewhere_is_removed_and_the_job_left_alone(
    app: App, examine: Examine, redis_client: Redis, key: Key
) -> None:
    (job_id,) = put(app, 1)
    redis_client.zadd(key("delayed:default"), {job_id: 1})
    (finding,) = examine("jobs", fix=True)
    assert "does not say so" in finding.text
    assert redis_client.zcard(key("delayed:default")) == 0
    assert app.broker.outbox_lag().dead == 0
    assert job(app, job_id).state is JobState.QUEUED


def test_an_entry_without_a_record_is_in_order_because_it_runs(app: App, examine: Examine, redis_client: Redis, key: Key) -> None:
    ids = put(app, 3)
    redis_client.delete(*(key(f"job:{job_id}") for job_id in ids))
    assert examine("jobs", fix=True) == []
    assert len(take(app)) == 3


@pytest.mark.parametrize("text", [b"", b"\x01", b"\x01w nowhere", b"\x01d nowhere", b"\x01qs2default 1-1"])
def test_a_record_that_cannot_be_read_is_named_and_left(app: App, examine: Examine, redis_client: Redis, key: Key, text: bytes) -> None:
    job_id = new_job_id("default")
    redis_client.set(key(f"job:{job_id}"), text)
    (finding,) = examine("jobs", fix=True)
    assert key(f"job:{job_id}") in finding.text
    assert (finding.fixed, redis_client.get(key(f"job:{job_id}"))) == (False, text)


def test_records_of_a_newer_release_are_none_of_its_business(app: App, examine: Examine, redis_client: Redis, key: Key) -> None:
    redis_client.set(key(f"job:{new_job_id('default')}"), b"\x02w")
    assert examine("jobs", fix=True) == []


def test_keys_that_nothing_would_ever_remove_are_counted_and_removed(app: App, examine: Examine, redis_client: Redis, key: Key) -> None:
    gone, stays = put(app, 1, unique_key="gone")[0], put(app, 1, unique_key="stays")[0]
    lines = [report(lease, lines=[log_line("one")]) for lease in take(app)]
    app.broker.report(lines, worker_id="worker-1")
    redis_client.delete(key(f"job:{gone}"), key("stream:default:medium"))
    redis_client.srem(key("logged"), gone)
    app.broker.beat(worker_info(running=(RunningJob(job_id=stays, type="x", started_at=app.broker.now()),)))
    found = examine("jobs")
    assert [finding.text.partition(":")[0] for finding in found] == ["1 unique keys of jobs that are gone", "1 logs of jobs that are gone"]
    assert {finding.level for finding in found} == {"warning"}
    assert all(finding.fixed for finding in examine("jobs", fix=True))
    assert examine("jobs") == []
    assert redis_client.exists(key("unique:default:stays"), key(f"logs:{stays}")) == 2


# Queues --------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [("work", "no worker is told of"), ("held", "nobody would take back"), ("due", "nobody would promote")])
def test_a_queue_that_nobody_would_visit_is_visited_again(app: App, examine: Examine, redis_client: Redis, key: Key, lost: tuple[str, str]) -> None:
    name, text = lost
    put(app, 2)
    put(app, 1, delay=_HOUR)
    take(app, 1)
    redis_client.delete(key(name))
    (finding,) = examine("queues")
    assert (finding.level, finding.remedy) == ("error", "run: jobqueue doctor --fix")
    assert text in finding.text
    assert [finding.fixed for finding in examine("queues", fix=True)] == [True]
    assert examine("queues") == []
    assert redis_client.exists(key(name))


def test_a_queue_that_would_be_promoted_too_late_is_found(app: App, examine: Examine, redis_client: Redis, key: Key) -> None:
    put(app, 1, delay=_HOUR)
    right = redis_client.zscore(key("due"), "default")
    redis_client.zincrby(key("due"), 1_000_000, "default")
    assert len(examine("queues", fix=True)) == 1
    assert redis_client.zscore(key("due"), "default") == right


def test_a_destroyed_group_is_made_again_and_hands_out_everything(app: App, examine: Examine, redis_client: Redis, key: Key) -> None:
    put(app, 3)
    assert len(take(app, 2)) == 2
    redis_client.xgroup_destroy(key("stream:default:medium"), "workers")
    (finding,) = examine("queues")
    assert "s2default is gone" in finding.text
    examine("queues", fix=True)
    assert examine("queues") == []
    assert len(take(app)) == 3


def test_a_queue_that_no_worker_has_ever_looked_at_is_in_order(app: App, examine: Examine) -> None:
    put(app, 3)
    assert examine("queues") == []


# Leases --------------------------------------------------------------------------------------------------------------------------------


def test_leases_that_nobody_has_taken_back_are_found(app: App, examine: Examine, redis_client: Redis, key: Key) -> None:
    put(app, 5)
    leases = take(app, 3, lease_for=_SECOND)
    assert examine("leases") == []
    consumer = redis_client.xinfo_consumers(key("stream:default:medium"), "workers")[0]["name"]
    for lease in leases[:2]:
        entry = lease.token.split(" ")[1]
        redis_client.xclaim(key("stream:default:medium"), "workers", consumer, 0, [entry], idle=3_500, justid=True)
    (finding,) = examine("leases")
    assert finding.level == "error"
    assert finding.text.startswith("2 leases in queue default (medium) were not taken back")
    assert finding.remedy is not None


def test_consumers_that_hold_nothing_are_only_shown(app: App, examine: Examine, redis_client: Redis, key: Key) -> None:
    put(app, 1)
    app.broker.settle([completed(lease) for lease in take(app)], worker_id="worker-1")
    assert [finding.text for finding in examine("leases", fix=True, everything=True)] == [
        "no lease is overdue; 1 consumers hold nothing: workers that wait, and those gone for less than a minute"
    ]
    assert len(redis_client.xinfo_consumers(key("stream:default:medium"), "workers")) == 1


# The server ----------------------------------------------------------------------------------------------------------------------------


def test_a_server_that_keeps_its_data_is_in_order(open_app: OpenApp, redis_server: RedisServer) -> None:
    app = open_app(redis_server.url)
    assert look(app, "server") == []
    version, persistence = look(app, "server", everything=True)
    assert version.text.startswith(("Redis ", "Valkey "))
    assert "up to some 2 s of jobs" in persistence.text
    redis_server.config(appendfsync="always")
    assert "loses nothing" in look(app, "server", everything=True)[1].text


@pytest.mark.parametrize(("save", "text"), [("", "nothing is written to disk"), ("3600 1", "only snapshots are made (save 3600 1)")])
def test_a_server_that_would_lose_jobs_in_a_crash_is_warned_of(
    open_app: OpenApp, start_redis: Callable[..., RedisServer], save: str, text: str
) -> None:
    server = start_redis(appendonly=False)
    server.config(save=save)
    (finding,) = look(open_app(server.url), "server")
    assert (finding.level, finding.remedy) == ("warning", "CONFIG SET appendonly yes, and in redis.conf")
    assert finding.text.startswith(text)


@pytest.mark.parametrize(
    ("policy", "allowed", "level"), [("allkeys-lru", False, "error"), ("allkeys-lru", True, "warning"), ("volatile-ttl", False, "warning")]
)
def test_a_server_that_would_throw_things_away_is_found(open_app: OpenApp, redis_server: RedisServer, policy: str, allowed: bool, level: str) -> None:
    app = open_app(redis_server.url, more=f"allow_eviction = {str(allowed).lower()}")
    app.broker.now()
    redis_server.config(maxmemory_policy=policy)
    (finding,) = look(app, "server")
    assert (finding.level, finding.remedy) == (level, "CONFIG SET maxmemory-policy noeviction, and in redis.conf")
    assert policy in finding.text


def test_a_server_that_is_nearly_full_is_warned_of(open_app: OpenApp, redis_server: RedisServer) -> None:
    app = open_app(redis_server.url)
    with Redis.from_url(redis_server.url) as client:
        used = client.info("memory")["used_memory"]
    redis_server.config(maxmemory=str(used))
    (finding,) = look(app, "server")
    assert finding.level == "warning"
    assert "full" in finding.text


def test_too_few_replicas_are_an_error(open_app: OpenApp, redis_server: RedisServer) -> None:
    (finding,) = look(open_app(redis_server.url, more="wait_replicas = 1"), "server")
    assert finding.level == "error"
    assert "wait_replicas is 1, and 0 replicas" in finding.text


def test_what_the_server_does_not_tell_our_user_is_said(open_app: OpenApp, start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis(appendonly=False)
    server.command("ACL", "SETUSER", "worker", "on", ">secret", "~*", "&*", "+@all", "-config")
    app = open_app(f"redis://worker:secret@127.0.0.1:{server.port}/0")
    (finding,) = look(app, "server")
    assert "may not see (CONFIG GET)" in finding.text
    server.command("ACL", "SETUSER", "worker", "-info")
    (finding,) = look(app, "server")
    assert finding.remedy == "grant it +info"
    assert look(app, "jobs") == []


def test_the_plugin_offers_the_checks_where_jobs_are_in_redis(app: App, tmp_path: Path) -> None:
    assert [check.name for check in app.plugins.checks(app.settings) if check.name.startswith("redis")] == [
        "redis server",
        "redis queues",
        "redis jobs",
        "redis leases",
    ]
    (tmp_path / "other.toml").write_text("")
    other = App.from_config(tmp_path / "other.toml", environ={})
    assert not [check for check in other.plugins.checks(other.settings) if check.name.startswith("redis")]
    other.close()
