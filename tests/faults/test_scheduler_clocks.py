"""Schedulers whose hosts' clocks are wrong or jump (FAULTS: C4, C5), and what a long time does, without waiting for it (C2, C8).

On Redis its clock decides, and that of no host. On SQLite the host's clock is the broker's: so there a test lets hours pass.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from brokers import slowly
from redis_scene import pass_time
from scheduler_rig import SECOND, Scheduling, missing

if TYPE_CHECKING:
    from conftest import Rig
    from shifted_clock import ShiftedClock

HOUR = 3600


ON_SERVERS = pytest.mark.parametrize("backend_config", ["servers"], indirect=True)


@pytest.fixture
def embedded(rig: Rig) -> Scheduling:
    """Schedules on the embedded default."""
    return Scheduling(rig)


def _lateness(scheduling: Scheduling) -> float:
    """How late the latest job came, in seconds of the broker's clock."""
    return max((job.created_at - job.scheduled_at).total_seconds() for job in scheduling.jobs()["each"] if job.scheduled_at)


# The broker's clock is another one -----------------------------------------------------------------------------------------------------


@ON_SERVERS
def test_schedulers_whose_clocks_are_an_hour_wrong_fire_by_the_brokers_and_say_once_that_theirs_are(
    scheduling: Scheduling, clocks: list[ShiftedClock]
) -> None:
    rig = scheduling.rig
    for clock, shift in zip(clocks, (HOUR, -HOUR), strict=True):
        clock.set(shift)
        rig.environ |= clock.environ
        rig.start("scheduler")
    scheduling.wait_started(*rig.processes)
    scheduling.add()
    scheduling.wait_ticks(5)
    scheduling.settle()
    rig.stop(*rig.processes)
    due = scheduling.check()
    assert missing(due) == []
    assert abs(due[-1] - datetime.now(UTC)) < 30 * SECOND
    assert _lateness(scheduling) < 30
    warnings = [line for line in rig.log().splitlines() if "clock is wrong" in line]
    assert sorted("ahead" if "ahead" in line else "behind" for line in warnings) == ["ahead", "behind"]


@pytest.mark.slow
@ON_SERVERS
def test_a_hosts_clock_that_jumps_under_a_scheduler_holds_up_no_tick_and_repeats_none(scheduling: Scheduling, clocks: list[ShiftedClock]) -> None:
    rig = scheduling.rig
    rig.environ |= clocks[0].environ
    scheduler = rig.start("scheduler")
    scheduling.add()
    scheduling.wait_ticks(1)
    for shift in (-120, HOUR, 0):
        clocks[0].set(shift)
        scheduling.wait_ticks(2, within=10)
    scheduling.settle()
    rig.stop(scheduler)
    assert missing(scheduling.check()) == []
    assert _lateness(scheduling) < 30


# The broker's clock itself -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_brokers_clock_set_back_two_minutes_and_right_again_repeats_no_tick(embedded: Scheduling, clocks: list[ShiftedClock]) -> None:
    rig = embedded.rig
    rig.environ |= clocks[0].environ
    schedulers = embedded.start(2)
    embedded.add(misfire="all")
    embedded.wait_quiet()
    clocks[0].set(-120)
    # Another one that has seen nothing of what was before.
    schedulers += embedded.start(1)
    embedded.wait_started(*schedulers)
    fired = len(embedded.ticks())
    pass_time(1.5)
    assert len(embedded.ticks()) <= fired + 1, "it fires what has been"
    clocks[0].set(0)
    embedded.wait_ticks(3, within=15)
    embedded.settle()
    rig.stop(*schedulers)
    assert missing(embedded.check()) == []


@pytest.mark.parametrize("way", ["frozen", slowly("stopped"), slowly("jump")])
def test_an_hour_without_a_scheduler_fires_as_the_misfire_policy_says(embedded: Scheduling, clocks: list[ShiftedClock], way: str) -> None:
    rig = embedded.rig
    rig.environ |= clocks[0].environ
    policies = {"once": {"misfire": "once"}, "skip": {"misfire": "skip"}, "all": {"misfire": "all"}, "ten": {"misfire": "all", "misfire_limit": 10}}
    for name, policy in policies.items():
        embedded.add(name, "0 * * * * *", **policy)
    embedded.add("witness", misfire="skip")
    scheduler = rig.start("scheduler")
    embedded.wait_quiet("witness")
    if way == "stopped":
        rig.stop(scheduler)
    elif way == "frozen":
        rig.freeze(scheduler)
    before = {name: len(embedded.ticks(name)) for name in policies}
    witnessed = len(embedded.ticks("witness"))
    clocks[0].set(HOUR)
    if way == "stopped":
        scheduler = rig.start("scheduler")
    elif way == "frozen":
        embedded.wake(scheduler)
    rig.wait(lambda: len(embedded.ticks("witness")) > witnessed, "it goes on")
    rig.wait(lambda: len(embedded.ticks("all")) >= before["all"] + 60, "all has fired what it missed")
    embedded.settle(*policies, "witness")
    rig.stop(scheduler)

    minute = 60 * SECOND
    everything = embedded.check("all")
    assert everything == [everything[0] + at * minute for at in range(len(everything))]
    late = [tick.due for tick in embedded.ticks("all") if tick.claimed_at - tick.due > minute / 2]
    assert len(late) in {59, 60}
    missed = everything[before["all"] :]
    if missed[-1] not in late:
        # The first of those that came on time again, if there is one: a minute has begun meanwhile.
        missed = missed[:-1] if missed[-1] - missed[-2] == minute and embedded.ticks("all")[-1].claimed_at - missed[-1] < SECOND else missed
    assert embedded.check("once")[before["once"] :][:1] == missed[-1:]
    assert embedded.check("ten")[before["ten"] :][:10] == missed[-10:]
    assert not [due for due in embedded.check("skip")[before["skip"] :] if due <= missed[-1]]


# Frozen for so long that the job is forgotten ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["enqueue", slowly("mark_sent")])
def test_a_scheduler_that_wakes_when_its_job_has_run_and_is_forgotten_repeats_nothing(
    embedded: Scheduling, clocks: list[ShiftedClock], moment: str
) -> None:
    rig = embedded.rig
    path = rig.folder / "jobqueue.toml"
    path.write_text(path.read_text() + '[job]\nresult_ttl = "1m"\n')
    rig.environ |= clocks[0].environ
    embedded.add(job_type="rig.quick", misfire="all", misfire_limit=1000)
    frozen = embedded.freezing(moment)
    first = embedded.ticks()[0].job.id
    worker = rig.start("worker")
    clocks[0].set(10)
    scheduler = rig.start("scheduler")
    rig.wait(lambda: embedded.ticks()[0].sent and rig.starts(first), "another sends the tick, and its job runs")
    rig.wait(lambda: rig.all_completed([first]), "it completes")
    rig.stop(worker)
    clocks[0].set(130)
    # A worker that starts forgets what is to be forgotten, at once.
    worker = rig.start("worker")
    rig.wait(lambda: rig.queue.broker.get([first]) == [None], "its job is forgotten", within=20)
    embedded.wake(frozen)
    embedded.wait_ticks(3)
    embedded.settle()
    rig.wait(lambda: len(rig.runs()) >= len(embedded.ticks()), "all jobs run")
    assert frozen.poll() is None
    rig.stop(scheduler, worker)
    assert missing(embedded.due()) == []
    assert Counter(job for job, *_ in rig.runs()) == dict.fromkeys([one.job.id for one in embedded.ticks()], 1)
