"""Whether a file is what it should be: for ``doctor`` and for tests. These are the only statements that walk whole tables."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from typing import Any, Final

import attrs

from jobqueue_core.job import JobState

from .records import PRIORITIES
from .statements import statement

__all__ = ["Drift", "astray", "drift", "integrity", "repair"]

_GAUGES: Final = ("critical", "high", "medium", "low", "processing", "scheduled", "retrying")
_SHOWN: Final = 20


@attrs.frozen(kw_only=True)
class Drift:
    """A counter that says something else than what it counts."""

    name: str
    """The queue and counter, as ``default.processing``, or the outbox."""
    kept: int
    counted: int


def drift(connection: sqlite3.Connection) -> list[Drift]:
    """The counters that are wrong; run it in one transaction, where nothing else can write."""
    found = []
    counted = _counted(connection)
    kept = _kept(connection)
    for queue in sorted(counted.keys() | kept.keys()):
        for gauge in _GAUGES:
            one = Drift(name=f"{queue}.{gauge}", kept=kept.get(queue, Counter())[gauge], counted=counted.get(queue, Counter())[gauge])
            if one.kept != one.counted:
                found.append(one)
    waiting = connection.execute(statement("outbox_count")).fetchone()
    for outbox, count in zip(("outbox_history", "outbox_dead"), waiting, strict=True):
        number = connection.execute(statement("numbers_get"), {"name": outbox}).fetchone()[0]
        if number != count:
            found.append(Drift(name=outbox, kept=number, counted=count))
    return found


def repair(connection: sqlite3.Connection) -> None:
    """Make the counters say what they count; in a transaction that writes."""
    counted = _counted(connection)
    for queue in counted.keys() | _kept(connection).keys():
        gauges: dict[str, Any] = {gauge: counted.get(queue, Counter())[gauge] for gauge in _GAUGES}
        connection.execute(statement("queues_know"), {"name": queue})
        connection.execute(statement("queues_set_gauges"), gauges | {"name": queue})
    waiting = connection.execute(statement("outbox_count")).fetchone()
    for outbox, count in zip(("outbox_history", "outbox_dead"), waiting, strict=True):
        connection.execute(statement("numbers_set"), {"name": outbox, "value": count})


def astray(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """Id and state of some jobs whose columns contradict each other: they may never be leased, promoted or forgotten."""
    return connection.execute(statement("jobs_astray"), {"limit": _SHOWN}).fetchall()


def integrity(connection: sqlite3.Connection) -> list[str]:
    """What ``PRAGMA quick_check`` has to say of the file; empty when it is sound."""
    return [text for (text,) in connection.execute("PRAGMA quick_check").fetchall() if text != "ok"]


def _counted(connection: sqlite3.Connection) -> dict[str, Counter[str]]:
    counted: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for queue, priority, state, count in connection.execute(statement("jobs_count_states")).fetchall():
        gauge = PRIORITIES[priority].value if state == JobState.QUEUED else state
        counted[queue][gauge] += count
    return counted


def _kept(connection: sqlite3.Connection) -> dict[str, Counter[str]]:
    rows = connection.execute(statement("queues_list"), {"slot": 0}).fetchall()
    return {name: Counter(dict(zip(_GAUGES, counts[: len(_GAUGES)], strict=True))) for name, _, *counts in rows}
