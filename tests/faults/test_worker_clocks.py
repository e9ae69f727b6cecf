"""Hosts whose clocks are wrong or jump under a worker's feet (FAULTS: W13).

The clock is shifted below Python: a library in front of the C one answers for it, with an offset that the test may change at any time. Where there
is no C compiler this is left out; what a broker does with a shifted clock has tests without processes too.
"""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest
from redis_scene import Scene

if TYPE_CHECKING:
    from conftest import Rig

LEASE = 1.0
HOUR = 3600
WORKER = ("worker", "--set", f"worker.lease={LEASE:.0f}s")

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static volatile const long long *shift;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CLOCK_SHIFT");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *page = file < 0 ? MAP_FAILED : mmap(0, sizeof *shift, PROT_READ, MAP_SHARED, file, 0);
    if (page == MAP_FAILED) abort();
    shift = page;
}

int clock_gettime(clockid_t which, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int answer = real(which, at);
    if (!answer && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE) && shift) at->tv_sec += *shift;
    return answer;
}

int gettimeofday(struct timeval *at, void *zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""


@attrs.frozen
class ClockShift:
    """A host's clock that can be set."""

    path: Path
    library: Path

    @property
    def environ(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.library), "CLOCK_SHIFT": str(self.path)}

    def set(self, seconds: int) -> None:
        with self.path.open("r+b") as file:
            file.write(struct.pack("q", seconds))


@pytest.fixture(scope="session")
def shift_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to shift a clock with")
    folder = tmp_path_factory.mktemp("clock")
    (folder / "clock.c").write_text(_SOURCE)
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", "clock.so", "clock.c", "-ldl"], cwd=folder, check=True, timeout=60)
    return folder / "clock.so"


@pytest.fixture
def clocks(tmp_path: Path, shift_library: Path) -> list[ClockShift]:
    """The clocks of two hosts."""
    made = [ClockShift(tmp_path / f"clock.{number}", shift_library) for number in range(2)]
    for one in made:
        one.path.write_bytes(struct.pack("q", 0))
    return made


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_a_clock_that_jumps_takes_no_lease_from_a_worker_that_keeps_it_and_lets_no_dead_one_keep_his(
    rig: Rig, clocks: list[ClockShift], jump: int
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


def test_workers_whose_clocks_are_an_hour_apart_take_nothing_from_each_other(scene: Scene, clocks: list[ClockShift]) -> None:
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
