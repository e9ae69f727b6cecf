"""A schedule is changed while the ticker fires it: at whatever moment, only ticks that were begun still fire as it was."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from schedule_scene import SECOND, Scene, Wrapped, seconds, tick_of
from schedule_trials import assert_one_each


def change_expression(scene: Scene) -> None:
    scene.schedules.edit("nightly", {"expression": "*/10 * * * * *"})


def change_payload(scene: Scene) -> None:
    scene.schedules.edit("nightly", {"payload": "new", "type": "new"})


def pause(scene: Scene) -> None:
    scene.schedules.pause("nightly")


def disable(scene: Scene) -> None:
    scene.schedules.edit("nightly", {"enabled": False})


def remove(scene: Scene) -> None:
    scene.schedules.remove("nightly")


def recreate(scene: Scene) -> None:
    scene.schedules.remove("nightly")
    scene.add(type="new", payload="new")


def recreate_disabled(scene: Scene) -> None:
    scene.schedules.remove("nightly")
    scene.add(type="new", enabled=False)


ALL_CHANGES = [change_expression, change_payload, pause, disable, remove, recreate, recreate_disabled]


MOMENTS = [(when, name) for when in ("before", "after") for name in ("now", "due_schedules", "claim_ticks", "enqueue", "mark_sent")]


@pytest.mark.parametrize("late", [3, 20], ids=["on time", "catching up"])
@pytest.mark.parametrize("change", ALL_CHANGES)
def test_a_change_while_it_fires_lets_no_tick_pass_but_those_that_were_begun(tmp_path: Path, change: Callable[[Scene], None], late: int) -> None:
    for number, (when, name) in enumerate(MOMENTS):
        scene = Scene(tmp_path / f"{number}.db")
        with scene.queue:
            begun = fire_and_change(scene, change, when=when, name=name, late=late)
            check_changed(scene, change, begun=begun, changed_at=late, where=f"{when} {name}")


def fire_and_change(scene: Scene, change: Callable[[Scene], None], *, when: str, name: str, late: int) -> list[datetime]:
    """Change a schedule when broker or storage is called for *name*, and go on for ten seconds; the ticks that were claimed before."""
    scene.add(type="old", misfire="all")
    begun: list[datetime] = []
    changed: list[bool] = []

    def meanwhile(called: str) -> None:
        if called == name and not changed:
            changed.append(True)
            begun.extend(one.due for one in scene.storage.ticks("nightly", 100))
            change(scene)

    hooks = {when: meanwhile}
    ticker = scene.ticker(broker=Wrapped(scene.broker, **hooks), storage=Wrapped(scene.storage, **hooks))
    scene.clock.advance(late * SECOND)
    scene.turn(ticker)
    assert changed == [True], f"nobody called {name}"
    scene.pass_time(10 * SECOND, ticker=ticker)
    return begun


def check_changed(scene: Scene, change: Callable[[Scene], None], *, begun: list[datetime], changed_at: int, where: str) -> None:
    found = {kind: [tick_of(job) for job in scene.jobs() if job.type == kind] for kind in ("old", "new")}
    later = seconds(changed_at + 1, changed_at + 10)
    stored = scene.storage.schedule("nightly")
    if change is change_expression:
        assert_one_each(found["old"], sorted(begun) + [one for one in later if one.second % 10 == 0], where)
        assert stored is not None
        assert stored.expression == "*/10 * * * * *", where
        return
    assert_one_each(found["old"], sorted(begun), where)
    if change is change_payload:  # which is no reason to miss a tick
        assert_one_each(found["old"] + found["new"], seconds(1, changed_at) + later, where)
    elif change is recreate:
        assert_one_each(found["new"], later, where)
    else:
        assert found["new"] == [], where
    if change is remove:
        assert stored is None, where
        return
    assert stored is not None
    kept = (stored.type, stored.fires)
    assert kept == ("new" if change in (change_payload, recreate, recreate_disabled) else "old", change in (change_payload, recreate)), where
