"""Overlap: where a schedule's jobs may not overlap, the ticker lets ticks pass until the last job has ended, wherever that job is."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from schedule_scene import MINUTE, NOON, SECOND, Killed, Scene, Wrapped, seconds, tick_of
from schedule_trials import HOUR, killed_at, open_scene

from jobqueue_core.scheduling.jobs import send_ticks
from jobqueue_core.testing.factories import died, failed

scene = pytest.fixture(open_scene)


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
