"""PostgreSQL stopped, slow, frozen, and recorders killed: what has happened arrives once, and nobody else notices (FAULTS P1 to P6)."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import attrs
import psycopg
import pytest
from servers import PostgresPlace, PostgresServer, Proxy, RedisPlace, joined_config

from jobqueue_core.attempt import DeadLetterState, ExecutionState
from jobqueue_core.errors import JobQueueError, StorageUnavailable
from jobqueue_core.job import JobState
from jobqueue_core.recorder import Recorder
from jobqueue_core.storage import DeadLetterFilter
from jobqueue_core.testing.factories import dead_letter, execution
from jobqueue_postgres.storage import PostgresStorage
from jobqueue_redis.broker import RedisBroker

if TYPE_CHECKING:
    from conftest import BuildRig, Rig

_SECOND = timedelta(seconds=1)


@attrs.frozen
class Site:
    """Workers on the shared Redis, and a PostgreSQL of the test's own."""

    rig: Rig
    server: PostgresServer
    namespace: str

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        """What a query gives in the schema."""
        with psycopg.connect(self.server.url, autocommit=True, options=f'-c search_path="{self.namespace}"') as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def number(self, sql: str) -> object:
        """The one value that a query gives."""
        return self.rows(sql)[0][0]

    def caught_up(self) -> bool:
        """Whether the outbox is empty."""
        lag = self.rig.queue.broker.outbox_lag()
        return (lag.history, lag.dead) == (0, 0)

    def check(self, ids: list[str], *, dead: int) -> None:
        """Each run stands in history once, each death is one dead letter, and statistics have counted each once."""
        runs = len(self.rig.runs())
        assert self.number("SELECT count(*) FROM job_executions") == runs
        assert self.number("SELECT count(*) FROM (SELECT DISTINCT job_id, run FROM job_executions) AS runs") == runs
        assert self.number("SELECT count(DISTINCT job_id) FROM job_executions") == len(ids)
        assert self.number("SELECT count(*) FROM dead_letter_queue") == dead
        assert self.number("SELECT count(DISTINCT job_id) FROM dead_letter_queue") == dead
        counted = "SELECT coalesce(sum(completed + failed + dead + cancelled + snoozed + returned + lost), 0)::integer FROM job_execution_rollups"
        assert self.number(f"{counted} WHERE span = 1") == runs
        assert self.number(f"{counted} WHERE span = 60") == runs
        assert self.number(f"{counted} WHERE span = 360") == runs
        assert self.number("SELECT coalesce(sum(count), 0)::integer FROM dead_letter_counts WHERE state = 'open'") == dead


@pytest.fixture
def site(build_rig: BuildRig, redis_place: RedisPlace, postgres_server: PostgresServer) -> Site:
    """A site with a migrated schema."""
    place = PostgresPlace(postgres_server.url, redis_place.namespace).migrate()
    rig = build_rig(joined_config(redis_place.config, place.config) + '[retry]\nbase = "50ms"\n')
    return Site(rig, postgres_server, place.namespace)


@pytest.mark.parametrize(
    ("dying", "completing", "away"),
    [(200, 1_000, 0.0), pytest.param(500, 5_000, 60.0, marks=pytest.mark.slow)],
    ids=["briefly", "for a minute"],
)
def test_what_dies_and_completes_while_postgresql_is_down_arrives_once(site: Site, dying: int, completing: int, away: float) -> None:
    rig = site.rig
    rig.start("worker")
    first = rig.enqueue(100, "rig.quick")
    rig.wait(lambda: rig.all_completed(first) and site.caught_up(), "what came before is recorded")

    site.server.stop("immediate")
    back_at = time.monotonic() + away
    to_die = rig.enqueue(dying, "rig.fail", seconds=0)
    to_complete = rig.enqueue(completing, "rig.quick")
    rig.wait(lambda: rig.all_completed(to_complete), "workers go on without storage", within=30)
    rig.wait(lambda: rig.states(to_die) == {JobState.DEAD: dying}, "jobs die without storage", within=60)
    lag = rig.queue.broker.outbox_lag()
    assert (lag.dead, lag.history) == (dying, completing + 2 * dying)
    rig.wait(lambda: "recording waits" in rig.log(), "the recorder says that it waits")

    rig.wait(lambda: time.monotonic() >= back_at, "the time is over", within=away + 1)
    site.server.start()
    rig.wait(site.caught_up, "everything is recorded once storage is back", within=20)
    site.check([*first, *to_die, *to_complete], dead=dying)
    rig.wait(lambda: "recording goes on" in rig.log(), "the recorder says that it goes on")


