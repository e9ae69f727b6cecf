"""Schedules that change while they fire, by a client or by the config file of schedulers that start (FAULTS: C9)."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

import attrs
import pytest
from brokers import slowly
from redis_scene import pass_time
from scheduler_rig import SECOND, Scheduling, cron_table, missing, till_next_second

from jobqueue_core import Job
from jobqueue_core.scheduling.jobs import TICK

if TYPE_CHECKING:
    from conftest import Rig


@pytest.fixture
def embedded(rig: Rig) -> Scheduling:
    """Schedules on the embedded default."""
    return Scheduling(rig)


HESITATION = 0.1
"""How long schedulers may pause in the middle of a tick, in seconds."""

# By a client ---------------------------------------------------------------------------------------------------------------------------


@attrs.frozen
class Change:
    """One change of a schedule: it begins and ends, by the broker's clock, and from then on payloads are *number*."""

    number: int
    begun: datetime
    ended: datetime
    anew: bool
    """Whether it was removed and added again."""


@pytest.mark.parametrize(
    ("backend_config", "rounds"), [("embedded", 6), slowly("servers", 6), slowly("embedded", 50), slowly("servers", 50)], indirect=["backend_config"]
)
def test_a_change_while_a_schedule_fires_lets_pass_at_most_the_tick_that_was_begun(scheduling: Scheduling, rounds: int) -> None:
    rig = scheduling.rig
    dice = random.Random(rounds)
    names = [f"s{number}" for number in range(20)]
    changes: dict[str, list[Change]] = {name: [] for name in names}
    for name in names:
        scheduling.add(name, payload=0, misfire="all", misfire_limit=1000)
    schedulers = [scheduling.hesitating(HESITATION) for _ in range(2)]
    scheduling.wait_quiet(*names)
    for number in range(1, rounds + 1):
        dice.shuffle(names)
        # So that some come before the tick is claimed, some in the middle of it, and some after it.
        pass_time(till_next_second(plus=dice.uniform(-0.03, HESITATION)))
        for at, name in enumerate(names):
            changes[name].append(_change(scheduling, name, number, anew=at % 3 == 0 and int(name[1:]) % 2 == 1))
    scheduling.wait_ticks(1, names[0])
    scheduling.settle(*names)
    assert [one.poll() for one in schedulers] == [None, None]

    jobs = scheduling.jobs()
    for name in names:
        assert len({job.metadata[TICK] for job in jobs[name]}) == len(jobs[name]), "two jobs for one tick"
        _check_changes(jobs[name], changes[name])
        _check_gaps([job.scheduled_at for job in jobs[name] if job.scheduled_at], changes[name])
    assert "Traceback" not in rig.log()


def _change(scheduling: Scheduling, name: str, number: int, *, anew: bool) -> Change:
    schedules = scheduling.rig.queue.schedules
    begun = scheduling.now()
    if anew:
        schedules.remove(name)
        scheduling.add(name, payload=number, misfire="all", misfire_limit=1000)
    else:
        schedules.edit(name, {"payload": number})
    return Change(number=number, begun=begun, ended=scheduling.now(), anew=anew)


def _check_changes(jobs: list[Job], changes: list[Change]) -> None:
    """What comes of a definition after it was replaced had come due before, and is one job at most."""
    for change in changes:
        old = [job for job in jobs if _payload(job) < change.number]
        assert all(job.scheduled_at <= change.ended for job in old if job.scheduled_at)
        assert len([job for job in old if job.created_at > change.ended]) <= 1
        assert all(job.created_at >= change.begun for job in jobs if _payload(job) >= change.number)


def _payload(job: Job) -> int:
    value = json.loads(job.payload_json)
    assert isinstance(value, int)
    return value


def _check_gaps(due: list[datetime], changes: list[Change]) -> None:
    """No tick is lost but those that were due just when the schedule was not there."""
    for gap in missing(due):
        assert any(change.begun - 5 * SECOND < gap <= change.ended for change in changes if change.anew), gap


@pytest.mark.slow
def test_pausing_and_resuming_while_a_schedule_fires_repeats_nothing_and_fires_nothing_meanwhile(embedded: Scheduling) -> None:
    rig = embedded.rig
    schedulers = embedded.start(2)
    embedded.add(misfire="all")
    embedded.wait_quiet()
    pauses = []
    for plus in (-0.003, 0.001, 0.002, 0.004, 0.01):
        pass_time(till_next_second(plus=plus))
        rig.queue.schedules.pause("each")
        begun = embedded.now()
        pass_time(1.3)
        rig.queue.schedules.resume("each")
        pauses.append((begun, embedded.now()))
        embedded.wait_ticks(1)
    embedded.settle()
    rig.stop(*schedulers)
    due = embedded.check()
    assert not [one for one in due for begun, ended in pauses if begun < one <= ended]
    # The one that was due in the very moment is given up or taken, the other one fell into the pause.
    assert len(missing(due)) <= 2 * len(pauses)


