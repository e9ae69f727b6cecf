"""The ticker: one job for each tick, whatever happens to schedulers, storage, broker, clocks and the schedule meanwhile."""

from __future__ import annotations

import itertools
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from schedule_scene import EACH_SECOND, MINUTE, NOON, SECOND, Killed, Scene, Wrapped, installed_timetables, seconds, tick_of

from jobqueue_core import JobQueue, JobState, Priority
from jobqueue_core.errors import BrokerUnavailable, Conflict, QueueFull, StorageUnavailable
from jobqueue_core.handlers import Registry, handler
from jobqueue_core.scheduling.jobs import send_ticks
from jobqueue_core.service import Exit, Stop
from jobqueue_core.storage import Claim
from jobqueue_core.testing.factories import died, failed, schedule, tick, type_info, worker_info
from jobqueue_core.timetable import TimetablePlugin, Timetables
from jobqueue_cron import clockwatch
from jobqueue_cron.ticker import Ticker
from jobqueue_sqlite import schedules as sqlite_schedules

HOUR = timedelta(hours=1)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path / "jobqueue.db")
    with scene.queue:
        yield scene


def assert_one_each(found: list[datetime], expected: list[datetime], where: str = "") -> None:
    """Each tick is there once, and no other."""
    assert [f"{one:%T}" for one, count in Counter(found).items() if count > 1] == [], f"{where}: twice"
    assert [f"{one:%T}" for one in sorted(found)] == [f"{one:%T}" for one in expected], where


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


# Missed ticks --------------------------------------------------------------------------------------------------------------------------


def missed_ticks(scene: Scene, *, downtime: timedelta, **policy: Any) -> list[datetime]:
    """The ticks that fire when a scheduler comes back after *downtime*, of a schedule with a tick each second."""
    scene.add(**policy)
    scene.clock.advance(downtime)
    scene.turn()
    return scene.ticks()


@pytest.mark.parametrize("count", [10, 99, 100, 101, 250])
@pytest.mark.parametrize(
    ("policy", "most"),
    [
        ({}, 1),
        ({"misfire": "once"}, 1),
        ({"misfire": "once", "misfire_limit": 5}, 1),
        ({"misfire": "skip"}, 0),
        ({"misfire": "all"}, 100),
        ({"misfire": "all", "misfire_limit": 1}, 1),
        ({"misfire": "all", "misfire_limit": 10}, 10),
        ({"misfire": "all", "misfire_limit": 11}, 11),
    ],
    ids=str,
)
def test_what_was_missed_fires_as_the_policy_says_latest_ticks_oldest_first(scene: Scene, policy: dict[str, Any], most: int, count: int) -> None:
    expected = seconds(count - min(most, count) + 1, count)
    assert missed_ticks(scene, downtime=count * SECOND, **policy) == expected
    scene.pass_time(2 * SECOND)
    assert scene.ticks() == expected + seconds(count + 1, count + 2)


@pytest.mark.parametrize(("misfire", "expected"), [("once", [50]), ("skip", []), ("all", [40, 50])])
def test_missed_ticks_of_a_schedule_that_is_due_now_and_then(scene: Scene, misfire: str, expected: list[int]) -> None:
    scene.add(expression="*/10 * * * *", misfire=misfire, misfire_limit=2)
    scene.clock.advance(59 * MINUTE)
    scene.turn()
    assert scene.ticks() == [NOON + minutes * MINUTE for minutes in expected]
    scene.clock.advance(MINUTE)
    scene.turn()
    assert scene.ticks() == [NOON + minutes * MINUTE for minutes in [*expected, 60]]


def test_one_missed_tick_fires_late_by_default(scene: Scene) -> None:
    scene.add(expression="0 13 * * *")
    scene.clock.advance(timedelta(hours=20))
    scene.turn()
    assert scene.ticks() == [NOON + HOUR]


@pytest.mark.parametrize("misfire", ["once", "skip", "all"])
def test_a_month_of_missed_seconds_takes_no_time(scene: Scene, misfire: str) -> None:
    scene.add(misfire=misfire, misfire_limit=3)
    scene.clock.advance(timedelta(days=31))
    began = time.monotonic()
    scene.turn()
    assert time.monotonic() - began < 0.5
    last = NOON + timedelta(days=31)
    assert scene.ticks() == {"once": [last], "skip": [], "all": [last - 2 * SECOND, last - SECOND, last]}[misfire]


def test_a_schedule_that_ended_while_it_was_missed_fires_its_last_ticks_only(scene: Scene) -> None:
    scene.add("all", misfire="all", end=NOON + 20 * SECOND, misfire_limit=3)
    scene.add("once", end=NOON + 20 * SECOND)
    scene.add("skip", misfire="skip", end=NOON + 20 * SECOND)
    scene.clock.advance(HOUR)
    scene.turn()
    assert (scene.ticks("all"), scene.ticks("once"), scene.ticks("skip")) == (seconds(18, 20), seconds(20, 20), [])
    assert [one.next_run for one in scene.schedules.all()] == [None] * 3


