"""Runs of schedules: what is told of the latest, and those made by hand, which come once whatever fails and keep the timetable."""

from __future__ import annotations

from pathlib import Path

import pytest
from schedule_scene import MINUTE, NOON, SECOND, Killed, Scene, Wrapped
from schedule_trials import HOUR, HOURLY, killed_at, open_scene, stored

from jobqueue_core import Conflict, JobQueue, JobState
from jobqueue_core.errors import BrokerUnavailable, QueueFull, StorageUnavailable
from jobqueue_core.job import Priority

scene = pytest.fixture(open_scene)


# What is told of them ------------------------------------------------------------------------------------------------------------------


def test_runs_are_the_latest_jobs_and_what_became_of_them(scene: Scene) -> None:
    scene.add(expression="* * * * *")
    scene.pass_time(2 * MINUTE, step=MINUTE)
    scene.finish()
    scene.clock.advance(SECOND)
    by_hand = scene.schedules.run("nightly")
    scene.pass_time(MINUTE, step=MINUTE)
    third, hand, second, first = scene.schedules.runs("nightly")
    jobs = scene.jobs()
    assert [one.job_id for one in (first, second, hand, third)] == [one.id for one in jobs]
    assert [one.due for one in (first, second, third)] == [NOON + at * MINUTE for at in (1, 2, 3)]
    assert hand.due.replace(microsecond=0) == NOON + 2 * MINUTE + SECOND
    assert [one.manual for one in (first, second, hand, third)] == [False, False, True, False]
    assert [one.state for one in (first, second, hand, third)] == [JobState.COMPLETED, JobState.COMPLETED, JobState.QUEUED, JobState.QUEUED]
    assert (hand.job_id, hand.sent, hand.started_at) == (by_hand.id, True, None)
    assert first.to_dict() == {
        "schedule": "nightly",
        "due": "2030-01-01T12:01:00Z",
        "job_id": jobs[0].id,
        "manual": False,
        "sent": True,
        "state": "completed",
        "started_at": "2030-01-01T12:02:00Z",
        "finished_at": "2030-01-01T12:02:00Z",
        "error": None,
    }
    assert scene.schedules.runs("nightly", 2) == [third, hand]


def test_a_run_that_the_broker_has_forgotten_is_told_from_history(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "jobqueue.db", result_ttl=MINUTE)
    with scene.queue:
        scene.add(expression=HOURLY)
        scene.pass_time(HOUR, step=HOUR)
        scene.finish()
        scene.forget(MINUTE)
        (run,) = scene.schedules.runs("nightly")
        assert (run.state, run.finished_at) == (JobState.COMPLETED, NOON + HOUR)


def test_a_run_that_is_not_sent_yet_says_so(scene: Scene) -> None:
    scene.add()
    scene.clock.advance(SECOND)
    with pytest.raises(Killed):
        scene.turn(scene.ticker(broker=Wrapped(scene.broker, before=killed_at("enqueue"))))
    (run,) = scene.schedules.runs("nightly")
    assert (run.due, run.sent, run.state) == (NOON + SECOND, False, None)


# By hand -------------------------------------------------------------------------------------------------------------------------------


def test_a_run_makes_one_job_now_and_keeps_the_timetable(scene: Scene) -> None:
    added = scene.add(expression=HOURLY, payload={"a": 1}, queue="q", priority="low", timeout="9s", max_retries=2, jitter="1h")
    scene.clock.advance(10 * MINUTE)
    job = scene.schedules.run("nightly")
    assert [one.id for one in scene.jobs()] == [job.id]
    assert (job.payload, job.queue, job.priority, job.timeout, job.max_retries) == ({"a": 1}, "q", Priority.LOW, 9 * SECOND, 2)
    assert job.metadata == {"jobqueue.schedule": "nightly"}
    assert (job.state, job.scheduled_at) == (JobState.QUEUED, NOON + 10 * MINUTE)
    found = stored(scene)
    assert (found.next_run, found.last_job_id) == (added.next_run, job.id)
    assert found.last_run is not None
    assert found.last_run.replace(microsecond=0) == NOON + 10 * MINUTE
    scene.pass_time(10 * SECOND)
    assert len(scene.jobs()) == 1
    scene.pass_time(50 * MINUTE, step=10 * MINUTE)
    assert len(scene.jobs()) == 2


@pytest.mark.parametrize("how", ["paused", "disabled", "over"])
def test_a_schedule_that_does_not_fire_can_be_run(scene: Scene, how: str) -> None:
    scene.add(enabled=how != "disabled", end=NOON + SECOND if how == "over" else None)
    if how == "paused":
        scene.schedules.pause("nightly")
    if how == "over":
        scene.pass_time(2 * SECOND)
    before = stored(scene)
    job = scene.schedules.run("nightly")
    assert scene.jobs()[-1].id == job.id
    assert (stored(scene).next_run, stored(scene).fires) == (before.next_run, before.fires)


def test_each_run_makes_a_job_of_its_own(scene: Scene) -> None:
    scene.add(expression=HOURLY)
    ids = []
    for _ in range(3):
        scene.clock.advance(SECOND / 1000)
        ids.append(scene.schedules.run("nightly").id)
    assert [one.id for one in scene.jobs()] == ids
    assert len(set(ids)) == 3


def test_two_runs_at_the_same_moment_are_two(scene: Scene) -> None:
    scene.add(expression=HOURLY)
    assert scene.schedules.run("nightly").id != scene.schedules.run("nightly").id
    assert len(scene.jobs()) == 2


