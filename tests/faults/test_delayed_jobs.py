"""Delayed jobs under real workers: never early by the broker's clock, hardly late, and never after a cancel (FAULTS: promise 9)."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from brokers import MOSTLY_REDIS
from redis_scene import pass_time

from jobqueue_core import JobState
from jobqueue_core.errors import Conflict

if TYPE_CHECKING:
    from conftest import BuildRig, Rig

POLL = 0.5
SLACK = 1.5
"""What a busy machine may add, in seconds."""
WORKER = ("worker", "--set", f"worker.poll_interval={POLL * 1000:.0f}ms")


@pytest.fixture
def any_rig(broker_config: str, build_rig: BuildRig) -> Rig:
    """A rig on each broker."""
    return build_rig(broker_config)


def _jobqueue(rig: Rig, *words: str) -> str:
    """What the command prints."""
    environ = {name: value for name, value in os.environ.items() if name not in ("REDIS_URL", "DATABASE_URL", "JOBQUEUE_CONFIG")}
    command = [sys.executable, "-m", "jobqueue_cli", "-c", str(rig.folder / "jobqueue.toml"), *words]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


@MOSTLY_REDIS
def test_delayed_jobs_start_not_before_their_time_and_at_most_a_poll_interval_later(any_rig: Rig) -> None:
    rig = any_rig
    workers = [rig.start(*WORKER) for _ in range(2)]
    rig.wait(lambda: rig.log().count("worker up") == 2, "both are up")
    dice = random.Random(9)
    begun = rig.queue.broker.now()
    ids = [rig.queue.enqueue("rig.quick", delay=timedelta(seconds=dice.uniform(0.2, 3))).id for _ in range(30)]
    ids += [rig.queue.enqueue("rig.quick", scheduled_at=begun + timedelta(seconds=dice.uniform(0.5, 3))).id for _ in range(30)]
    ids.append(_jobqueue(rig, "enqueue", "rig.quick", "--delay", "1500ms"))
    at = begun + timedelta(seconds=4)
    ids.append(_jobqueue(rig, "enqueue", "rig.quick", "--at", at.isoformat()))
    rig.wait(lambda: rig.all_completed(ids), "all complete", within=15)
    rig.stop(*workers)

    assert Counter(job for job, *_ in rig.runs()) == dict.fromkeys(ids, 1)
    late = []
    for job in rig.queue.broker.get(ids):
        assert job is not None
        assert job.scheduled_at is not None
        assert job.started_at is not None
        assert job.started_at >= job.scheduled_at
        late.append((job.started_at - max(job.scheduled_at, job.created_at)).total_seconds())
    assert max(late) <= POLL + SLACK
    last = rig.queue.get(ids[-1])
    assert last is not None
    assert last.scheduled_at == at


@pytest.mark.slow
def test_a_delayed_job_that_was_cancelled_never_runs(any_rig: Rig) -> None:
    rig = any_rig
    worker = rig.start(*WORKER)
    rig.wait(lambda: "worker up" in rig.log(), "it is up")
    by_hand = _jobqueue(rig, "enqueue", "rig.quick", "--delay", "1h")
    _jobqueue(rig, "job", "cancel", by_hand)
    due = rig.queue.broker.now() + timedelta(seconds=3)
    answers = rig.queue.enqueue_many([{"type": "rig.quick", "scheduled_at": due} for _ in range(60)])
    ids = [one.job.id for one in answers if one.job is not None]
    assert {rig.queue.operations.cancel_job(one).status for one in ids[:10]} == {"cancelled"}
    cancelled = {by_hand, *ids[:10]}
    pass_time((due - rig.queue.broker.now()).total_seconds() - 0.02)
    # In the moment in which they come due the worker or the cancel is first, and never both.
    for one in ids[10:40]:
        try:
            answer = rig.queue.operations.cancel_job(one)
        except Conflict:
            continue
        if answer.status == "cancelled":
            cancelled.add(one)
    others = [one for one in ids if one not in cancelled]
    rig.wait(lambda: rig.states(others).keys() <= {JobState.COMPLETED, JobState.CANCELLED}, "the others end")
    rig.wait(lambda: rig.queue.broker.now() > due + timedelta(seconds=POLL + SLACK), "all that is due has had its time")
    rig.stop(worker)

    assert rig.states(list(cancelled)) == {JobState.CANCELLED: len(cancelled)}
    assert cancelled.isdisjoint(job for job, *_ in rig.runs())
    assert rig.states(ids[40:]) == {JobState.COMPLETED: 20}
    assert max(Counter(job for job, *_ in rig.runs()).values()) == 1