def test_a_scheduler_that_dies_while_it_catches_up_loses_none_and_repeats_none(scene: Scene) -> None:
    scene.add(misfire="all", misfire_limit=30)
    scene.clock.advance(100 * SECOND)
    enqueued = itertools.count(1)

    def dies(name: str) -> None:
        if name == "enqueue" and next(enqueued) == 7:
            raise Killed

    with pytest.raises(Killed):
        scene.turn(scene.ticker(broker=Wrapped(scene.broker, before=dies)))
    scene.pass_time(10 * SECOND)
    assert_one_each(scene.ticks(), seconds(71, 110))


def test_catching_up_makes_no_other_schedule_miss_its_ticks(scene: Scene) -> None:
    scene.add("many", misfire="all", misfire_limit=1000)
    scene.clock.advance(timedelta(hours=1))
    scene.add("other")
    # Each claim takes 10 ms, so that catching up takes ten seconds.
    storage = Wrapped(scene.storage, after=lambda name: scene.clock.advance(SECOND / 100) if name == "claim_ticks" else None)
    ticker = scene.ticker(storage=storage)
    for _ in range(30):
        scene.turn(ticker)
        scene.clock.advance(SECOND / 10)
    found = scene.ticks("other")
    assert len(found) >= 10
    assert_one_each(found, [NOON + HOUR + at * SECOND for at in range(1, len(found) + 1)])


def test_a_scheduler_that_is_told_to_stop_does_not_first_catch_up(scene: Scene) -> None:
    scene.add("many", misfire="all", misfire_limit=1000)
    scene.clock.advance(timedelta(hours=1))
    stop = Stop()
    storage = Wrapped(scene.storage, after=lambda name: stop.request() if name == "claim_ticks" else None)
    scene.ticker(storage=storage).turn(stop)
    assert len(scene.ticks("many")) < 5
    scene.turn()
    assert_one_each(scene.ticks("many"), seconds(2601, 3600))


# On time -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [{"misfire": "skip"}, {"misfire": "once"}, {"misfire": "all", "misfire_limit": 1}], ids=str)
@pytest.mark.parametrize(("poll", "late"), [(1, 1), (1, 5), (0.1, 5), (3, 6), (60, 119)])
def test_a_scheduler_that_is_a_little_late_fires_every_tick(scene: Scene, policy: dict[str, Any], poll: float, late: int) -> None:
    scene.add(**policy)
    scene.clock.advance((1 + late) * SECOND)
    scene.turn(scene.ticker(poll_interval=poll * SECOND))
    assert scene.ticks() == seconds(1, 1 + late)


@pytest.mark.parametrize(("poll", "late"), [(1, 5), (3, 6)])
def test_what_is_later_was_missed(scene: Scene, poll: float, late: int) -> None:
    scene.add(misfire="skip")
    scene.clock.advance((1 + late) * SECOND + timedelta(milliseconds=1))
    scene.turn(scene.ticker(poll_interval=poll * SECOND))
    assert scene.ticks() == []


# Overlap -------------------------------------------------------------------------------------------------------------------------------


def test_a_schedule_whose_last_job_runs_still_lets_its_ticks_pass(scene: Scene) -> None:
    scene.add(overlap="skip")
    scene.pass_time(4 * SECOND)
    assert scene.ticks() == seconds(1, 1)
    assert scene.schedules.get("nightly").next_run == NOON + 5 * SECOND
    scene.finish()
    scene.pass_time(3 * SECOND)
    assert scene.ticks() == [*seconds(1, 1), *seconds(5, 5)]


@pytest.mark.parametrize("state", ["scheduled", "processing", "retrying"])
def test_a_job_that_has_not_ended_is_one_that_still_runs(scene: Scene, state: str) -> None:
    scene.add(overlap="skip", jitter="10s" if state == "scheduled" else None)
    scene.pass_time(SECOND)
    if state != "scheduled":
        (lease,) = scene.broker.lease(["default"], 1, worker_id="w", lease_for=HOUR, wait=timedelta(0), suspects=0)
        if state == "retrying":
            assert scene.broker.settle([failed(lease, delay=HOUR)], worker_id="w") == [True]
    (job,) = scene.jobs()
    found = scene.queue.get(job.id)
    assert found is not None
    assert found.state == state
    scene.pass_time(SECOND)
    assert scene.ticks() == seconds(1, 1)


@pytest.mark.parametrize("end", ["completed", "dead", "cancelled"])
def test_a_job_that_has_ended_somehow_lets_the_next_tick_fire(scene: Scene, end: str) -> None:
    scene.add(overlap="skip")
    scene.pass_time(SECOND)
    match end:
        case "completed":
            assert scene.finish() == 1
        case "cancelled":
            scene.queue.cancel(scene.jobs()[0].id)
        case "dead":
            leases = scene.broker.lease(["default"], 1, worker_id="w", lease_for=HOUR, wait=timedelta(0), suspects=0)
            assert scene.broker.settle([died(leases[0])], worker_id="w") == [True]
    scene.pass_time(SECOND)
    assert scene.ticks() == seconds(1, 2)