def test_a_run_at_the_very_moment_of_a_tick_does_not_take_its_place(scene: Scene) -> None:
    scene.add()
    scene.clock.advance(SECOND)
    by_hand = scene.schedules.run("nightly")
    scene.pass_time(2 * SECOND)
    assert scene.jobs()[0].id == by_hand.id
    assert [job.metadata.get("jobqueue.tick") for job in scene.jobs()] == [None, *(f"2030-01-01T12:00:0{at}Z" for at in (1, 2, 3))]


def test_a_run_beside_a_tick_makes_two_jobs(scene: Scene) -> None:
    scene.add()
    scene.clock.advance(1.5 * SECOND)

    def meanwhile(name: str) -> None:
        if name == "claim_ticks":
            storage.before = lambda _name: None
            scene.turn()

    storage = Wrapped(scene.storage, before=meanwhile)
    JobQueue(scene.broker, storage).schedules.run("nightly")
    assert [job.metadata.get("jobqueue.tick") for job in scene.jobs()] == ["2030-01-01T12:00:01Z", None]


# By hand where jobs may not overlap ----------------------------------------------------------------------------------------------------


def test_a_run_while_the_last_job_has_not_ended_is_refused_when_they_may_not_overlap(scene: Scene) -> None:
    scene.add(overlap="skip", expression=HOURLY)
    first = scene.schedules.run("nightly")
    scene.clock.advance(MINUTE)
    before = stored(scene)
    with pytest.raises(Conflict, match=first.id) as caught:
        scene.schedules.run("nightly")
    assert caught.value.code == "still_running"
    assert (stored(scene), len(scene.jobs())) == (before, 1)
    scene.finish()
    scene.schedules.run("nightly")
    assert len(scene.jobs()) == 2


def test_a_tick_does_not_fire_beside_a_run_when_they_may_not_overlap(scene: Scene) -> None:
    scene.add(overlap="skip")
    scene.clock.advance(SECOND / 2)
    scene.schedules.run("nightly")
    scene.pass_time(3 * SECOND)
    assert len(scene.jobs()) == 1
    scene.finish()
    scene.pass_time(SECOND)
    assert len(scene.jobs()) == 2


def test_of_two_runs_at_once_one_is_refused_when_they_may_not_overlap(scene: Scene) -> None:
    scene.add(overlap="skip")

    def meanwhile(name: str) -> None:
        if name == "claim_ticks":
            storage.before = lambda _name: None
            scene.schedules.run("nightly")
            scene.clock.advance(SECOND / 10)

    storage = Wrapped(scene.storage, before=meanwhile)
    with pytest.raises(Conflict) as caught:
        JobQueue(scene.broker, storage).schedules.run("nightly")
    assert caught.value.code == "still_running"
    assert len(scene.jobs()) == 1


# Faults --------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure", [BrokerUnavailable("away", maybe_accepted=False), BrokerUnavailable("away"), QueueFull("full"), Killed()], ids=repr
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_that_was_asked_for_comes_even_if_the_broker_fails(scene: Scene, when: str, failure: BaseException) -> None:
    scene.add(expression=HOURLY)

    def fails(name: str) -> None:
        if name == "enqueue":
            raise failure

    schedules = JobQueue(Wrapped(scene.broker, **{when: fails}), scene.storage).schedules
    with pytest.raises(Killed if isinstance(failure, Killed) else BrokerUnavailable) as caught:
        schedules.run("nightly")
    if isinstance(caught.value, BrokerUnavailable):
        assert caught.value.maybe_accepted, "who runs it again gets two"
    scene.pass_time(10 * SECOND)
    assert len(scene.jobs()) == 1
    (run,) = scene.schedules.runs("nightly")
    assert (run.job_id, run.sent, run.manual) == (scene.jobs()[0].id, True, True)


def test_a_run_whose_mark_fails_has_run_all_the_same(scene: Scene) -> None:
    scene.add(expression=HOURLY)

    def fails(name: str) -> None:
        if name == "mark_sent":
            raise StorageUnavailable("away")

    job = JobQueue(scene.broker, Wrapped(scene.storage, before=fails)).schedules.run("nightly")
    scene.pass_time(10 * SECOND)
    assert [one.id for one in scene.jobs()] == [job.id]
    assert [one.sent for one in scene.schedules.runs("nightly")] == [True]


def test_a_run_that_could_not_be_claimed_leaves_nothing_behind(scene: Scene) -> None:
    before = scene.add(expression=HOURLY)

    def fails(name: str) -> None:
        if name == "claim_ticks":
            raise StorageUnavailable("away")

    with pytest.raises(StorageUnavailable):
        JobQueue(scene.broker, Wrapped(scene.storage, before=fails)).schedules.run("nightly")
    scene.pass_time(10 * SECOND)
    assert (scene.jobs(), stored(scene)) == ([], before)


def test_a_run_that_froze_and_wakes_late_makes_no_second_job(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "jobqueue.db", result_ttl=MINUTE)
    with scene.queue:
        scene.add(expression=HOURLY)

        def frozen(name: str) -> None:
            if name == "enqueue":
                scene.pass_time(6 * SECOND)
                scene.finish()
                scene.forget(MINUTE)

        with pytest.raises(BrokerUnavailable):
            JobQueue(Wrapped(scene.broker, before=frozen), scene.storage).schedules.run("nightly")
        scene.pass_time(10 * SECOND)
        assert len(scene.jobs()) == 1
