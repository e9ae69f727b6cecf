"""Workers that are killed, stopped and doubled (FAULTS: F1, F3, W1, W4, W6, W15).

Journeys run on each broker; what kills at random is here for the embedded one, and others have tests of their own. The rows in full: W1 to W3, W13
(suspended hosts) and W14 in test_worker_zombies.py, W4, W5, W11 and rolling restarts in test_worker_restarts.py, W7 and W8 in
test_worker_endless_handlers.py, W9, W10 and W12 in test_worker_hostile_handlers.py, W13's clocks in test_worker_clocks.py, and what concerns handlers
in processes of their own in test_handler_process_faults.py.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest
from brokers import MOSTLY_REDIS, MOSTLY_SQLITE, slowly

from jobqueue_core import JobState
from jobqueue_core.attempt import ExecutionState

if TYPE_CHECKING:
    from conftest import BuildRig, Rig

CONCURRENCY = 10
LEASE = 2.0


@pytest.fixture
def any_rig(broker_config: str, build_rig: BuildRig) -> Rig:
    """A rig on each broker."""
    return build_rig(broker_config)


@pytest.mark.parametrize("job_type", ["rig.thread", slowly("rig.async")])
def test_no_job_is_lost_when_the_whole_process_group_is_killed_five_times(rig: Rig, job_type: str) -> None:
    ids = rig.enqueue(1_500, job_type)
    dice = random.Random(7)
    for _ in range(5):
        target = len(rig.runs()) + dice.randint(40, 200)
        process = rig.start("worker")
        rig.wait(lambda target=target: len(rig.runs()) >= target, "some jobs run")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    process = rig.start("worker")
    # No new traffic: what the dead workers held comes back by itself.
    rig.wait(lambda: rig.all_completed(ids), "all jobs complete")
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 0

    runs = rig.runs()
    assert len(runs) - len(ids) <= 5 * 2 * CONCURRENCY
    assert max(Counter((job, run) for job, run, _, _ in runs).values()) == 1
    queue = rig.queue.operations.queue("default")
    assert (queue.completed, queue.dead, queue.processing, queue.waiting) == (1_500, 0, 0, 0)


def test_history_has_each_run_once_after_kills(rig: Rig) -> None:
    ids = rig.enqueue(300)
    for _ in range(2):
        target = len(rig.runs()) + 60
        process = rig.start("worker")
        rig.wait(lambda target=target: len(rig.runs()) >= target, "some jobs run")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    process = rig.start("worker")
    rig.wait(lambda: rig.all_completed(ids), "all jobs complete")
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 0

    for job_id in ids:
        executions = rig.queue.operations.job_executions(job_id)
        assert [one.run for one in executions] == sorted({one.run for one in executions})
        assert [one.state for one in executions] == [ExecutionState.LOST] * (len(executions) - 1) + [ExecutionState.COMPLETED]


@MOSTLY_REDIS
def test_two_workers_run_nothing_twice(any_rig: Rig) -> None:
    processes = [any_rig.start("worker"), any_rig.start("worker")]
    any_rig.wait(lambda: any_rig.log().count("worker up") == 2, "both are up")
    ids = any_rig.enqueue(1_000)
    any_rig.wait(lambda: any_rig.all_completed(ids), "all jobs complete")
    for process in processes:
        process.send_signal(signal.SIGTERM)
    assert [process.wait(15) for process in processes] == [0, 0]

    runs = any_rig.runs()
    assert Counter(job for job, _, _, _ in runs) == dict.fromkeys(ids, 1)
    assert len({pid for _, _, _, pid in runs}) == 2


@MOSTLY_SQLITE
def test_a_graceful_stop_loses_nothing_and_repeats_nothing(any_rig: Rig) -> None:
    ids = any_rig.enqueue(300, seconds=0.1)
    process = any_rig.start("worker")
    any_rig.wait(lambda: len(any_rig.runs()) >= 30, "some jobs run")
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0

    states = any_rig.states(ids)
    assert set(states) == {JobState.COMPLETED, JobState.QUEUED}
    assert states[JobState.COMPLETED] == len(any_rig.runs())
    second = any_rig.start("worker")
    any_rig.wait(lambda: any_rig.all_completed(ids), "the rest completes")
    second.send_signal(signal.SIGTERM)
    assert second.wait(10) == 0
    assert Counter(job for job, _, _, _ in any_rig.runs()) == dict.fromkeys(ids, 1)


@MOSTLY_SQLITE
def test_a_second_signal_gives_everything_back_at_once_and_exits_4(any_rig: Rig) -> None:
    ids = any_rig.enqueue(5, "rig.async", seconds=60)
    process = any_rig.start("worker")
    any_rig.wait(lambda: len(any_rig.runs()) == 5, "all jobs run")
    process.send_signal(signal.SIGTERM)
    any_rig.wait(lambda: "stopping" in any_rig.log(), "it has heard the first signal")
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 4
    # The two seconds that are promised, and one for a busy machine.
    assert time.monotonic() - began < 3
    assert any_rig.states(ids) == {JobState.QUEUED: 5}


@MOSTLY_SQLITE
def test_handlers_that_do_not_end_are_abandoned_with_exit_3_and_their_jobs_given_back(any_rig: Rig) -> None:
    ids = any_rig.enqueue(3, "rig.thread", seconds=60)
    process = any_rig.start("worker", "--set", "worker.shutdown_timeout=1s")
    any_rig.wait(lambda: len(any_rig.runs()) == 3, "all jobs run")
    process.send_signal(signal.SIGTERM)
    assert process.wait(8) == 3
    assert any_rig.states(ids) == {JobState.QUEUED: 3}


@MOSTLY_REDIS
def test_children_stop_by_themselves_when_only_the_supervisor_is_killed(any_rig: Rig) -> None:
    ids = any_rig.enqueue(300, seconds=0.05)
    process = any_rig.start("worker")
    any_rig.wait(lambda: len(any_rig.runs()) >= 30, "some jobs run")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    any_rig.wait(lambda: not _group_lives(process.pid), "the children end", within=10)

    states = any_rig.states(ids)
    assert set(states) == {JobState.COMPLETED, JobState.QUEUED}
    assert states[JobState.COMPLETED] == len(any_rig.runs())


@pytest.mark.parametrize("content", [b"no database at all, but longer than a header of one would be" * 100, b""], ids=["garbage", "other"])
def test_a_file_that_is_not_ours_is_refused_with_a_text_and_exit_2_and_left_as_it_is(rig: Rig, content: bytes) -> None:
    path = rig.folder / "foreign.db"
    if content:
        path.write_bytes(content)
    else:
        with contextlib.closing(sqlite3.connect(path)) as other:
            other.execute("CREATE TABLE theirs (a)")
    before = path.read_bytes()

    process = rig.start("worker", "--set", f"broker.url=sqlite:///{path}")
    assert process.wait(20) == 2
    assert "foreign.db" in rig.log()
    assert "Traceback" not in rig.log()
    assert path.read_bytes() == before


def test_check_refuses_what_no_worker_can_run(rig: Rig) -> None:
    handlers = rig.folder / "site" / "rig_handlers.py"
    handlers.write_text(handlers.read_text() + '\n@handler("rig.apart", isolation="async")\ndef apart(payload): ...\n')
    assert rig.start("--check").wait(20) == 2
    assert "isolation 'async' needs an 'async def'" in rig.log()


def test_check_refuses_a_handler_that_another_process_could_not_find(rig: Rig) -> None:
    handlers = rig.folder / "site" / "rig_handlers.py"
    nested = """
    def make():
        @handler("rig.nested", isolation="process")
        def nested(payload): ...
        return nested
    nested = make()
    """
    handlers.write_text(handlers.read_text() + dedent(nested))
    assert rig.start("--check").wait(20) == 2
    assert "rig.nested" in rig.log()
    assert "Traceback" not in rig.log()


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