def test_a_last_job_that_the_broker_has_forgotten_has_ended(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "jobqueue.db", result_ttl=MINUTE)
    with scene.queue:
        scene.add(expression="*/5 * * * *", overlap="skip")
        scene.pass_time(5 * MINUTE, step=MINUTE)
        scene.finish()
        scene.forget(MINUTE)
        assert scene.broker.get([scene.jobs()[0].id]) == [None]
        scene.pass_time(4 * MINUTE, step=MINUTE)
        assert scene.ticks() == [NOON + 5 * MINUTE, NOON + 10 * MINUTE]


def test_a_last_job_that_is_still_on_its_way_runs_still(scene: Scene) -> None:
    scene.add(overlap="skip")
    scene.clock.advance(SECOND)
    with pytest.raises(Killed):
        scene.turn(scene.ticker(broker=Wrapped(scene.broker, before=killed_at("enqueue"))))
    scene.pass_time(3 * SECOND)
    assert scene.jobs() == []
    scene.pass_time(6 * SECOND)
    assert scene.ticks() == seconds(1, 1)


def test_a_last_job_on_its_way_is_seen_also_behind_one_that_was_run_by_hand_after_its_tick(scene: Scene) -> None:
    scene.add(overlap="skip")
    scene.clock.advance(1.5 * SECOND)
    by_hand = scene.schedules.run("nightly")
    assert scene.finish() == 1
    scene.clock.advance(SECOND / 10)
    # The tick of second 1 is still to come: it is claimed after the run, and due before it.
    with pytest.raises(Killed):
        scene.turn(scene.ticker(broker=Wrapped(scene.broker, before=killed_at("enqueue"))))
    scene.clock.advance(SECOND)
    scene.turn()
    assert [job.id for job in scene.jobs()] == [by_hand.id]
    scene.pass_time(6 * SECOND)
    assert [tick_of(job) for job in scene.jobs()[1:]] == seconds(1, 1)


def test_of_ticks_that_are_due_together_one_fires_when_they_may_not_overlap(scene: Scene) -> None:
    scene.add("late", overlap="skip")
    scene.add("missed", overlap="skip", misfire="all")
    scene.clock.advance(4 * SECOND)
    scene.turn()
    assert (scene.ticks("late"), scene.ticks("missed")) == (seconds(4, 4), seconds(4, 4))
    scene.finish()
    scene.clock.advance(MINUTE)
    scene.turn()
    assert scene.ticks("missed") == [*seconds(4, 4), *seconds(64, 64)]


def test_schedules_that_may_overlap_do(scene: Scene) -> None:
    scene.add(overlap="allow")
    scene.pass_time(3 * SECOND)
    assert scene.ticks() == seconds(1, 3)


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


# Clocks --------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [{}, {"misfire": "all"}, {"overlap": "skip"}], ids=str)
def test_a_clock_that_is_set_back_makes_no_tick_twice_and_loses_none(scene: Scene, policy: dict[str, Any]) -> None:
    scene.add(expression="*/5 * * * * *", **policy)
    for at in range(240):
        if at == 60:
            scene.clock.advance(-2 * MINUTE)
        scene.pass_time(SECOND)
        scene.finish()
    assert_one_each(scene.ticks(), seconds(5, 120)[::5])


def test_a_scheduler_that_comes_while_the_clock_is_set_back_repeats_nothing(scene: Scene) -> None:
    scene.add()
    scene.pass_time(5 * SECOND)
    scene.clock.advance(-2 * MINUTE)
    scene.pass_time(126 * SECOND, step=3 * SECOND, ticker=scene.ticker(declared={}))
    assert_one_each(scene.ticks(), seconds(1, 11))


def test_a_tick_that_was_claimed_and_not_sent_when_the_clock_was_set_back_is_sent_once(scene: Scene) -> None:
    scene.add(expression="* * * * *")
    scene.clock.advance(MINUTE)
    with pytest.raises(Killed):
        scene.turn(scene.ticker(broker=Wrapped(scene.broker, before=killed_at("enqueue"))))
    scene.clock.advance(-2 * MINUTE)
    scene.pass_time(4 * MINUTE, step=10 * SECOND)
    assert_one_each(scene.ticks(), [NOON + MINUTE, NOON + 2 * MINUTE, NOON + 3 * MINUTE])


@pytest.mark.parametrize("edit", [{"expression": "*/2 * * * * *"}, {"timezone": "Europe/Berlin"}], ids=str)
def test_a_schedule_that_is_edited_while_the_clock_is_set_back_repeats_nothing_and_goes_on(scene: Scene, edit: dict[str, Any]) -> None:
    scene.add()
    scene.pass_time(MINUTE)
    scene.clock.advance(-30 * SECOND)
    scene.schedules.edit("nightly", edit)
    scene.pass_time(40 * SECOND)
    expected = seconds(1, 70) if "timezone" in edit else [*seconds(1, 60), *seconds(61, 70)[1::2]]
    assert_one_each(scene.ticks(), expected)


