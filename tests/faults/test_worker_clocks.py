"""Hosts whose clocks are wrong or jump under a worker's feet (FAULTS: W13).

The clock is shifted below Python: a library in front of the C one answers for it, with an offset that the test may change at any time. Where there
is no C compiler this is left out; what a broker does with a shifted clock has tests without processes too.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from redis_scene import Scene

if TYPE_CHECKING:
    from conftest import Rig
    from shifted_clock import ShiftedClock

LEASE = 1.0
HOUR = 3600
WORKER = ("worker", "--set", f"worker.lease={LEASE:.0f}s")


@pytest.mark.parametrize("jump", [HOUR, pytest.param(-HOUR, marks=pytest.mark.slow)])
def test_a_clock_that_jumps_takes_no_lease_from_a_worker_that_keeps_it_and_lets_no_dead_one_keep_his(
    rig: Rig, clocks: list[ShiftedClock], jump: int
) -> None:
    # On SQLite, where the host's clock is the broker's.
    clock = clocks[0]
    rig.add_handlers("hostile_handlers")
    rig.environ |= clock.environ
    workers = [rig.start(*WORKER, "--set", "scheduler.poll_interval=200ms") for _ in range(2)]
    rig.wait(lambda: rig.log().count("worker up") == 2, "both are up")
    ids = [rig.queue.enqueue("hostile.gate").id for _ in range(12)]
    rig.wait(lambda: len(rig.runs()) == 12, "all run")
    # Several times, so that upkeep has its turn before the leases have been renewed by the new clock.
    for turn in range(1, 8):
        clock.set(jump * turn)
        more = rig.enqueue(8, seconds=LEASE / 4)
        rig.wait(lambda more=more: rig.all_completed(more), f"others run ({turn})")
        ids += more
    (rig.folder / "open").touch()
    rig.wait(lambda: rig.all_completed(ids), "all complete")
    assert Counter(job for job, *_ in rig.runs()) == dict.fromkeys(ids, 1)

    # More than one can run at once: both have some. Those of the one that has more are lost.
    hanging = [rig.queue.enqueue("hostile.hang").id for _ in range(12)]
    rig.wait(lambda: all(rig.starts(one) for one in hanging), "more jobs run")
    clock.set(0)
    held = {worker: [one for one, *_, pid in rig.runs() if one in hanging and os.getpgid(pid) == worker.pid] for worker in workers}
    dying, living = sorted(workers, key=lambda worker: len(held[worker]), reverse=True)
    os.killpg(dying.pid, signal.SIGKILL)
    rig.wait(lambda: rig.all_completed(held[dying]), "what the dead one held runs again", within=2 * LEASE + 5)
    assert {job.crashes for job in rig.queue.broker.get(held[dying]) if job} == {1}
    assert [rig.starts(one) for one in held[living]] == [1] * len(held[living]), "the living one lost a lease"


def test_workers_whose_clocks_are_an_hour_apart_take_nothing_from_each_other(scene: Scene, clocks: list[ShiftedClock]) -> None:
    rig = scene.rig
    rig.add_handlers("hostile_handlers")
    for clock, shift in zip(clocks, (HOUR, -HOUR), strict=True):
        clock.set(shift)
        rig.environ |= clock.environ
        rig.start(*WORKER)
    rig.wait(lambda: rig.log().count("worker up") == 2, "both are up")
    ids = [*rig.enqueue(14, "rig.async", seconds=2.5 * LEASE), *rig.enqueue(40, seconds=0.1)]
    delayed = rig.queue.enqueue("rig.quick", delay="2s").id
    early = not rig.starts(delayed)
    scene.wait_completed([*ids, delayed], within=20)
    scene.stop(*rig.processes)

    assert early
    assert len({pid for *_, pid in rig.runs()}) == 2
    assert Counter(job for job, *_ in rig.runs()) == dict.fromkeys([*ids, delayed], 1)
    scene.check()
