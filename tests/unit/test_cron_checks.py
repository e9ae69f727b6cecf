"""What ``jobqueue doctor`` says of schedules, in each state in which something is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from schedule_scene import EACH_SECOND, MINUTE, SECOND, Killed, Scene, Wrapped

from jobqueue_core.app import App
from jobqueue_core.checks import Finding
from jobqueue_core.errors import StorageUnavailable
from jobqueue_core.plugins import Plugins
from jobqueue_core.settings import Settings
from jobqueue_core.settings.sections import JobSection
from jobqueue_core.testing.factories import type_info, worker_info
from jobqueue_cron.checks import checks
from jobqueue_cron.entries import CronEntry
from jobqueue_sqlite.broker import SqliteBroker

Examine = Callable[..., list[Finding]]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A queue whose type ``t`` a worker serves."""
    scene = Scene(tmp_path / "jobqueue.db")
    serve(scene)
    return scene


def serve(scene: Scene) -> None:
    scene.broker.beat(worker_info(types=(type_info("t"),)))


@pytest.fixture
def examine(scene: Scene) -> Examine:
    """Has the doctor look at the scene."""

    def examine(
        *, fix: bool = False, broker: Any = None, storage: Any = None, declared: list[CronEntry] | None = None, **job: timedelta
    ) -> list[Finding]:
        source = None if declared is None else Path("jobqueue.toml")
        app = App(Settings(job=JobSection(**job), offered={"cron": declared or []}, source=source), Plugins.load())
        app._broker, app._storage = broker or scene.broker, storage or scene.storage
        (check,) = checks()
        return check.run(app, fix)

    return examine


def only(findings: list[Finding]) -> Finding:
    (found,) = findings
    return found


def test_where_nothing_is_wrong_the_schedules_are_counted(scene: Scene, examine: Examine) -> None:
    assert examine() == []
    scene.add("one", "0 13 * * *")
    scene.add("two", "0 13 * * *")
    scene.schedules.pause("two")
    scene.add("over", "0 13 * * *", end=scene.clock() + timedelta(hours=2))
    scene.clock.advance(timedelta(hours=1))
    scene.turn()
    serve(scene)
    assert only(examine()) == Finding(level="ok", text="schedules: 3, of which 1 active")


def test_schedules_that_are_due_and_that_nobody_fires_are_an_error(scene: Scene, examine: Examine) -> None:
    scene.add("nightly", EACH_SECOND)
    scene.add("paused", EACH_SECOND)
    scene.schedules.pause("paused")
    scene.clock.advance(MINUTE)
    serve(scene)
    assert only(examine()).level == "ok"
    scene.clock.advance(2 * SECOND)
    found = only(examine())
    assert (found.level, "nightly" in found.text, "paused" in found.text, "jobqueue-run scheduler" in (found.remedy or "")) == (
        "error",
        True,
        False,
        True,
    )


@pytest.mark.parametrize("broken", [{"timezone": "Mars/Olympus"}, {"expression": "whenever"}, {"expression": "solar: noon"}])
def test_a_schedule_that_cannot_be_read_here_is_an_error(scene: Scene, examine: Examine, broken: dict[str, str]) -> None:
    scene.add("nightly")
    stored = scene.schedules.get("nightly")
    assert scene.storage.put_schedule(replace(stored, **broken), expected_version=stored.version)
    found = only(examine())
    assert (found.level, "'nightly' cannot be read" in found.text) == ("error", True)


def test_a_type_that_nobody_serves_is_a_warning_for_all_its_schedules(scene: Scene, examine: Examine) -> None:
    for number in range(7):
        scene.schedules.add(f"one-{number}", "@daily", "nobody.serves")
    found = only(examine())
    assert found.level == "warning"
    assert found.text.endswith("'nobody.serves' of schedules: one-0, one-1, one-2, one-3, one-4 and 2 more")


def test_ticks_that_wait_to_be_sent_are_an_error(scene: Scene, examine: Examine) -> None:
    def fail(called: str) -> None:
        if called == "enqueue":
            raise Killed

    scene.add("nightly", "0 13 * * *")
    scene.clock.advance(timedelta(hours=1))
    with pytest.raises(Killed):
        scene.turn(scene.ticker(broker=Wrapped(scene.broker, before=fail)))
    serve(scene)
    assert [one.level for one in examine()] == ["ok"]
    scene.clock.advance(MINUTE + SECOND)
    serve(scene)
    found = only(examine())
    assert (found.level, "nightly" in found.text) == ("error", True)