_RECORDER = """
import sys
from pathlib import Path
from jobqueue_core.app import App
from jobqueue_core.service import Stop
app = App.from_config(Path(sys.argv[1]), environ={})
service = app.plugins.service("recorder").open(app)
app.broker.now()
print("ready", flush=True)
service.run(Stop())
"""


def test_recorders_killed_again_and_again_write_nothing_twice(site: Site) -> None:
    rig = site.rig
    site.server.stop("immediate")
    worker = rig.start("worker")
    ids = rig.enqueue(6_000, "rig.quick")
    dying = rig.enqueue(50, "rig.fail", seconds=0)
    rig.wait(lambda: rig.all_completed(ids) and rig.states(dying) == {JobState.DEAD: 50}, "all have run")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    site.server.start()
    site.rows(_dawdling(0.05))

    kills = 0
    dice = random.Random(3)
    pause = threading.Event()
    while not site.caught_up():
        assert kills < 60, "recorders come forward"
        recorders = [_start_recorder(rig) for _ in range(2)]
        for one in recorders:
            assert one.stdout is not None
            assert one.stdout.readline() == b"ready\n"
        # Later and later, so that each comes a little further before it is killed.
        pause.wait(dice.uniform(0.02, 0.1) + 0.02 * kills)
        for one in recorders:
            one.kill()
            one.communicate()
            kills += 1
    # On a busy machine the first comes far while the second starts.
    assert kills >= 4
    site.check([*ids, *dying], dead=50)


def _start_recorder(rig: Rig) -> subprocess.Popen[bytes]:
    with (rig.folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _RECORDER, str(rig.folder / "jobqueue.toml")], stdout=subprocess.PIPE, stderr=log, start_new_session=True
        )
    rig.processes.append(process)
    return process


def _dawdling(seconds: float) -> str:
    """Makes every batch of executions take so much longer."""
    return (
        f"CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep({seconds}); RETURN NULL; END $$;"
        "CREATE TRIGGER dawdle BEFORE INSERT ON job_execution_rollups FOR EACH STATEMENT EXECUTE FUNCTION dawdle()"
    )


def test_a_frozen_server_holds_nobody_for_longer_than_the_timeout(postgres_server: PostgresServer) -> None:
    place = PostgresPlace(postgres_server.url, "frozen").migrate()
    storage = PostgresStorage(place.url, namespace=place.namespace, timeout=timedelta(milliseconds=500))
    assert storage.count_dead_letters(DeadLetterFilter()) == 0
    postgres_server.pause()
    try:
        began = time.monotonic()
        with pytest.raises(StorageUnavailable):
            storage.count_dead_letters(DeadLetterFilter())
        assert time.monotonic() - began < 5
    finally:
        postgres_server.resume()
    assert storage.count_dead_letters(DeadLetterFilter()) == 0
    storage.close()


def test_after_a_restart_the_first_call_works(postgres_server: PostgresServer) -> None:
    place = PostgresPlace(postgres_server.url, "restarted").migrate()
    storage = PostgresStorage(place.url, namespace=place.namespace)
    storage.record_dead_letters([dead_letter()])
    postgres_server.stop("immediate")
    began = time.monotonic()
    with pytest.raises(StorageUnavailable, match="refused"):
        storage.count_dead_letters(DeadLetterFilter())
    assert time.monotonic() - began < 2, "it says so at once"
    postgres_server.start()
    assert storage.count_dead_letters(DeadLetterFilter()) == 1
    storage.close()


