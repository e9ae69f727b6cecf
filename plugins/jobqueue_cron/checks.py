"""What ``jobqueue doctor`` looks at where there are schedules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from jobqueue_core.checks import Check, Finding
from jobqueue_core.errors import BrokerError, InvalidSchedule, PluginError, StorageError
from jobqueue_core.scheduling.definition import change
from jobqueue_core.scheduling.jobs import send_ticks
from jobqueue_core.scheduling.operations import CONFIG
from jobqueue_core.scheduling.ticks import Ticks

if TYPE_CHECKING:
    from jobqueue_core.app import App
    from jobqueue_core.storage import Schedule, Tick

__all__ = ["checks"]

_LATE: Final = timedelta(minutes=1)
_ON_THE_WAY: Final = timedelta(seconds=10)
"""So long a tick may take from its claim to the broker."""
_SHOWN: Final = 5
_TICKS: Final = 500
"""Of each schedule, the latest."""
_SCHEDULER: Final = "start a scheduler: jobqueue-run scheduler"


def checks() -> list[Check]:
    """All checks of this plugin: one, so that a storage that is away is waited for once."""
    return [Check(name="schedules", run=_check)]


def _check(app: App, fix: bool) -> list[Finding]:  # noqa: FBT001 - the signature of Check.run
    try:
        schedules = app.storage.schedules()
        now = app.broker.now()
    except (BrokerError, StorageError):
        return []  # they are away, or not for this release, which is said elsewhere
    try:
        found = [*_undeclared(app, schedules), *_late(schedules, now), *_unreadable(app, schedules), *_unknown_types(app, schedules)]
        found += [*_unsent(app, now), *_forgotten(app, schedules, now, fix=fix)]
    except (BrokerError, StorageError) as error:
        return [Finding(level="error", text=f"schedules cannot be examined: {error}")]
    if not found and schedules:
        active = sum(one.fires and one.next_run is not None for one in schedules)
        found.append(Finding(level="ok", text=f"schedules: {len(schedules)}, of which {active} active"))
    return found


def _names(names: Iterable[str]) -> str:
    named = sorted(names)
    more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
    return f"{', '.join(named[:_SHOWN])}{more}"


def _undeclared(app: App, schedules: Sequence[Schedule]) -> Iterator[Finding]:
    """The config file and what schedulers have made of it."""
    if app.settings.source is None:
        return
    declared = {one.name: one.fields() for one in app.settings.section("cron")}
    stored = {one.name: one for one in schedules if one.source == CONFIG}
    differ = set(declared.keys() ^ stored.keys())
    limit = app.settings.job.max_payload
    differ |= {name for name in declared.keys() & stored.keys() if change(stored[name], declared[name], max_payload=limit) != stored[name]}
    if differ:
        text = f"[[cron]] in {app.settings.source} and the schedules that run differ: {_names(differ)}"
        yield Finding(level="warning", text=text, remedy="restart the schedulers: they read it when they start; all of them need the same file")


def _late(schedules: Sequence[Schedule], now: datetime) -> Iterator[Finding]:
    late = [one.name for one in schedules if one.fires and one.next_run is not None and now - one.next_run > _LATE]
    if late:
        yield Finding(level="error", text=f"schedules are due for more than a minute, and nobody fires them: {_names(late)}", remedy=_SCHEDULER)


def _unreadable(app: App, schedules: Sequence[Schedule]) -> Iterator[Finding]:
    for one in schedules:
        try:
            Ticks.of(one, app.queue.timetables)
        except (InvalidSchedule, PluginError) as error:
            remedy = "install what it needs where schedulers run, or edit it"
            yield Finding(level="error" if one.fires else "warning", text=f"schedule {one.name!r} cannot be read: {error}", remedy=remedy)


def _unknown_types(app: App, schedules: Sequence[Schedule]) -> Iterator[Finding]:
    wanted: dict[str, list[str]] = {}
    for one in schedules:
        if one.fires:
            wanted.setdefault(one.type, []).append(one.name)
    for job_type, names in sorted(wanted.items()):
        if not app.queue.knows(job_type):
            text = f"no handler installed here and no running worker serves the job type {job_type!r} of schedules: {_names(names)}"
            yield Finding(level="warning", text=text, remedy="start a worker that serves it, or edit the schedules")


def _unsent(app: App, now: datetime) -> Iterator[Finding]:
    waiting = app.storage.unsent_ticks(now - _LATE, _TICKS)
    if waiting:
        names = _names({tick.schedule for tick in waiting})
        yield Finding(level="error", text=f"ticks were claimed and their jobs not sent for more than a minute: {names}", remedy=_SCHEDULER)


def _forgotten(app: App, schedules: Sequence[Schedule], now: datetime, *, fix: bool) -> Iterator[Finding]:
    """Jobs that the broker has lost: it must know each that was sent since, for so long it keeps even those that have ended."""
    since = now - app.settings.job.result_ttl + _ON_THE_WAY
    lost = [tick for one in schedules if one.last_run is not None and one.last_run >= since for tick in _lost_of(app, one.name, since, now)]
    if not lost:
        return
    if fix:
        sent = send_ticks(app.queue, app.storage, lost, now=app.broker.now())
        yield Finding(level="warning", text=f"sent {len(sent)} jobs of schedules again that the broker had lost", fixed=True)
        return
    text = f"the broker has lost jobs of schedules that were sent to it: {len(lost)}, of {_names({tick.schedule for tick in lost})}"
    yield Finding(level="error", text=text, remedy="jobqueue doctor --fix sends them again")


def _lost_of(app: App, name: str, since: datetime, now: datetime) -> list[Tick]:
    ticks = [one for one in app.storage.ticks(name, _TICKS) if one.sent and since <= one.claimed_at < now - _ON_THE_WAY]
    known = app.broker.get([one.job.id for one in ticks])
    gone = [tick for tick, job in zip(ticks, known, strict=True) if job is None]
    return [tick for tick in gone if not app.storage.job_executions(tick.job.id)]