# By the config file --------------------------------------------------------------------------------------------------------------------


Declare = Callable[..., object]


@pytest.fixture
def declare(embedded: Scheduling) -> Declare:
    """Write the tables ``[[cron]]`` of the config file anew."""
    path = embedded.rig.folder / "jobqueue.toml"
    plain = path.read_text()
    return lambda *tables: path.write_text(plain + "".join(tables))


def test_a_restart_adds_changes_and_removes_what_the_config_file_does_and_leaves_the_rest_alone(embedded: Scheduling, declare: Declare) -> None:
    rig = embedded.rig
    declare(cron_table("kept", payload="1", misfire='"all"'), cron_table("changed", payload="1", misfire='"all"'), cron_table("removed"))
    scheduler = rig.start("scheduler")
    rig.wait(lambda: all(embedded.due(name) for name in ("kept", "changed", "removed")), "all fire")
    embedded.add("by.hand", misfire="all")
    embedded.wait_quiet("by.hand")
    rig.stop(scheduler)
    stopped = embedded.now()

    declare(cron_table("kept", payload="1", misfire='"all"'), cron_table("changed", payload="2", misfire='"all"'), cron_table("added"))
    scheduler = rig.start("scheduler")
    names = ("kept", "changed", "added", "by.hand")
    embedded.wait_quiet(*names)
    sources = {one.name: one.source for one in rig.queue.schedules.all()}
    embedded.settle(*names)
    rig.stop(scheduler)

    assert sources == {"kept": "config", "changed": "config", "added": "config", "by.hand": "dynamic"}
    # What fired before and after has missed no tick over the restart: only the payload is another one.
    for name in ("kept", "changed", "by.hand"):
        assert missing(embedded.check(name)) == [], name
    jobs = embedded.jobs()
    assert {(_payload(job), job.created_at > stopped) for job in jobs["changed"]} == {(1, False), (2, True)}
    assert {_payload(job) for job in jobs["kept"]} == {1}
    assert all(job.created_at <= stopped for job in jobs["removed"])
    assert all(job.scheduled_at > stopped for job in jobs["added"] if job.scheduled_at)


@pytest.mark.parametrize("backend_config", ["embedded", slowly("servers")], indirect=True)
def test_schedulers_that_start_at_once_with_one_config_file_make_one_schedule_of_each_table(scheduling: Scheduling) -> None:
    rig = scheduling.rig
    path = rig.folder / "jobqueue.toml"
    names = [f"s{number}" for number in range(10)]
    path.write_text(path.read_text() + "".join(cron_table(name, misfire='"all"') for name in names))
    schedulers = scheduling.start(4)
    scheduling.wait_started(*schedulers)
    children = [scheduling.child(one) for one in schedulers]
    scheduling.wait_quiet(*names)
    scheduling.settle(*names)
    assert [scheduling.child(one) for one in schedulers] == children
    rig.stop(*schedulers)
    assert [one.name for one in rig.queue.schedules.all()] == names
    for name in names:
        assert missing(scheduling.check(name)) == []
    assert rig.log().count("schedule added") == len(names)
    assert "Traceback" not in rig.log()


@pytest.mark.slow
def test_what_an_operator_has_paused_stays_paused_when_the_config_file_changes(embedded: Scheduling, declare: Declare) -> None:
    rig = embedded.rig
    declare(cron_table("paused", payload="1"), cron_table("other"))
    scheduler = rig.start("scheduler")
    embedded.wait_quiet("paused", "other")
    rig.queue.schedules.pause("paused")
    rig.stop(scheduler)
    before = embedded.ticks("paused")

    declare(cron_table("paused", payload="2", enabled="true"), cron_table("other"))
    scheduler = rig.start("scheduler")
    embedded.wait_quiet("other")
    embedded.wait_ticks(1, "other")
    assert embedded.get("paused").paused
    assert embedded.ticks("paused") == before
    resumed = embedded.now()
    rig.queue.schedules.resume("paused")
    embedded.wait_ticks(2, "paused")
    embedded.settle("paused", "other")
    rig.stop(scheduler)
    embedded.check("paused")
    after = embedded.jobs()["paused"][len(before) :]
    assert all(job.scheduled_at > resumed and _payload(job) == 2 for job in after if job.scheduled_at)
