"""The ticker: one job for each tick, at its moment and as the schedule defines it, by however many schedulers."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from schedule_scene import EACH_SECOND, MINUTE, NOON, SECOND, Killed, Scene, Wrapped, seconds, tick_of
from schedule_trials import HOUR, assert_one_each, killed_at, open_scene

from jobqueue_core import JobQueue, JobState, Priority
from jobqueue_core.errors import Conflict, StorageUnavailable
from jobqueue_core.handlers import Registry, handler
from jobqueue_core.service import Exit, Stop
from jobqueue_core.testing.factories import schedule, type_info, worker_info
from jobqueue_cron.ticker import Ticker
from jobqueue_sqlite import schedules as sqlite_schedules

scene = pytest.fixture(open_scene)


# One job for each tick -----------------------------------------------------------------------------------------------------------------


def test_each_tick_becomes_one_job_at_its_moment(scene: Scene) -> None:
    scene.add()
    scene.turn()
    assert scene.jobs() == []
    scene.pass_time(5 * SECOND)
    assert scene.ticks() == seconds(1, 5)


def test_the_job_says_which_schedule_and_tick_it_comes_from(scene: Scene) -> None:
    scene.add("report.daily", "0 13 * * *")
    scene.clock.advance(HOUR + 2 * SECOND)
    scene.turn()
    (job,) = scene.jobs("report.daily")
    assert job.scheduled_at == NOON + HOUR
    assert job.metadata == {"jobqueue.schedule": "report.daily", "jobqueue.tick": "2030-01-01T13:00:00Z"}


def test_the_job_is_as_the_schedule_defines_it(scene: Scene) -> None:
    payload = {"z": [1, 2.5, None, True, "ü\u0000"], "a": 123456789012345678901234567890}
    scene.add(type="report.make", payload=payload, queue="reports", priority="critical", max_retries=0, timeout="90s")
    scene.pass_time(SECOND)
    (job,) = scene.jobs()
    assert (job.type, job.payload, job.queue, job.priority) == ("report.make", payload, "reports", Priority.CRITICAL)
    assert (job.max_retries, job.timeout, job.state) == (0, timedelta(seconds=90), JobState.QUEUED)


def test_what_a_schedule_does_not_say_stays_unset(scene: Scene) -> None:
    scene.add()
    scene.pass_time(SECOND)
    (job,) = scene.jobs()
    assert (job.payload, job.queue, job.priority, job.max_retries, job.timeout) == (None, "default", Priority.MEDIUM, None, None)


def test_a_job_goes_where_its_handler_is_declared_to_be(scene: Scene) -> None:
    @handler("t", queue="mail", priority="high")
    def declared(payload: object) -> None: ...

    registry = Registry()
    registry.add(declared)
    scene.add()
    scene.add("other", queue="own", priority="low")
    scene.pass_time(SECOND, ticker=scene.ticker(registry=registry))
    assert [(job.queue, job.priority) for job in (*scene.jobs(), *scene.jobs("other"))] == [("mail", Priority.HIGH), ("own", Priority.LOW)]


def test_a_job_goes_where_running_workers_say(scene: Scene) -> None:
    scene.broker.beat(worker_info(types=(type_info("t", queue="published", priority=Priority.LOW),)))
    scene.add()
    scene.pass_time(SECOND)
    assert [(job.queue, job.priority) for job in scene.jobs()] == [("published", Priority.LOW)]


def test_storage_knows_afterwards_what_was_fired(scene: Scene) -> None:
    scene.add()
    scene.pass_time(3 * SECOND)
    jobs = scene.jobs()
    stored = scene.schedules.get("nightly")
    assert (stored.last_run, stored.last_job_id, stored.next_run) == (NOON + 3 * SECOND, jobs[-1].id, NOON + 4 * SECOND)
    assert [(one.due, one.job.id, one.sent) for one in scene.storage.ticks("nightly", 9)] == [(tick_of(job), job.id, True) for job in reversed(jobs)]


def test_each_of_several_schedules_is_due_by_itself(scene: Scene) -> None:
    scene.add("a", EACH_SECOND)
    scene.add("b", "*/2 * * * * *")
    scene.add("c", "*/5 * * * * *", timezone="Europe/Berlin")
    scene.pass_time(10 * SECOND)
    assert scene.ticks("a") == seconds(1, 10)
    assert scene.ticks("b") == seconds(1, 10)[1::2]
    assert scene.ticks("c") == [NOON + 5 * SECOND, NOON + 10 * SECOND]


def test_any_number_of_schedulers_make_one_job_for_each_tick(scene: Scene) -> None:
    scene.add()
    tickers = [scene.ticker() for _ in range(5)]
    for at in range(60):
        scene.clock.advance(SECOND)
        for ticker in tickers[at % 5 :] + tickers[: at % 5]:
            scene.turn(ticker)
    assert scene.ticks() == seconds(1, 60)


@pytest.mark.parametrize("name", ["now", "due_schedules", "ticks", "claim_ticks", "enqueue", "mark_sent"])
def test_another_scheduler_may_come_in_between_at_any_moment(scene: Scene, name: str) -> None:
    scene.add("a")
    scene.add("b", overlap="skip")
    other = scene.ticker()
    inside: list[str] = []

    def let_the_other_in(called: str) -> None:
        if called == name and not inside:
            inside.append(called)
            scene.turn(other)
            inside.clear()

    watched = {"before": let_the_other_in, "after": let_the_other_in}
    one = scene.ticker(broker=Wrapped(scene.broker, **watched), storage=Wrapped(scene.storage, **watched))
    for _ in range(6):
        scene.clock.advance(SECOND)
        scene.turn(one)
        scene.finish()
    assert_one_each(scene.ticks("a"), seconds(1, 6))
    assert_one_each(scene.ticks("b"), seconds(1, 6))


def test_a_turn_says_how_long_until_there_is_more_to_do(scene: Scene) -> None:
    ticker = scene.ticker(poll_interval=10 * SECOND)
    assert scene.turn(ticker) == 10
    scene.add("minutely", "* * * * *")
    assert scene.turn(ticker) == 10
    scene.clock.advance(MINUTE - 3.25 * SECOND)
    assert scene.turn(ticker) == pytest.approx(3.25)
    scene.clock.advance(3.25 * SECOND)
    assert scene.turn(ticker) == 10
    assert scene.ticks("minutely") == [NOON + MINUTE]


def test_a_tick_that_comes_due_during_a_turn_is_fired_in_it_or_at_once_after(scene: Scene) -> None:
    scene.add()
    broker = Wrapped(scene.broker, after=lambda name: scene.clock.advance(SECOND / 4) if name == "enqueue" else None)
    ticker = scene.ticker(broker=broker)
    scene.clock.advance(0.9 * SECOND)
    for _ in range(20):
        pause = scene.turn(ticker)
        assert 0 <= pause <= 1
        scene.clock.advance(pause * SECOND)
    found = scene.ticks()
    assert len(found) >= 14
    assert_one_each(found, seconds(1, len(found)))


def test_ten_thousand_due_schedules_all_fire_once(scene: Scene) -> None:
    names = [f"s{number}" for number in range(10_000)]
    with scene.storage.database.write() as connection:
        for name in names:
            assert sqlite_schedules.put(connection, schedule(name, expression="0 13 * * *", next_run=NOON + HOUR), expected_version=None)
    scene.clock.advance(HOUR)
    began = time.monotonic()
    scene.turn()
    assert time.monotonic() - began < 30, "a tick costs milliseconds"
    assert Counter(job.metadata["jobqueue.schedule"] for job in scene.broker.created) == dict.fromkeys(names, 1)
    assert {tick_of(job) for job in scene.broker.created} == {NOON + HOUR}
    assert scene.storage.due_schedules(NOON + HOUR, 1) == []


# Jitter, start, end --------------------------------------------------------------------------------------------------------------------


def test_jitter_puts_each_job_off_by_a_time_of_its_own_within_bounds(scene: Scene) -> None:
    scene.add(jitter="10s")
    scene.pass_time(60 * SECOND)
    delays = [job.scheduled_at - tick_of(job) for job in scene.jobs() if job.scheduled_at is not None]
    assert scene.ticks() == seconds(1, 60)
    assert len(delays) == 60
    assert min(delays) >= timedelta(0)
    assert max(delays) <= 10 * SECOND
    assert max(delays) - min(delays) > 5 * SECOND
    assert len(set(delays)) > 50


def test_a_job_that_is_sent_again_keeps_its_jitter_and_id(scene: Scene) -> None:
    scene.add(jitter="1h")
    scene.clock.advance(SECOND)
    with pytest.raises(Killed):
        scene.turn(scene.ticker(broker=Wrapped(scene.broker, before=killed_at("enqueue"))))
    (claimed,) = scene.storage.unsent_ticks(NOON + HOUR, 10)
    scene.schedules.pause("nightly")
    scene.pass_time(6 * SECOND)
    (job,) = scene.jobs()
    assert (job.id, job.scheduled_at, tick_of(job)) == (claimed.job.id, claimed.job.scheduled_at, NOON + SECOND)
    assert job.scheduled_at is not None
    assert job.scheduled_at > NOON + 2 * SECOND  # with one chance in 3,600 to be wrong about a jitter that works


def test_start_and_end_belong_to_the_ticks(scene: Scene) -> None:
    scene.add(start=NOON + 3 * SECOND, end=NOON + 6 * SECOND)
    scene.pass_time(10 * SECOND)
    assert scene.ticks() == seconds(3, 6)
    assert scene.schedules.get("nightly").next_run is None


def test_start_and_end_need_not_be_ticks(scene: Scene) -> None:
    scene.add(expression="*/2 * * * * *", start=NOON + 2.1 * SECOND, end=NOON + 7.9 * SECOND)
    scene.pass_time(10 * SECOND)
    assert scene.ticks() == [NOON + 4 * SECOND, NOON + 6 * SECOND]


# The config file -----------------------------------------------------------------------------------------------------------------------


def test_the_schedules_of_the_config_file_are_put_into_storage_at_the_first_turn(scene: Scene) -> None:
    ticker = scene.ticker(declared={"nightly": {"expression": EACH_SECOND, "type": "t"}})
    scene.turn(ticker)
    scene.pass_time(2 * SECOND, ticker=ticker)
    assert scene.ticks() == seconds(1, 2)
    scene.schedules.pause("nightly")
    scene.pass_time(SECOND, ticker=ticker)
    assert scene.schedules.get("nightly").paused


def test_they_are_put_there_as_soon_as_storage_answers(scene: Scene) -> None:
    calls = itertools.count(1)

    def away(name: str) -> None:
        if name == "put_schedule" and next(calls) == 2:
            raise StorageUnavailable("away")

    declared = {name: {"expression": EACH_SECOND, "type": "t"} for name in ("a", "b", "c")}
    ticker = scene.ticker(declared=declared, storage=Wrapped(scene.storage, before=away))
    with pytest.raises(StorageUnavailable):
        scene.turn(ticker)
    scene.turn(ticker)
    assert [one.name for one in scene.schedules.all()] == ["a", "b", "c"]


def test_without_a_config_file_no_schedule_is_taken_away(scene: Scene) -> None:
    scene.turn(scene.ticker(declared={"nightly": {"expression": EACH_SECOND, "type": "t"}}))
    scene.turn(scene.ticker(declared=None))
    assert [one.name for one in scene.schedules.all()] == ["nightly"]
    scene.turn(scene.ticker(declared={}))
    assert scene.schedules.all() == []


# The service ---------------------------------------------------------------------------------------------------------------------------


def test_a_scheduler_stops_when_it_is_told(scene: Scene) -> None:
    stop = Stop()
    stop.request()
    assert scene.ticker(poll_interval=HOUR).run(stop) == Exit.OK


def test_a_storage_without_schedules_lets_the_scheduler_do_its_other_work(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class HistoryOnly:
        def describe(self) -> str:
            return "history in memory"

    with Scene(tmp_path / "jobqueue.db").queue as queue:
        storage: Any = HistoryOnly()
        stop = Stop()
        thread = threading.Thread(target=Ticker(queue, storage, poll_interval=SECOND).run, args=(stop,))
        thread.start()
        stop.request()
        thread.join(10)
        assert not thread.is_alive()
        assert "history in memory" in str([vars(record).get("fields") for record in caplog.records])
        with pytest.raises(Conflict, match="keeps no schedules"):
            _ = JobQueue(queue.broker, storage).schedules
