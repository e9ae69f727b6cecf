"""What the tests of the ticker and of schedules share: a scene for each, what befalls it, and what must stand there afterwards."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from schedule_scene import EACH_SECOND, NOON, SECOND, Killed, Scene

from jobqueue_core.storage import Schedule
from jobqueue_core.testing.factories import schedule

__all__ = ["DAY", "DEADLY", "HOUR", "HOURLY", "assert_one_each", "killed_at", "open_scene", "put", "stored"]

HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
HOURLY: Final = "0 * * * *"
DEADLY: Final = frozenset({"now", "due_schedules", "claim_ticks", "enqueue", "mark_sent", "unsent_ticks", "get", "ticks"})
"""The calls of a scheduler to broker and storage, at each of which it may die."""


def open_scene(tmp_path: Path) -> Iterator[Scene]:
    """A scene of the test's own; modules make their fixture of it: ``scene = pytest.fixture(open_scene)``."""
    scene = Scene(tmp_path / "jobqueue.db")
    with scene.queue:
        yield scene


# What befalls it -----------------------------------------------------------------------------------------------------------------------


def killed_at(name: str, at: int = 1) -> Callable[[str], None]:
    """Kills whoever calls *name* for the *at*-th time."""
    calls = itertools.count(1)

    def kill(called: str) -> None:
        if called == name and next(calls) == at:
            raise Killed

    return kill


def put(scene: Scene, name: str, **fields: Any) -> None:
    """Store a schedule as somebody with other plugins, or another release, would have."""
    new = schedule(name, **{"expression": EACH_SECOND, "type": "t", "next_run": NOON + SECOND, **fields})
    assert scene.storage.put_schedule(new, expected_version=None)


# What must stand there -----------------------------------------------------------------------------------------------------------------


def stored(scene: Scene, name: str = "nightly") -> Schedule:
    """What stands in storage."""
    found = scene.storage.schedule(name)
    assert found is not None
    return found


def assert_one_each(found: list[datetime], expected: list[datetime], where: str = "") -> None:
    """Each tick is there once, and no other."""
    assert [f"{one:%T}" for one, count in Counter(found).items() if count > 1] == [], f"{where}: twice"
    assert [f"{one:%T}" for one in sorted(found)] == [f"{one:%T}" for one in expected], where