def test_the_same_after_more_ticks_than_are_looked_at_once(scene: Scene) -> None:
    ticker = scene.ticker(poll_interval=10 * MINUTE)  # so that all of them are on time
    scene.add()
    scene.add("other", "* * * * *")
    scene.clock.advance(10 * MINUTE)
    scene.turn(ticker)
    assert scene.ticks() == seconds(1, 600)
    scene.clock.advance(-9 * MINUTE)
    scene.schedules.edit("nightly", {"timezone": "Europe/Berlin"})
    began = time.monotonic()
    scene.pass_time(10 * MINUTE, step=20 * SECOND)
    assert time.monotonic() - began < 5
    found = scene.ticks()
    assert [one for one, count in Counter(found).items() if count > 1] == []
    assert NOON + 11 * MINUTE in found
    assert scene.ticks("other") == [NOON + minute * MINUTE for minute in range(1, 12)]


def test_a_clock_that_is_set_forward_skips_as_a_downtime_does(scene: Scene) -> None:
    for name, misfire in (("once", "once"), ("skip", "skip"), ("all", "all")):
        scene.add(name, misfire=misfire, misfire_limit=3)
    scene.pass_time(2 * SECOND)
    scene.clock.advance(HOUR)
    scene.pass_time(2 * SECOND)
    expected = {"once": 1, "skip": 0, "all": 3}
    for name, count in expected.items():
        # The second that passes after the jump belongs to what was missed: nothing was looked at before.
        assert_one_each(scene.ticks(name), [*seconds(1, 2), *seconds(3603 - count + 1, 3603), *seconds(3604, 3604)])


def test_the_hosts_clock_does_not_matter(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 0.0)
    scene.add()
    scene.pass_time(3 * SECOND)
    assert abs(datetime.now(UTC) - NOON) > HOUR  # so that it is tested
    assert scene.ticks() == seconds(1, 3)


# Changed meanwhile ---------------------------------------------------------------------------------------------------------------------


def change_expression(scene: Scene) -> None:
    scene.schedules.edit("nightly", {"expression": "*/10 * * * * *"})


def change_payload(scene: Scene) -> None:
    scene.schedules.edit("nightly", {"payload": "new", "type": "new"})


def pause(scene: Scene) -> None:
    scene.schedules.pause("nightly")


def disable(scene: Scene) -> None:
    scene.schedules.edit("nightly", {"enabled": False})


def remove(scene: Scene) -> None:
    scene.schedules.remove("nightly")


def recreate(scene: Scene) -> None:
    scene.schedules.remove("nightly")
    scene.add(type="new", payload="new")


def recreate_disabled(scene: Scene) -> None:
    scene.schedules.remove("nightly")
    scene.add(type="new", enabled=False)


ALL_CHANGES = [change_expression, change_payload, pause, disable, remove, recreate, recreate_disabled]
MOMENTS = [(when, name) for when in ("before", "after") for name in ("now", "due_schedules", "claim_ticks", "enqueue", "mark_sent")]


@pytest.mark.parametrize("late", [3, 20], ids=["on time", "catching up"])
@pytest.mark.parametrize("change", ALL_CHANGES)
def test_a_change_while_it_fires_lets_no_tick_pass_but_those_that_were_begun(tmp_path: Path, change: Callable[[Scene], None], late: int) -> None:
    for number, (when, name) in enumerate(MOMENTS):
        scene = Scene(tmp_path / f"{number}.db")
        with scene.queue:
            begun = fire_and_change(scene, change, when=when, name=name, late=late)
            check_changed(scene, change, begun=begun, changed_at=late, where=f"{when} {name}")


def fire_and_change(scene: Scene, change: Callable[[Scene], None], *, when: str, name: str, late: int) -> list[datetime]:
    """Change a schedule when broker or storage is called for *name*, and go on for ten seconds; the ticks that were claimed before."""
    scene.add(type="old", misfire="all")
    begun: list[datetime] = []
    changed: list[bool] = []

    def meanwhile(called: str) -> None:
        if called == name and not changed:
            changed.append(True)
            begun.extend(one.due for one in scene.storage.ticks("nightly", 100))
            change(scene)

    hooks = {when: meanwhile}
    ticker = scene.ticker(broker=Wrapped(scene.broker, **hooks), storage=Wrapped(scene.storage, **hooks))
    scene.clock.advance(late * SECOND)
    scene.turn(ticker)
    assert changed == [True], f"nobody called {name}"
    scene.pass_time(10 * SECOND, ticker=ticker)
    return begun


def check_changed(scene: Scene, change: Callable[[Scene], None], *, begun: list[datetime], changed_at: int, where: str) -> None:
    found = {kind: [tick_of(job) for job in scene.jobs() if job.type == kind] for kind in ("old", "new")}
    later = seconds(changed_at + 1, changed_at + 10)
    stored = scene.storage.schedule("nightly")
    if change is change_expression:
        assert_one_each(found["old"], sorted(begun) + [one for one in later if one.second % 10 == 0], where)
        assert stored is not None
        assert stored.expression == "*/10 * * * * *", where
        return
    assert_one_each(found["old"], sorted(begun), where)
    if change is change_payload:  # which is no reason to miss a tick
        assert_one_each(found["old"] + found["new"], seconds(1, changed_at) + later, where)
    elif change is recreate:
        assert_one_each(found["new"], later, where)
    else:
        assert found["new"] == [], where
    if change is remove:
        assert stored is None, where
        return
    assert stored is not None
    kept = (stored.type, stored.fires)
    assert kept == ("new" if change in (change_payload, recreate, recreate_disabled) else "old", change in (change_payload, recreate)), where