def test_jobs_run_as_fast_while_every_write_to_storage_is_slow(site: Site) -> None:
    rig = site.rig
    site.rows(_dawdling(2))
    rig.start("worker")
    ids = rig.enqueue(2_000, "rig.quick")
    rig.wait(lambda: rig.all_completed(ids), "workers do not wait for storage", within=15)
    rig.wait(site.caught_up, "all is recorded, slowly", within=30)
    site.check(ids, dead=0)


# Crash points --------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def broker(redis_place: RedisPlace) -> Iterator[RedisBroker]:
    """A broker on the shared Redis."""
    broker = RedisBroker(redis_place.url, namespace=redis_place.namespace)
    yield broker
    broker.close()


def test_a_recording_that_is_cut_off_anywhere_and_repeated_stores_each_row_once(postgres_server: PostgresServer, postgres_proxy: Proxy) -> None:
    direct = PostgresPlace(postgres_server.url, "cut").migrate()
    cut = direct.url.replace(f":{postgres_server.port}/", f":{postgres_proxy.port}/")
    observer = PostgresStorage(direct.url, namespace=direct.namespace)
    exchanges = _exchanges(cut, direct.namespace, postgres_proxy)
    assert exchanges >= 3
    total = 20
    for number in range(exchanges):
        for forwarded in (False, True):
            rows = [execution(state=state) for state in (ExecutionState.COMPLETED, ExecutionState.FAILED) for _ in range(10)]
            letters = [dead_letter() for _ in range(3)]
            storage = PostgresStorage(cut, namespace=direct.namespace)
            _cut_exchange(postgres_proxy, number, forwarded=forwarded)
            with suppress(JobQueueError):
                storage.record_executions(rows, record="all")
            with suppress(JobQueueError):
                storage.record_dead_letters(letters)
            postgres_proxy.pass_on()
            storage.record_executions(rows, record="all")
            storage.record_dead_letters(letters)
            storage.close()
            total += len(rows)
            since = rows[0].finished_at - _SECOND
            assert observer.statistics(since=since, until=since + timedelta(minutes=2)).overall.total == total
            assert all(len(observer.job_executions(row.job_id)) == 1 for row in rows)
            assert all(observer.dead_letter(letter.job.id) == letter for letter in letters)
    observer.close()


def _exchanges(url: str, namespace: str, proxy: Proxy) -> int:
    """How many requests a recording takes, on a new connection."""
    before = proxy.requests
    storage = PostgresStorage(url, namespace=namespace)
    storage.record_executions(
        [execution(state=state) for state in (ExecutionState.COMPLETED, ExecutionState.FAILED) for _ in range(10)], record="all"
    )
    storage.close()
    return proxy.requests - before


def _cut_exchange(proxy: Proxy, number: int, *, forwarded: bool) -> None:
    """Arm the proxy so that the request with this number, from now on, is cut off before or after it was carried out."""
    start = proxy.requests

    def watch() -> None:
        pause = threading.Event()
        deadline = time.monotonic() + 5
        while proxy.requests < start + number and time.monotonic() < deadline:
            pause.wait(0.0002)
        if forwarded:
            proxy.cut_reply()
        else:
            proxy.cut_request()

    if number:
        threading.Thread(target=watch, daemon=True).start()
    else:
        watch()


# Retrying dead letters -----------------------------------------------------------------------------------------------------------------


class _Stopped(BaseException):
    """The process is gone: nothing catches this."""


