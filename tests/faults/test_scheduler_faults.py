"""Schedulers that are killed, stopped and frozen: one job for each tick, whatever becomes of who claims it (FAULTS: C1, C2, C3, C8).

Clocks that are wrong are in test_scheduler_clocks.py, servers that are away and changes while it fires in test_scheduler_outages.py and
test_scheduler_changes.py. At which of all moments a scheduler may die has a test without processes too.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from brokers import slowly
from redis_scene import pass_time
from scheduler_rig import SECOND, Scheduling, missing, seconds_between, till_next_second

if TYPE_CHECKING:
    from conftest import BuildScheduling, Rig

GRACE = 5 * SECOND
"""How late a tick may be and still be on time."""

UP = 2.0
"""Seconds after which a scheduler that was started, or whose process was killed, fires ticks, also on a busy machine and after some crashes."""

EMBEDDED, SERVERS = "embedded", "servers"


def on_backends(names: str, cases: list[object]) -> pytest.MarkDecorator:
    """Cases that begin with the backend each."""
    return pytest.mark.parametrize(("backend_config", *names.split()), cases, indirect=["backend_config"])


# Killed --------------------------------------------------------------------------------------------------------------------------------


@on_backends("ticks", [(EMBEDDED, 8), slowly(EMBEDDED, 60), slowly(SERVERS, 60)])
def test_five_schedulers_killed_and_restarted_at_random_make_one_job_for_each_tick(scheduling: Scheduling, ticks: int) -> None:
    rig = scheduling.rig
    dice = random.Random(ticks)
    living = scheduling.start(5)
    scheduling.wait_started(*living)
    scheduling.add()
    scheduling.wait_ticks(1)
    begun = scheduling.due()[0]
    since = dict.fromkeys(living, time.monotonic())
    kills = 0
    while len(scheduling.due()) < ticks:
        # Every other time in the instant in which a tick is claimed and sent, else at any.
        pass_time(till_next_second(plus=dice.uniform(0, 0.015)) if dice.random() < 0.5 else dice.uniform(0.1, 0.6))
        # One that has had the time to come up lives on, for there is another test of what nobody was there for.
        up = [one for one in living if time.monotonic() - since[one] > UP]
        if not up:
            continue
        spared = dice.choice(up)
        for victim in dice.sample([one for one in living if one is not spared], dice.randint(1, 3)):
            _kill(scheduling, victim, whole=dice.random() < 0.5)
            since[victim] = time.monotonic()
            kills += 1
        living = [one if one.poll() is None else rig.start("scheduler") for one in living]
        since = {one: since.get(one, time.monotonic()) for one in living}
    scheduling.settle()
    scheduling.wait_started(*living)
    rig.stop(*living)

    due = scheduling.check()
    assert due[0] == begun
    assert len(due) >= ticks
    assert missing(due) == []
    assert kills >= ticks / 2


def _kill(scheduling: Scheduling, scheduler: subprocess.Popen[bytes], *, whole: bool) -> None:
    """SIGKILL a scheduler's whole tree, or only the process that fires ticks."""
    child = scheduling.child(scheduler)
    if whole or child is None:
        os.killpg(scheduler.pid, signal.SIGKILL)
        scheduler.wait(10)
    else:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


@pytest.mark.slow
def test_all_schedulers_killed_at_once_again_and_again_lose_no_tick(rig: Rig) -> None:
    scheduling = Scheduling(rig)
    # Nobody might be back within the grace, on a busy machine.
    scheduling.add(misfire="all")
    dice = random.Random(20)
    while len(scheduling.due()) < 20:
        living = scheduling.start(2)
        scheduling.wait_ticks(1)
        pass_time(till_next_second(plus=dice.uniform(-0.005, 0.02)))
        for one in living:
            _kill(scheduling, one, whole=True)
    last = rig.start("scheduler")
    scheduling.wait_ticks(1)
    scheduling.settle()
    rig.stop(last)
    assert missing(scheduling.check()) == []


# Frozen at the worst moment ------------------------------------------------------------------------------------------------------------


MOMENTS = ["claim_ticks", "enqueue", "mark_sent"]


