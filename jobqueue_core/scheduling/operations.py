"""What can be done with schedules, with its checks: the client's and the service layer's ``schedules``."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from jobqueue_core.errors import (
    BrokerError,
    BrokerUnavailable,
    Conflict,
    IncompatibleData,
    InvalidSchedule,
    JobNotFound,
    JobQueueError,
    StorageError,
    StorageUnavailable,
)
from jobqueue_core.scheduling.definition import TIMING, blank, change
from jobqueue_core.scheduling.jobs import make_manual_tick, send_ticks, unfinished
from jobqueue_core.scheduling.runs import ScheduleRun
from jobqueue_core.scheduling.ticks import Ticks
from jobqueue_core.storage import Claim, Schedule

if TYPE_CHECKING:
    from jobqueue_core.client import JobQueue
    from jobqueue_core.durations import Duration
    from jobqueue_core.job import Job
    from jobqueue_core.storage import Schedules, Tick

__all__ = ["CONFIG", "DYNAMIC", "ScheduleOperations"]

_log = logging.getLogger("jobqueue.schedules")

CONFIG: Final = "config"
"""The source of a schedule that stands in the config file."""
DYNAMIC: Final = "dynamic"
"""The source of any other."""
_TRIES: Final = 20
"""How often to read a schedule anew that others change at the same moment."""
_MAX_COUNT: Final = 500


class ScheduleOperations:
    """Schedules in storage. Each call may raise StorageError and BrokerError; what reads an expression PluginError when no plugin can.

    Args:
        queue: Where jobs go, whose clock decides, and who knows job types and timetables.
        storage: Where schedules are.
        did: Told of each action, for the log.
    """

    def __init__(self, queue: JobQueue, storage: Schedules, *, did: Callable[..., None]) -> None:
        self._queue = queue
        self._storage = storage
        self._did = did

    # Asking ----------------------------------------------------------------------------------------------------------------------------

    def all(self) -> list[Schedule]:
        """All schedules, by name."""
        return self._storage.schedules()

    def get(self, name: str) -> Schedule:
        """One schedule.

        Raises:
            JobNotFound: There is none of that name.
        """
        schedule = self._storage.schedule(name)
        if schedule is None:
            raise JobNotFound("schedule", name)
        return schedule

    def next_runs(self, name: str, count: int = 10) -> list[datetime]:
        """The next ticks, in UTC; fewer where it ends before. Of one that is paused: when it would be due.

        Raises:
            JobNotFound: There is none of that name.
            InvalidSchedule: *count* is wrong, or the schedule cannot be read any more.
        """
        return self._next_ticks(self.get(name), count)

    def preview(
        self, expression: str, *, timezone: str = "UTC", count: int = 10, start: datetime | None = None, end: datetime | None = None
    ) -> list[datetime]:
        """The next ticks that a schedule would have, in UTC.

        Raises:
            InvalidSchedule: Something about it is wrong.
        """
        timing = {"expression": expression, "timezone": timezone, "start": start, "end": end}
        return self._next_ticks(change(blank("preview", DYNAMIC), timing, max_payload=self._queue.max_payload), count)

    def _next_ticks(self, schedule: Schedule, count: int) -> list[datetime]:
        if not 1 <= count <= _MAX_COUNT:
            raise InvalidSchedule("count", f"must be from 1 to {_MAX_COUNT}, not {count}")
        ticks = Ticks.of(schedule, self._queue.timetables)
        found: list[datetime] = []
        tick = ticks.after(self._queue.broker.now())
        while tick is not None and len(found) < count:
            found.append(tick)
            tick = ticks.after(tick)
        return found

    def runs(self, name: str, limit: int = 10) -> list[ScheduleRun]:
        """The latest jobs that a schedule has made, newest first.

        Raises:
            JobNotFound: There is none of that name.
            InvalidSchedule: *limit* is wrong.
        """
        if not 1 <= limit <= _MAX_COUNT:
            raise InvalidSchedule("limit", f"must be from 1 to {_MAX_COUNT}, not {limit}")
        ticks = self._storage.ticks(self.get(name).name, limit)
        known = self._queue.broker.get([tick.job.id for tick in ticks])
        find = self._queue.operations.find_job
        return [ScheduleRun.of(tick, find(tick.job.id) if job is None else job) for tick, job in zip(ticks, known, strict=True)]

    # Writing ---------------------------------------------------------------------------------------------------------------------------

    def add(
        self,
        name: str,
        expression: str,
        type: str,
        payload: object = None,
        *,
        timezone: str = "UTC",
        queue: str | None = None,
        priority: str | None = None,
        max_retries: int | None = None,
        timeout: Duration | None = None,
        enabled: bool = True,
        misfire: str = "once",
        misfire_limit: int = 100,
        overlap: str = "allow",
        jitter: Duration | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        strict: bool = False,
    ) -> Schedule:
        """Add a schedule; it is first due at its next tick.

        Args:
            name: What it is called: 1 to 100 letters, digits, ``_ . -``.
            expression: When it is due: five cron fields, or six with seconds first, or ``@hourly`` and the like.
            type: The job type.
            payload: A JSON value.
            timezone: The IANA time zone by whose clocks it is due.
            queue: As for ``JobQueue.enqueue``, and so are *priority*, *max_retries* and *timeout*.
            priority: See there.
            max_retries: See there.
            timeout: See there.
            enabled: False: it waits for :meth:`resume`.
            misfire: What to do about ticks that were missed while no scheduler ran: fire the latest (``once``), none (``skip``) or all (``all``).
            misfire_limit: Of those, with ``all``, at most the latest so many.
            overlap: ``skip``: fire no tick while the last job has not ended.
            jitter: Let each job wait a random time up to this.
            start: Not due before (aware).
            end: Not due after (aware).
            strict: Refuse a job type that nobody knows, instead of logging a warning.

        Raises:
            InvalidSchedule: Something about it is wrong.
            Conflict: There is one of that name (code ``exists``).
        """
        fields: dict[str, object] = {
            "expression": expression,
            "timezone": timezone,
            "type": type,
            "payload": payload,
            "queue": queue,
            "priority": priority,
            "max_retries": max_retries,
            "timeout": timeout,
            "enabled": enabled,
            "misfire": misfire,
            "misfire_limit": misfire_limit,
            "overlap": overlap,
            "jitter": jitter,
            "start": start,
            "end": end,
        }
        new = self._changed(blank(name, DYNAMIC), fields)
        if new.next_run is None:
            when = "after its start" if end is None else "from now until its end"
            raise InvalidSchedule("start" if end is None else "end", f"the schedule is never due {when}")
        self._check_type(new, strict=strict)
        if not self._storage.put_schedule(new, expected_version=None):
            msg = f"there is a schedule {name!r} already: edit it, or choose another name"
            raise Conflict(msg, code="exists")
        self._did("schedule added", schedule=name)
        return new

    def edit(self, name: str, changes: Mapping[str, object], *, strict: bool = False) -> Schedule:
        """Change a schedule. It keeps its next tick unless what says when it is due changes: then that is the next one from now on.

        Args:
            name: Which one.
            changes: Argument of :meth:`add` -> its new value; None for what may be unset.
            strict: As for :meth:`add`, where the type changes.

        Raises:
            InvalidSchedule: A value is wrong, or there is no such field.
            JobNotFound: There is none of that name.
            Conflict: It stands in the config file (code ``from_config``).
        """

        def edited(schedule: Schedule) -> Schedule:
            _refuse_config(schedule, "edit")
            # To enable it is to want that it fires.
            now_paused = schedule.paused and changes.get("enabled") is not True
            return self._changed(replace(schedule, paused=now_paused), changes, before=schedule)

        if "type" in changes:
            self._check_type(edited(self.get(name)), strict=strict)
        schedule = self._write(name, edited)
        self._did("schedule edited", schedule=name, fields=",".join(sorted(changes)))
        return schedule

    def pause(self, name: str) -> Schedule:
        """Fire nothing until :meth:`resume`; harmless when it is paused already. Raises JobNotFound."""
        schedule = self._write(name, lambda schedule: replace(schedule, paused=True))
        self._did("schedule paused", schedule=name)
        return schedule

    def resume(self, name: str) -> Schedule:
        """Fire again, from the next tick on; harmless when it does.

        Raises:
            JobNotFound: There is none of that name.
            Conflict: The config file disables it (code ``from_config``).
        """

        def resumed(schedule: Schedule) -> Schedule:
            if not schedule.enabled:
                _refuse_config(schedule, "enable")
            return self._changed(replace(schedule, paused=False), {"enabled": True}, before=schedule)

        schedule = self._write(name, resumed)
        self._did("schedule resumed", schedule=name)
        return schedule

    def remove(self, name: str) -> None:
        """Delete a schedule; the jobs it has made stay.

        Raises:
            JobNotFound: There is none of that name.
            Conflict: It stands in the config file (code ``from_config``).
        """
        # One that is damaged can be removed all the same.
        with contextlib.suppress(IncompatibleData):
            _refuse_config(self.get(name), "remove")
        if not self._storage.delete_schedule(name):
            raise JobNotFound("schedule", name)
        self._did("schedule removed", schedule=name)

    def run(self, name: str) -> Job:
        """Make a job of it now, whatever its timetable says, and whether or not it is paused.

        Raises:
            JobNotFound: There is none of that name.
            Conflict: Its last job has not ended, and its overlap policy is ``skip`` (code ``still_running``).
            BrokerUnavailable: The broker did not take it. Where ``maybe_accepted`` is true the job comes all the same: a scheduler sends it.
        """
        for _try in range(_TRIES):
            schedule = self.get(name)
            if schedule.overlap == "skip" and unfinished(self._queue, self._storage, [schedule]):
                msg = f"the last job of schedule {name!r}, {schedule.last_job_id}, has not ended, and its overlap policy is skip"
                raise Conflict(msg, code="still_running")
            now = self._queue.broker.now()
            tick = make_manual_tick(self._queue, schedule, now=now)
            if self._storage.claim_ticks([Claim(schedule=schedule, tick=tick, next_run=schedule.next_run)]) == [True]:
                self._did("schedule run", schedule=name, job_id=tick.job.id)
                return self._sent(tick, now)
        raise _busy(name)

    def _sent(self, tick: Tick, now: datetime) -> Job:
        """The job of a tick that was claimed, sent."""
        reason: BrokerError | None = None
        try:
            is_sent = bool(send_ticks(self._queue, self._storage, [tick], now=now))
        except StorageError as error:
            # The broker has the job. A scheduler sends it again, and the broker knows it.
            _log.warning("job %s of schedule %r was sent, which could not be noted: %s", tick.job.id, tick.schedule, error)
            is_sent = True
        except BrokerError as error:
            reason, is_sent = error, False
        if is_sent:
            return self._queue.operations.job(tick.job.id)
        msg = f"the broker has not taken job {tick.job.id} yet ({reason or 'it took too long'}); a scheduler sends it"
        raise BrokerUnavailable(msg, maybe_accepted=True) from reason

    # The config file -------------------------------------------------------------------------------------------------------------------

    def synchronise(self, declared: Mapping[str, Mapping[str, object]]) -> None:
        """Make the schedules of a config file be those that it declares now: add, change, remove. What is paused stays so.

        Those that were added by hand stay, unless the file declares one of the same name: it takes that over, with a warning.

        Args:
            declared: Name -> fields, as the arguments of :meth:`add`.

        What cannot be read (an expression in the language of a plugin that is missing) is logged and left as it was.
        """
        for name, fields in declared.items():
            try:
                self._declare(name, fields)
            except (BrokerUnavailable, StorageUnavailable):
                raise
            except Exception as error:  # noqa: BLE001 - a third party's timetable, or a damaged row: the others are to fire
                known = isinstance(error, JobQueueError)
                _log.error("schedule %r of the config file cannot be used: %s", name, error, exc_info=None if known else error)
        for schedule in self._storage.schedules():
            if schedule.source == CONFIG and schedule.name not in declared and self._storage.delete_schedule(schedule.name):
                self._did("schedule removed", schedule=schedule.name, source=CONFIG)

    def _declare(self, name: str, fields: Mapping[str, object]) -> None:
        for _try in range(_TRIES):
            stored = self._storage.schedule(name)
            if stored is None:
                new, version, done = self._changed(blank(name, CONFIG), fields), None, "schedule added"
            else:
                new, version, done = self._changed(replace(stored, source=CONFIG), fields, before=stored), stored.version, "schedule edited"
                if new == stored:
                    return
            if self._storage.put_schedule(new, expected_version=version):
                self._did(done, schedule=name, source=CONFIG)
                self._check_type(new, strict=False)
                if stored is not None and stored.source != CONFIG:
                    _log.warning("schedule %r was added by hand; the config file declares it too, and has taken it over", name)
                return
        raise _busy(name)

    # Inside ----------------------------------------------------------------------------------------------------------------------------

    def _changed(self, schedule: Schedule, changes: Mapping[str, object], *, before: Schedule | None = None) -> Schedule:
        """*schedule* with *changes*, and due when it is to be due; *before* is how it stood until now."""
        changed = change(schedule, changes, max_payload=self._queue.max_payload)
        timed = before is None or any(getattr(changed, field) != getattr(before, field) for field in TIMING)
        if timed or (before is not None and changed.fires and not before.fires):
            # Never the past: what was due while it did not fire was not missed.
            changed = replace(changed, next_run=Ticks.of(changed, self._queue.timetables).after(self._queue.broker.now()))
        return changed

    def _write(self, name: str, edit: Callable[[Schedule], Schedule]) -> Schedule:
        for _try in range(_TRIES):
            schedule = self.get(name)
            edited = edit(schedule)
            if edited == schedule:
                return schedule
            if self._storage.put_schedule(edited, expected_version=schedule.version):
                return replace(edited, version=schedule.version + 1)
        raise _busy(name)

    def _check_type(self, schedule: Schedule, *, strict: bool) -> None:
        if self._queue.knows(schedule.type):
            return
        problem = f"neither a handler package installed here nor a running worker serves the job type {schedule.type!r}"
        if strict:
            raise InvalidSchedule("type", problem)
        _log.warning("schedule %r: %s", schedule.name, problem)


def _refuse_config(schedule: Schedule, action: str) -> None:
    if schedule.source == CONFIG:
        msg = f"schedule {schedule.name!r} stands in a config file: {action} it there; schedulers read it when they start"
        raise Conflict(msg, code="from_config")


def _busy(name: str) -> Conflict:
    return Conflict(f"schedule {name!r} is being changed by others all the time; try again", code="changed")