@pytest.mark.parametrize("crash", ["before begin", "after begin", "after two", "after requeue", "before finish"])
def test_a_bulk_retry_that_dies_anywhere_and_is_repeated_runs_each_job_once(site: Site, crash: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = site.rig
    rig.start("worker")
    ids = rig.enqueue(10, "rig.fail", seconds=0)
    rig.wait(lambda: rig.states(ids) == {JobState.DEAD: 10} and site.caught_up(), "all are dead")
    runs = Counter(job for job, *_ in rig.runs())
    storage, broker = rig.queue.storage, rig.queue.broker
    assert storage is not None
    requeue, begin, finish = broker.requeue, storage.begin_requeues, storage.finish_requeues
    sent = 0

    def dies(*_args: object, **_options: object) -> None:
        raise _Stopped

    def begin_and_die(*args: object, **options: object) -> None:
        begin(*args, **options)  # type: ignore[arg-type]  # passed on
        raise _Stopped

    def some_requeues(*args: object, **options: object) -> object:
        nonlocal sent
        if sent == 2 and crash == "after two":
            raise _Stopped
        answer = requeue(*args, **options)  # type: ignore[arg-type]  # passed on
        sent += 1
        if sent == 3 and crash == "after requeue":
            raise _Stopped
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(storage, "begin_requeues", {"before begin": dies, "after begin": begin_and_die}.get(crash, begin))
        patch.setattr(storage, "finish_requeues", finish if crash in ("before begin", "after begin") else dies)
        patch.setattr(broker, "requeue", some_requeues)
        with pytest.raises(_Stopped):
            rig.queue.operations.retry_dead_letters(DeadLetterFilter(type="rig.fail"))

    # Somebody repeats it, and a recorder looks after what was left half done, as it does each minute for what is older than 30 s.
    rig.queue.operations.retry_dead_letters(DeadLetterFilter(type="rig.fail"))
    later = _Later(broker, 31 * _SECOND)
    Recorder(broker=later, storage=storage).tidy()  # type: ignore[arg-type]  # by delegation
    rig.wait(lambda: {job.deaths for job in broker.get(ids) if job is not None and job.state is JobState.DEAD} <= {1, 2}, "some die again")
    rig.queue.operations.retry_dead_letters(attrs.evolve(DeadLetterFilter(type="rig.fail"), died_before=_first_deaths(storage, ids)))
    rig.wait(lambda: [job.deaths for job in broker.get(ids) if job is not None and job.state is JobState.DEAD] == [2] * 10, "each has died again")
    rig.wait(site.caught_up, "all is recorded")

    again = Counter(job for job, *_ in rig.runs()) - runs
    assert again == dict.fromkeys(ids, 2), "each job had its two attempts once more, none of them twice"
    assert site.rows("SELECT death, state, count(*)::integer FROM dead_letter_queue GROUP BY 1, 2 ORDER BY 1, 2") == [
        (1, "requeued", 10),
        (2, "open", 10),
    ]


def _first_deaths(storage: object, ids: list[str]) -> object:
    """When the last of the first deaths was: what died later died of its retry."""
    deaths = []
    cursor = None
    while True:
        page = storage.dead_letters(DeadLetterFilter(state=None), cursor=cursor, offset=0, limit=500)  # type: ignore[attr-defined]  # a storage
        deaths += [one.died_at for one in page.dead_letters if one.job.deaths == 1 and one.job.id in ids]
        cursor = page.next
        if cursor is None:
            return max(deaths)


class _Later:
    """A broker whose clock is ahead."""

    def __init__(self, broker: object, ahead: timedelta) -> None:
        self._broker = broker
        self._ahead = ahead

    def now(self) -> object:
        return self._broker.now() + self._ahead  # type: ignore[attr-defined]  # a broker

    def __getattr__(self, name: str) -> object:
        return getattr(self._broker, name)


def test_a_bulk_retry_of_jobs_that_die_again_ends(site: Site) -> None:
    rig = site.rig
    rig.start("worker")
    ids = rig.enqueue(30, "rig.fail", seconds=0)
    rig.wait(lambda: rig.states(ids) == {JobState.DEAD: 30} and site.caught_up(), "all are dead")
    result = rig.queue.operations.retry_dead_letters(DeadLetterFilter(type="rig.fail"))
    assert (result.matched, result.done, result.skipped) == (30, 30, 0)
    rig.wait(lambda: {job.deaths for job in rig.queue.broker.get(ids) if job is not None and job.state is JobState.DEAD} == {2}, "they die again")
    rig.wait(site.caught_up, "all is recorded")
    runs = Counter(job for job, *_ in rig.runs())
    assert runs == dict.fromkeys(ids, 4), "each ran once more, with its one retry"
    open_ones = rig.queue.operations.dead_letters(DeadLetterFilter(state=DeadLetterState.OPEN), limit=500).dead_letters
    assert {one.job.deaths for one in open_ones} == {2}