@on_backends(
    "moment",
    [(EMBEDDED, "claim_ticks"), (SERVERS, "enqueue"), slowly(EMBEDDED, "mark_sent"), *(slowly(SERVERS, one) for one in ("claim_ticks", "mark_sent"))],
)
def test_a_scheduler_that_freezes_in_the_middle_of_a_tick_and_wakes_later_repeats_and_undoes_nothing(scheduling: Scheduling, moment: str) -> None:
    rig = scheduling.rig
    worker = rig.start("worker")
    scheduling.add(job_type="rig.quick", payload=1, misfire="all")
    frozen = scheduling.freezing(moment, window=1)
    begun = scheduling.now()
    other = rig.start("scheduler")
    rig.wait(lambda: scheduling.ticks() and scheduling.ticks()[0].sent, "another sends the tick", within=15)
    rig.queue.schedules.edit("each", {"payload": 2, "max_retries": 1})
    scheduling.wait_until(begun + 1.5 * SECOND)
    woken = scheduling.now()
    scheduling.wake(frozen)
    rig.wait(lambda: any(line.startswith(moment) for line in rig.log().splitlines()), "it goes on where it was")
    scheduling.wait_ticks(2)
    scheduling.settle()
    rig.wait(lambda: len(rig.runs()) == len(scheduling.ticks()), "all jobs run")
    assert frozen.poll() is None
    rig.stop(worker, other)

    assert missing(scheduling.check()) == []
    assert Counter(job for job, *_ in rig.runs()) == dict.fromkeys([one.job.id for one in scheduling.ticks()], 1)
    # What it went on with: each answer is the first of its kind after it woke.
    said = next(line for line in rig.log().splitlines() if line.startswith(moment))
    assert said in {"claim_ticks [False]", "enqueue late", "enqueue existing", "mark_sent None"}
    stored = scheduling.get()
    assert (stored.payload_json, stored.max_retries) == (b"2", 1)
    assert {one.job.payload_json for one in scheduling.ticks() if one.claimed_at > woken} == {b"2"}


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("moment", MOMENTS)
def test_who_wakes_when_the_broker_has_forgotten_the_job_repeats_nothing(build_scheduling: BuildScheduling, moment: str) -> None:
    scheduling = build_scheduling('[job]\nresult_ttl = "1m"\n')
    rig = scheduling.rig
    worker = rig.start("worker")
    scheduling.add("served", job_type="rig.quick", misfire="all")
    scheduling.add("waiting", job_type="rig.quick", queue="nobodys", misfire="all")
    frozen = scheduling.freezing(moment)
    begun = scheduling.now()
    other = rig.start("scheduler")
    rig.wait(lambda: scheduling.ticks("served") and scheduling.ticks("served")[0].sent, "another sends the tick", within=15)
    first = scheduling.ticks("served")[0].job.id
    rig.wait(lambda: rig.queue.broker.get([first]) == [None], "its job has run and is forgotten", within=90)
    assert scheduling.now() - begun > 60 * SECOND
    scheduling.wake(frozen)
    scheduling.wait_ticks(3, "waiting")
    scheduling.settle("served", "waiting")
    rig.wait(lambda: len(rig.runs()) >= len(scheduling.ticks("served")), "all jobs run")
    assert frozen.poll() is None
    rig.stop(worker, other)

    assert missing(scheduling.check("waiting")) == []
    assert missing(scheduling.due("served")) == []
    assert Counter(job for job, *_ in rig.runs()) == dict.fromkeys([one.job.id for one in scheduling.ticks("served")], 1)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_tick_that_was_sent_and_not_marked_is_not_sent_again_when_its_job_has_long_been_forgotten(build_scheduling: BuildScheduling) -> None:
    scheduling = build_scheduling('[job]\nresult_ttl = "1m"\n')
    rig = scheduling.rig
    rig.start("worker")
    scheduling.add(job_type="rig.quick")
    frozen = scheduling.freezing("mark_sent")
    rig.wait(rig.runs, "its job runs")
    # The only scheduler dies here, and none comes for longer than the broker remembers the job.
    os.killpg(frozen.pid, signal.SIGKILL)
    frozen.wait(10)
    rig.queue.schedules.pause("each")
    (tick,) = scheduling.ticks()
    rig.wait(lambda: rig.queue.broker.get([tick.job.id]) == [None], "its job is forgotten", within=90)
    rig.start("scheduler")
    rig.wait(scheduling.all_sent, "the tick is settled", within=20)
    # Whoever was to run a repeated job would take it before this one.
    later = rig.queue.enqueue("rig.quick")
    rig.wait(lambda: rig.starts(later.id), "a later job runs")
    assert rig.starts(tick.job.id) == 1