@pytest.mark.parametrize("result_ttl", [MINUTE, timedelta(days=1)])
def test_jobs_that_the_broker_has_lost_are_listed_and_sent_again_under_their_ids(
    scene: Scene, examine: Examine, tmp_path: Path, result_ttl: timedelta
) -> None:
    scene.add("nightly", EACH_SECOND)
    for _ in range(3):
        scene.clock.advance(SECOND)
        scene.turn()
    scene.schedules.pause("nightly")
    scene.clock.advance(12 * SECOND)
    serve(scene)
    assert only(examine(result_ttl=result_ttl)).level == "ok"

    restored = SqliteBroker(tmp_path / "restored.db", clock=scene.clock)
    restored.beat(worker_info(types=(type_info("t"),)))
    found = only(examine(broker=restored, result_ttl=result_ttl))
    assert (found.level, "3, of nightly" in found.text, "--fix" in (found.remedy or "")) == ("error", True, True)
    assert restored.queues() == []

    for _ in range(2):
        examine(broker=restored, fix=True, result_ttl=result_ttl)
    assert only(examine(broker=restored, result_ttl=result_ttl)).level == "ok"
    lost = [tick.job.id for tick in scene.storage.ticks("nightly", 10)]
    assert len(lost) == 3
    assert [job is not None for job in restored.get(lost)] == [True] * 3
    assert sum(one.waiting for one in restored.queues()) == 3


def test_a_job_that_has_ended_and_was_recorded_is_not_lost(scene: Scene, examine: Examine, tmp_path: Path) -> None:
    scene.add("nightly", EACH_SECOND)
    scene.clock.advance(SECOND)
    scene.turn()
    scene.schedules.pause("nightly")
    assert scene.finish() == 1
    scene.recorder.record_waiting()
    scene.clock.advance(12 * SECOND)
    restored = SqliteBroker(tmp_path / "restored.db", clock=scene.clock)
    restored.beat(worker_info(types=(type_info("t"),)))
    assert only(examine(broker=restored)).level == "ok"


@pytest.mark.parametrize(
    "change",
    [
        {"expression": "@hourly"},
        {"timezone": "Europe/Berlin"},
        {"payload": {"x": 2}},
        {"queue": "other"},
        {"misfire": "skip"},
        {"overlap": "skip"},
        {"jitter": SECOND},
        {"enabled": False},
    ],
    ids=lambda one: next(iter(one)),
)
def test_a_config_file_that_schedulers_have_not_read_is_a_warning(scene: Scene, examine: Examine, change: dict[str, Any]) -> None:
    entry = CronEntry(name="nightly", expression="@daily", type="t", payload={"x": 1})
    scene.schedules.synchronise({entry.name: entry.fields()})
    assert only(examine(declared=[entry])).level == "ok"
    changed = CronEntry(**{"name": entry.name, **entry.fields(), **change})
    for declared in ([changed], [], [entry, CronEntry(name="new", expression="@daily", type="t")]):
        found = only(examine(declared=declared))
        assert (found.level, "restart the schedulers" in (found.remedy or "")) == ("warning", True)
    assert only(examine(declared=None)).level == "ok"


def test_what_an_operator_has_paused_is_no_difference(scene: Scene, examine: Examine) -> None:
    entry = CronEntry(name="nightly", expression="@daily", type="t")
    scene.schedules.synchronise({entry.name: entry.fields()})
    scene.schedules.pause("nightly")
    assert only(examine(declared=[entry])).level == "ok"


def test_a_storage_that_is_away_is_said_elsewhere(scene: Scene, examine: Examine) -> None:
    def away(_called: str) -> None:
        raise StorageUnavailable("away")

    assert examine(storage=Wrapped(scene.storage, before=away)) == []


def test_what_breaks_amid_the_examination_is_said(scene: Scene, examine: Examine) -> None:
    scene.add("nightly")

    def away(called: str) -> None:
        if called == "unsent_ticks":
            raise StorageUnavailable("gone meanwhile")

    found = only(examine(storage=Wrapped(scene.storage, before=away)))
    assert (found.level, "gone meanwhile" in found.text) == ("error", True)
