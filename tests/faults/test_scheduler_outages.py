"""Redis or PostgreSQL away while schedules are due: what passes meanwhile is missed, what was claimed comes, once (FAULTS: promises 10 and 12)."""

from __future__ import annotations

import os
import random
import signal
from typing import TYPE_CHECKING

import attrs
import pytest
from brokers import slowly
from redis_scene import pass_time
from scheduler_rig import SECOND, Scheduling, missing, seconds_between, till_next_second
from servers import PostgresPlace, PostgresServer, RedisPlace, RedisServer, joined_config

if TYPE_CHECKING:
    from conftest import BuildRig


@attrs.frozen
class Site:
    """Schedules on servers of the test's own."""

    scheduling: Scheduling
    redis: RedisServer
    postgres: PostgresServer


@pytest.fixture
def site(build_rig: BuildRig, redis_server: RedisServer, postgres_server: PostgresServer, own_namespace: str) -> Site:
    """A site with a migrated schema."""
    place = PostgresPlace(postgres_server.url, own_namespace).migrate()
    rig = build_rig(joined_config(RedisPlace(redis_server.url, own_namespace).config, place.config))
    return Site(Scheduling(rig), redis_server, postgres_server)


@pytest.mark.parametrize("server", ["postgres", slowly("redis")])
def test_ticks_that_pass_while_a_server_is_away_are_missed_and_no_scheduler_ends_for_it(site: Site, server: str) -> None:
    scheduling = site.scheduling
    rig = scheduling.rig
    schedulers = scheduling.start(2)
    scheduling.wait_started(*schedulers)
    children = [scheduling.child(one) for one in schedulers]
    for name in ("once", "skip", "all"):
        scheduling.add(name, misfire=name)
    scheduling.wait_quiet("once", "skip", "all")
    fired = {name: len(scheduling.ticks(name)) for name in ("once", "skip", "all")}
    began = scheduling.get("once").next_run
    assert began is not None

    jobs = scheduling.jobs() if server == "postgres" else None
    _stop(site, server)
    pass_time(5.5)
    if jobs is not None:
        assert scheduling.jobs() == jobs, "nothing is made of ticks that nobody can claim"
    _start(site, server)
    rig.wait(lambda: all(len(scheduling.ticks(name)) >= count + 2 for name, count in fired.items()), "all go on")
    scheduling.settle(*fired)
    assert [scheduling.child(one) for one in schedulers] == children
    rig.stop(*schedulers)

    for name, count in {"once": 1, "skip": 0, "all": 1000}.items():
        due = scheduling.check(name)
        if name == "skip":
            assert missing(due)[:5] == seconds_between(began, began + 4 * SECOND)
            assert len(missing(due)) == (max(missing(due)) - began) // SECOND + 1
            continue
        # Either of the two may decide, at a moment of its own: that is when the first of what was missed was claimed.
        decided = scheduling.ticks(name)[fired[name]].claimed_at
        missed = seconds_between(began, decided)
        assert len(missed) >= 5
        assert [one for one in due if began <= one <= decided] == missed[max(0, len(missed) - count) :], name
        assert missing([one for one in due if one > decided]) == [], name
    assert rig.log().count("schedules wait") == 2, "each says once that it waits"


def _stop(site: Site, server: str) -> None:
    if server == "postgres":
        site.postgres.stop("immediate")
    else:
        site.redis.kill()


def _start(site: Site, server: str) -> None:
    if server == "postgres":
        site.postgres.start()
    else:
        site.redis.start()


def test_a_tick_that_was_claimed_when_the_broker_went_away_is_sent_once_when_it_is_back(site: Site) -> None:
    scheduling = site.scheduling
    rig = scheduling.rig
    scheduling.add(misfire="all")
    frozen = scheduling.freezing("enqueue")
    (claimed,) = scheduling.ticks()
    site.redis.kill()
    scheduling.wake(frozen)
    other = rig.start("scheduler")
    rig.wait(lambda: "schedules wait" in rig.log(), "it says that it waits")
    rig.wait(lambda: "waiting" in rig.log() or rig.log().count("schedules wait") == 2, "so does another that comes meanwhile")
    assert scheduling.ticks() == [claimed]
    site.redis.start()
    rig.wait(lambda: scheduling.ticks()[0].sent, "it is sent", within=15)
    scheduling.wait_ticks(2)
    scheduling.settle()
    assert frozen.poll() is None
    rig.stop(other)

    assert missing(scheduling.check()) == []
    assert scheduling.jobs()["each"][0].id == claimed.job.id


@pytest.mark.slow
def test_a_tick_that_was_claimed_and_sent_when_storage_went_away_is_marked_when_it_is_back(site: Site) -> None:
    scheduling = site.scheduling
    rig = scheduling.rig
    scheduling.add(misfire="all")
    frozen = scheduling.freezing("mark_sent")
    (claimed,) = scheduling.ticks()
    site.postgres.stop("immediate")
    scheduling.wake(frozen)
    rig.wait(lambda: "schedules wait" in rig.log(), "it says that it waits")
    assert [job.id for job in scheduling.jobs()["each"]] == [claimed.job.id]
    site.postgres.start()
    rig.wait(lambda: scheduling.ticks()[0].sent, "it is marked", within=15)
    scheduling.wait_ticks(2)
    scheduling.settle()
    assert frozen.poll() is None
    assert missing(scheduling.check()) == []
    assert scheduling.jobs()["each"][0].id == claimed.job.id


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_servers_and_schedulers_killed_at_random_cost_no_tick_and_double_none(site: Site) -> None:
    scheduling = site.scheduling
    rig = scheduling.rig
    dice = random.Random(6)
    schedulers = scheduling.start(3)
    scheduling.add(misfire="all")
    scheduling.wait_ticks(2)
    for _ in range(15):
        pass_time(till_next_second(plus=dice.uniform(-0.005, 0.03)))
        match dice.choice(["redis", "postgres", "scheduler"]):
            case "scheduler":
                victim = dice.randrange(3)
                os.killpg(schedulers[victim].pid, signal.SIGKILL)
                schedulers[victim].wait(10)
                schedulers[victim] = rig.start("scheduler")
            case server:
                _stop(site, server)
                pass_time(dice.uniform(0, 2))
                _start(site, server)
        rig.wait(lambda: scheduling.now() - max(scheduling.due()) < 2 * SECOND, "they have caught up")
    scheduling.settle()
    scheduling.wait_started(*schedulers)
    rig.stop(*schedulers)
    assert missing(scheduling.check()) == []