# Nobody there --------------------------------------------------------------------------------------------------------------------------


@on_backends(
    "way length",
    [
        (EMBEDDED, "stopped", 6),
        slowly(SERVERS, "frozen", 12),
        slowly(EMBEDDED, "frozen", 12),
        slowly(SERVERS, "stopped", 12),
        slowly(EMBEDDED, "killed", 12),
        slowly(EMBEDDED, "frozen", 60),
    ],
)
def test_what_no_scheduler_was_there_for_fires_as_the_misfire_policy_says(scheduling: Scheduling, way: str, length: int) -> None:
    rig = scheduling.rig
    policies = {"once": {"misfire": "once"}, "skip": {"misfire": "skip"}, "all": {"misfire": "all"}, "three": {"misfire": "all", "misfire_limit": 3}}
    scheduler = rig.start("scheduler")
    for name, policy in policies.items():
        scheduling.add(name, **policy)
    scheduling.wait_quiet(*policies)
    _away(rig, scheduler, way)
    before = {name: scheduling.ticks(name) for name in policies}
    first = {name: scheduling.get(name).next_run for name in policies}
    scheduling.wait_until(scheduling.now() + length * SECOND)
    assert {name: scheduling.ticks(name) for name in policies} == before, "nobody fires"
    scheduler = _back(rig, scheduler, way)
    rig.wait(lambda: all(len(scheduling.ticks(name)) > len(before[name]) + 1 for name in policies), "all go on")
    scheduling.settle(*policies)
    rig.stop(scheduler)

    after = {name: scheduling.ticks(name)[len(before[name]) :] for name in policies}
    decided = min(ticks[0].claimed_at for ticks in after.values())
    for name, count in {"once": 1, "skip": 0, "all": 1000, "three": 3}.items():
        began = first[name]
        assert began is not None
        missed = seconds_between(began, decided)
        assert len(missed) >= length
        due = scheduling.check(name)
        assert [one for one in due if began <= one <= decided] == missed[max(0, len(missed) - count) :], name
        assert missing([one for one in due if one > decided]) == [], name
        assert missing([one for one in due if one < began]) == [], name
        assert after[name][-1].claimed_at - after[name][-1].due < GRACE


def _away(rig: Rig, scheduler: subprocess.Popen[bytes], way: str) -> None:
    match way:
        case "stopped":
            rig.stop(scheduler)
        case "killed":
            os.killpg(scheduler.pid, signal.SIGKILL)
            scheduler.wait(10)
        case _:
            rig.freeze(scheduler)


def _back(rig: Rig, scheduler: subprocess.Popen[bytes], way: str) -> subprocess.Popen[bytes]:
    if way != "frozen":
        return rig.start("scheduler")
    os.killpg(scheduler.pid, signal.SIGCONT)
    return scheduler


# Told to stop --------------------------------------------------------------------------------------------------------------------------


@on_backends("rounds", [(EMBEDDED, 3), slowly(EMBEDDED, 12), slowly(SERVERS, 12)])
def test_a_scheduler_that_is_told_to_stop_while_it_fires_leaves_nothing_unsent(scheduling: Scheduling, rounds: int) -> None:
    rig = scheduling.rig
    names = [f"s{number}" for number in range(40)]
    for name in names:
        scheduling.add(name, misfire="all")
    dice = random.Random(rounds)
    for _ in range(rounds):
        scheduler = rig.start("scheduler")
        scheduling.wait_ticks(1, names[-1])
        pass_time(till_next_second(plus=dice.uniform(-0.01, 0.08)))
        rig.stop(scheduler)
        assert scheduling.all_sent()
    jobs = scheduling.jobs()
    for name in names:
        due = [one.due for one in scheduling.ticks(name)]
        assert [job.scheduled_at for job in jobs[name]] == due
        assert missing(due) == []