# What cannot be read -------------------------------------------------------------------------------------------------------------------


def put(scene: Scene, name: str, **fields: Any) -> None:
    """Store a schedule as somebody with other plugins, or another release, would have."""
    new = schedule(name, **{"expression": EACH_SECOND, "type": "t", "next_run": NOON + SECOND, **fields})
    assert scene.storage.put_schedule(new, expected_version=None)


@pytest.mark.parametrize(
    "broken",
    [
        {"expression": "no"},
        {"expression": ""},
        {"expression": "0 0 31 2 *"},
        {"timezone": "Mars/Olympus"},
        {"type": "not a type"},
        {"queue": "no queue!"},
    ],
    ids=str,
)
def test_a_schedule_that_cannot_be_read_holds_up_no_other(scene: Scene, broken: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    put(scene, "a-broken", **broken)
    scene.add("fine")
    scene.pass_time(10 * SECOND)
    assert scene.ticks("fine") == seconds(1, 10)
    assert scene.jobs("a-broken") == []
    assert [one for one in caplog.messages if "'a-broken'" in one]


def test_many_schedules_that_cannot_be_read_hold_up_no_other(scene: Scene) -> None:
    for number in range(450):
        put(scene, f"broken-{number}", expression="no", next_run=NOON)
    scene.add("fine")
    scene.pass_time(3 * SECOND)
    assert scene.ticks("fine") == seconds(1, 3)


def test_what_cannot_be_read_is_not_complained_of_all_the_time(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    put(scene, "broken", expression="no")
    scene.pass_time(20 * SECOND)
    assert len([one for one in caplog.messages if "'broken'" in one]) == 1


def test_a_schedule_that_is_mended_fires_from_then_on(scene: Scene) -> None:
    put(scene, "broken", expression="no")
    scene.pass_time(3 * SECOND)
    scene.schedules.edit("broken", {"expression": EACH_SECOND})
    scene.pass_time(10 * SECOND)
    assert scene.ticks("broken") == seconds(4, 13)


class Broken:
    """A timetable with a mistake in it."""

    def __init__(self, mistake: str) -> None:
        self.mistake = mistake
        self.asked = 0

    def after(self, moment: datetime) -> datetime | None:
        self.asked += 1
        if self.asked > 10_000:
            raise Killed  # nobody may ask it for ever
        match self.mistake:
            case "after raises":
                raise RuntimeError("after")
            case "after stands still":
                return moment.replace(microsecond=0)
            case "after goes back":
                return moment - HOUR
            case _:
                return moment.replace(tzinfo=None) + SECOND

    def before(self, moment: datetime) -> datetime | None:
        return moment.replace(microsecond=0)


@pytest.mark.parametrize("mistake", ["read raises", "after raises", "after is naive", "after stands still", "after goes back"])
def test_a_third_partys_broken_timetable_holds_up_no_other_schedule(scene: Scene, mistake: str, caplog: pytest.LogCaptureFixture) -> None:
    def read(expression: str, timezone: str) -> Any:
        if mistake == "read raises":
            raise RuntimeError("read")
        return Broken(mistake)

    offered = {"cron": TimetablePlugin(name="cron", read=installed_timetables().read), "bad": TimetablePlugin(name="bad", read=read)}
    put(scene, "a-broken", expression="bad: x")
    scene.add("fine")
    scene.pass_time(5 * SECOND, ticker=scene.ticker(timetables=Timetables(offered)))
    assert scene.ticks("fine") == seconds(1, 5)
    assert [one for one in caplog.messages if "'a-broken'" in one]


def damage(path: Path, statement: str) -> None:
    with sqlite3.connect(path / "jobqueue.db") as connection:
        assert connection.execute(statement).rowcount == 1
    connection.close()


def test_a_damaged_row_holds_up_no_other_schedule(scene: Scene, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    scene.add("a-damaged")
    scene.add("fine")
    damage(tmp_path, "UPDATE schedules SET record = x'c1c1' WHERE name = 'a-damaged'")
    scene.pass_time(3 * SECOND)
    assert scene.ticks("fine") == seconds(1, 3)
    assert len([one for one in caplog.messages if "'a-damaged'" in one and "record" in one]) == 1


def test_a_damaged_tick_that_was_not_sent_holds_up_no_other(scene: Scene, tmp_path: Path) -> None:
    for name in ("a-damaged", "fine"):
        scene.add(name, "0 13 * * *")
    scene.clock.advance(HOUR)
    with pytest.raises(Killed):
        scene.turn(scene.ticker(broker=Wrapped(scene.broker, before=killed_at("enqueue"))))
    damage(tmp_path, "UPDATE ticks SET record = x'c1c1' WHERE schedule = 'a-damaged'")
    scene.add("other")
    scene.pass_time(10 * SECOND)
    assert scene.ticks("fine") == [NOON + HOUR]
    assert len(scene.ticks("other")) == 10


def test_a_damaged_last_tick_holds_up_no_other_schedule(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "jobqueue.db", result_ttl=MINUTE)
    with scene.queue:
        scene.add("a-damaged", "* * * * *", overlap="skip")
        scene.add("fine", "* * * * *")
        scene.pass_time(MINUTE, step=MINUTE)
        scene.finish()
        scene.forget(MINUTE)
        damage(tmp_path, "UPDATE ticks SET record = x'c1c1' WHERE schedule = 'a-damaged'")
        scene.turn()
        assert scene.ticks("fine") == [NOON + MINUTE, NOON + 2 * MINUTE]


def test_a_tick_that_is_there_already_does_not_wedge_its_schedule(scene: Scene) -> None:
    scene.add()
    seen = scene.schedules.get("nightly")
    assert scene.storage.claim_ticks([Claim(schedule=seen, tick=tick(seen, due=NOON + 2 * SECOND), next_run=NOON + SECOND)]) == [True]
    scene.storage.mark_sent([("nightly", NOON + 2 * SECOND)])
    scene.add("other")
    scene.pass_time(6 * SECOND)
    assert_one_each(scene.ticks(), [*seconds(1, 1), *seconds(3, 6)])
    assert scene.ticks("other") == seconds(1, 6)


class Held(Wrapped):
    """A storage in which a frozen scheduler holds the schedules that it was about to claim; each answer takes 50 ms."""

    rounds = 0
    passed = 0.0

    def claim_ticks(self, claims: list[Claim]) -> list[bool]:
        self.rounds += 1
        self.passed += 0.05
        if self.rounds > 500:
            raise Killed  # it goes round and round
        free = [one for one in claims if not one.schedule.name.startswith("held-")]
        answers = dict(zip([one.schedule.name for one in free], self.inner.claim_ticks(free), strict=True))
        return [answers.get(one.schedule.name, False) for one in claims]


def test_schedules_that_others_hold_hold_up_no_other(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(250):
        put(scene, f"held-{number:03}", next_run=NOON)
    scene.add("fine")
    held = Held(scene.storage)
    monkeypatch.setattr("jobqueue_cron.ticker.monotonic", lambda: held.passed)
    ticker = scene.ticker(storage=held)
    for _ in range(8):
        began = held.passed
        scene.clock.advance(SECOND)
        while held.passed < began + 1:  # as Ticker.run does
            held.passed += max(scene.turn(ticker), 0.001)
    scene.turn(ticker)
    assert_one_each(scene.ticks("fine"), seconds(1, 8))
    assert held.rounds < 200, "nobody asks all the time"


def test_what_a_busy_scheduler_comes_to_late_was_not_missed(scene: Scene) -> None:
    for number in range(401):
        scene.add(f"one-{number:03}", "0 * * * *", misfire="skip")
    scene.turn()
    storage = Wrapped(scene.storage, after=lambda name: scene.clock.advance(4 * SECOND) if name == "claim_ticks" else None)
    ticker = scene.ticker(storage=storage)
    scene.turn(ticker)
    scene.clock.advance(timedelta(minutes=59, seconds=58))
    scene.turn(ticker)
    scene.clock.advance(2 * SECOND)
    scene.turn(ticker)
    assert [name for name in (f"one-{number:03}" for number in range(401)) if len(scene.ticks(name)) != 1] == []


def test_a_job_that_arrives_between_two_looks_for_it_still_runs(scene: Scene) -> None:
    scene.add(overlap="skip")
    scene.clock.advance(SECOND)
    with pytest.raises(Killed):
        scene.turn(scene.ticker(broker=Wrapped(scene.broker, before=killed_at("enqueue"))))

    def send(called: str) -> None:
        if called == "get":
            now = scene.broker.now()
            send_ticks(scene.queue, scene.storage, scene.storage.unsent_ticks(now + MINUTE, 10), now=now)

    scene.clock.advance(SECOND)
    scene.turn(scene.ticker(broker=Wrapped(scene.broker, after=send)))
    assert scene.ticks() == seconds(1, 1)


# Deaths --------------------------------------------------------------------------------------------------------------------------------

DEADLY = frozenset({"now", "due_schedules", "claim_ticks", "enqueue", "mark_sent", "unsent_ticks", "get", "ticks"})


def killed_at(name: str, at: int = 1) -> Callable[[str], None]:
    """Kills whoever calls *name* for the *at*-th time."""
    calls = itertools.count(1)

    def kill(called: str) -> None:
        if called == name and next(calls) == at:
            raise Killed

    return kill


class Points:
    """Numbers the moments before and after each call to broker and storage, and does something at one of them."""

    def __init__(self, scene: Scene, at: int, then: Callable[[], object]) -> None:
        self.reached = 0
        self.where = ""
        self._at = at
        self._then = then
        self.broker = Wrapped(scene.broker, before=self._before, after=self._after)
        self.storage = Wrapped(scene.storage, before=self._before, after=self._after)

    def _before(self, name: str) -> None:
        self._point(f"before {name}")

    def _after(self, name: str) -> None:
        self._point(f"after {name}")

    def _point(self, where: str) -> None:
        if where.split()[1] in DEADLY:
            self.reached += 1
            if self.reached == self._at:
                self.where = f"point {self._at}, {where}"
                self._then()


def die() -> None:
    raise Killed


def test_a_scheduler_may_die_at_any_moment(tmp_path: Path) -> None:
    for at in itertools.count(1):
        scene = Scene(tmp_path / f"{at}.db")
        with scene.queue:
            scene.add("a")
            scene.add("b", "*/2 * * * * *", jitter="3s")
            points = Points(scene, at, die)
            first = scene.ticker(broker=points.broker, storage=points.storage)
            try:
                for step in (1, 3):  # the second time two ticks are due at once
                    scene.clock.advance(step * SECOND)
                    scene.turn(first)
            except Killed:
                scene.pass_time(NOON + 12 * SECOND - scene.clock())
                assert_one_each(scene.ticks("a"), seconds(1, 12), points.where)
                assert_one_each(scene.ticks("b"), seconds(1, 12)[1::2], points.where)
                assert scene.storage.unsent_ticks(scene.clock() + HOUR, 10) == [], points.where
                continue
        assert at > 30, "there were moments to die at"
        return


def test_the_one_who_sends_again_may_die_at_any_moment_too(tmp_path: Path) -> None:
    for at in itertools.count(1):
        scene = Scene(tmp_path / f"{at}.db")
        with scene.queue:
            for name in ("a", "b", "c"):
                scene.add(name, "*/10 * * * * *")
            scene.clock.advance(10 * SECOND)
            with pytest.raises(Killed):
                scene.turn(scene.ticker(broker=Wrapped(scene.broker, before=killed_at("enqueue"))))
            scene.clock.advance(6 * SECOND)
            points = Points(scene, at, die)
            try:
                scene.turn(scene.ticker(broker=points.broker, storage=points.storage))
            except Killed:
                scene.pass_time(5 * SECOND)
                for name in ("a", "b", "c"):
                    assert_one_each(scene.ticks(name), seconds(1, 20)[9::10], points.where)
                continue
        assert at > 10, "there were moments to die at"
        return


def test_a_scheduler_may_freeze_at_any_moment_and_wake_when_its_job_is_forgotten(tmp_path: Path) -> None:
    for at in itertools.count(1):
        scene = Scene(tmp_path / f"{at}.db", result_ttl=MINUTE)
        with scene.queue:
            scene.add("a", "*/20 * * * * *")
            scene.add("b", "*/20 * * * * *", overlap="skip")
            others = scene.ticker()

            def frozen(scene: Scene = scene, others: Ticker = others) -> None:
                for _ in range(12):
                    scene.clock.advance(10 * SECOND)
                    scene.turn(others)
                    scene.finish()
                    scene.broker.prune(1000)

            points = Points(scene, at, frozen)
            first = scene.ticker(broker=points.broker, storage=points.storage, poll_interval=10 * SECOND)
            for _ in range(2):
                scene.clock.advance(20 * SECOND)
                scene.turn(first)
                scene.finish()
            if points.where:
                for _ in range(4):
                    scene.pass_time(10 * SECOND, step=10 * SECOND, ticker=first)
                    scene.finish()
                for name in ("a", "b"):
                    assert_one_each(scene.ticks(name), seconds(1, 200)[19::20], points.where)
                assert scene.storage.unsent_ticks(scene.clock() + HOUR, 10) == [], points.where
                continue
        assert at > 20, "there were moments to freeze at"
        return


def test_a_frozen_schedulers_late_job_is_refused(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "jobqueue.db", result_ttl=MINUTE)
    with scene.queue:
        scene.add(expression="* * * * *")
        other = scene.ticker()

        def frozen(name: str) -> None:
            if name == "enqueue":
                scene.clock.advance(6 * SECOND)
                scene.turn(other)
                assert scene.finish() == 1
                scene.forget(MINUTE)
                scene.turn(other)
                scene.finish()
                assert scene.broker.get([scene.jobs()[0].id]) == [None]

        scene.clock.advance(MINUTE)
        scene.turn(scene.ticker(broker=Wrapped(scene.broker, before=frozen)))
        scene.pass_time(30 * SECOND, step=5 * SECOND)
        assert_one_each(scene.ticks(), [NOON + MINUTE, NOON + 2 * MINUTE])


def test_while_recording_is_behind_a_forgotten_job_is_not_taken_for_one_that_was_never_sent(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "jobqueue.db", result_ttl=MINUTE)
    with scene.queue:
        scene.add(expression="0 13 * * *")
        scene.clock.advance(HOUR)
        with pytest.raises(Killed):
            scene.turn(scene.ticker(storage=Wrapped(scene.storage, before=killed_at("mark_sent"))))
        assert scene.finish() == 1
        scene.clock.advance(MINUTE + SECOND)
        while scene.broker.prune(1000):
            pass
        scene.turn()
        assert len(scene.jobs()) == 1
        assert [tick.sent for tick in scene.storage.ticks("nightly", 10)] == [False]
        scene.recorder.record_waiting()
        scene.turn()
        assert len(scene.jobs()) == 1
        assert [tick.sent for tick in scene.storage.ticks("nightly", 10)] == [True]


def test_a_job_that_has_run_and_is_forgotten_is_not_sent_again_by_who_comes_much_later(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "jobqueue.db", result_ttl=MINUTE)
    with scene.queue:
        scene.add(expression="0 13 * * *")
        scene.clock.advance(HOUR)
        with pytest.raises(Killed):
            scene.turn(scene.ticker(storage=Wrapped(scene.storage, before=killed_at("mark_sent"))))
        assert scene.finish() == 1
        scene.forget(MINUTE)
        scene.clock.advance(HOUR)
        scene.turn()
        assert scene.ticks() == [NOON + HOUR]
        assert scene.storage.unsent_ticks(scene.clock(), 10) == []


# Away ----------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [BrokerUnavailable("away"), QueueFull("full"), StorageUnavailable("away")], ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("name", sorted(DEADLY - {"get"}))
def test_a_scheduler_outlives_a_broker_or_storage_that_is_away(scene: Scene, name: str, failure: Exception) -> None:
    scene.add()
    stop = Stop()
    calls = itertools.count(1)

    def fails(called: str) -> None:
        if called == name and next(calls) == 1:
            raise failure

    looked = itertools.count(1)

    def stops(called: str) -> None:
        if called == "unsent_ticks":
            scene.clock.advance(SECOND)
            if next(looked) > 8:
                stop.request()

    broker = Wrapped(scene.broker, before=fails)
    storage = Wrapped(scene.storage, before=fails, after=stops)
    ticker = scene.ticker(broker=broker, storage=storage, poll_interval=SECOND / 100)
    assert ticker.run(stop) == Exit.OK
    scene.turn()
    found = scene.ticks()
    assert len(found) >= 5
    assert_one_each(found, seconds(1, len(found)))


def test_a_tick_whose_job_may_have_arrived_is_sent_again_under_its_id(scene: Scene) -> None:
    scene.add()

    def cut_off(name: str) -> None:
        if name == "enqueue":
            raise BrokerUnavailable("the reply was lost")

    scene.clock.advance(SECOND)
    with pytest.raises(BrokerUnavailable):
        scene.turn(scene.ticker(broker=Wrapped(scene.broker, after=cut_off)))
    scene.pass_time(7 * SECOND)
    assert_one_each(scene.ticks(), seconds(1, 8))


def test_a_scheduler_stops_when_it_is_told(scene: Scene) -> None:
    stop = Stop()
    stop.request()
    assert scene.ticker(poll_interval=HOUR).run(stop) == Exit.OK


def test_many_unsent_ticks_are_all_sent_again(scene: Scene) -> None:
    for number in range(450):
        put(scene, f"s{number}")
    scene.clock.advance(SECOND)
    for _ in range(3):
        with pytest.raises(Killed):
            scene.turn(scene.ticker(broker=Wrapped(scene.broker, before=killed_at("enqueue"))))
    assert scene.broker.created == []
    for one in scene.storage.schedules():
        scene.schedules.pause(one.name)
    scene.clock.advance(6 * SECOND)
    scene.turn()
    assert Counter(job.metadata["jobqueue.schedule"] for job in scene.broker.created) == {f"s{number}": 1 for number in range(450)}


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


# The host's clock ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("off", [timedelta(hours=1), timedelta(hours=-1), timedelta(seconds=5.1), timedelta(seconds=-5.1)], ids=str)
def test_a_host_whose_clock_is_wrong_is_told_of_when_that_begins_and_when_it_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, off: timedelta
) -> None:
    caplog.set_level("INFO", logger="jobqueue.cron")
    host, minutes = [NOON + off], itertools.count()
    monkeypatch.setattr(clockwatch, "monotonic", lambda: next(minutes) * 60.0)
    watch = clockwatch.ClockWatch(lambda: NOON, lambda: host[0])
    for _ in range(6):
        watch.look()
    (record,) = caplog.records
    assert (record.levelname, record.fields["host_is"]) == ("WARNING", "ahead" if off > timedelta(0) else "behind")  # type: ignore[attr-defined]
    assert record.fields["seconds"] == pytest.approx(abs(off.total_seconds()))  # type: ignore[attr-defined]
    host[0] = NOON
    for _ in range(6):
        watch.look()
    assert [one.levelname for one in caplog.records] == ["WARNING", "INFO"]


@pytest.mark.parametrize("off", [timedelta(0), timedelta(seconds=4.9), timedelta(seconds=-4.9)], ids=str)
def test_a_clock_that_is_a_little_off_is_no_news(caplog: pytest.LogCaptureFixture, off: timedelta) -> None:
    clockwatch.ClockWatch(lambda: NOON, lambda: NOON + off).look()
    assert caplog.records == []


def test_a_broker_that_is_slow_to_answer_makes_no_clock_wrong(caplog: pytest.LogCaptureFixture) -> None:
    host = iter([NOON - 30 * SECOND, NOON + 30 * SECOND])
    clockwatch.ClockWatch(lambda: NOON, lambda: next(host)).look()
    assert caplog.records == []


def test_the_clock_is_looked_at_now_and_then_only() -> None:
    asked = []
    watch = clockwatch.ClockWatch(lambda: asked.append(1) or NOON)  # type: ignore[func-returns-value]
    for _ in range(100):
        watch.look()
    assert asked == [1]


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
