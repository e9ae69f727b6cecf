"""Fires the ticks of schedules: each is claimed in storage, then enqueued under the id that was claimed (DESIGN R21).

Any number of these may run. They need no leader: of those who see a tick come due, one claims it. Who dies between claim and enqueue leaves an
unsent tick, which any other sends under the same id; who was frozen there and wakes too late is refused by the broker.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from time import monotonic
from typing import TYPE_CHECKING, Final

import attrs
from msgspec.structs import replace

from jobqueue_core.errors import BrokerError, InvalidJob, InvalidSchedule, PluginError, StorageError
from jobqueue_core.job import rfc3339
from jobqueue_core.scheduling.jobs import RESEND_AFTER, make_tick, send_ticks, unfinished
from jobqueue_core.scheduling.ticks import Ticks
from jobqueue_core.service import Exit, Stop
from jobqueue_core.storage import Claim, Schedule, Tick

from .clockwatch import ClockWatch
from .misfires import Attendance, Decision, decide, grace_for

if TYPE_CHECKING:
    from jobqueue_core.client import JobQueue
    from jobqueue_core.storage import Storage

__all__ = ["Ticker"]

_log = logging.getLogger("jobqueue.cron")
_BATCH: Final = 200
"""How many ticks are claimed, and sent, at once."""
_IN_A_ROW: Final = 20
"""How many ticks of one schedule are fired before others have their turn."""
_LOOKS: Final = 5
"""At how many schedules whose claim was refused to look closely at once."""
_AT_IT: Final = 1.0
"""Seconds until a schedule that somebody else is at, perhaps frozen, is looked at again if it has not changed."""
_UNREADABLE: Final = 60.0
"""Seconds until a schedule that cannot be read is looked at again if it has not changed."""
_TELL_AGAIN: Final = 60.0
_TOLD_ONE_BY_ONE: Final = 5
_KEPT: Final = 1_000
"""How many ticks of a schedule to look through."""
_SURELY_KNOWN: Final = timedelta(seconds=25)
"""How old a tick may be whose job the broker knows for certain, if it has ever had it, when it is sent again: a job that has ended is remembered for
a minute at least, and sending may take 30 s."""
_RECORDED: Final = timedelta(minutes=1)
"""A job that the broker has forgotten ended longer ago: it stands in history, or something as old still waits for storage."""
_TIMETABLES: Final = 2_000


class Ticker:
    """Runs until it is stopped.

    Args:
        queue: Where the jobs go; its broker's clock decides.
        storage: Where schedules and ticks are.
        poll_interval: The longest time between two looks for schedules that others have changed. A tick that is known is not waited for by polling.
        declared: The schedules of the config file (``ScheduleOperations.synchronise``), put into storage at the start; None without a config file.
    """

    def __init__(
        self, queue: JobQueue, storage: Storage, *, poll_interval: timedelta, declared: Mapping[str, Mapping[str, object]] | None = None
    ) -> None:
        self._queue = queue
        self._storage = storage
        self._poll = poll_interval
        self._attendance = Attendance(grace_for(poll_interval))
        self._declared = declared
        self._read = lru_cache(maxsize=_TIMETABLES)(queue.timetables.read)
        self._clock = ClockWatch(queue.broker.now)
        self._put_off: dict[tuple[str, int], float] = {}
        """Schedules that cannot be read, or that others are at, by name and version -> until when."""
        self._refused: dict[str, int] = {}
        """Schedules whose last claim was refused -> the version that was claimed."""
        self._looks = 0
        """At how many of these to look more closely just now, which takes long."""
        self._missed: list[tuple[Schedule, int]] = []
        """Those that have missed ticks, and how many of these they fire, as long as the log has not told."""
        self._told: dict[str, float] = {}
        """Schedules of whose missed ticks it has told -> when to tell again: catching up takes many turns, of several schedulers."""
        self._silent = False

    def run(self, stop: Stop) -> Exit:
        """Fire what is due until *stop* rises."""
        if not hasattr(self._storage, "due_schedules"):
            _log.warning("no schedule fires: the storage keeps none", extra={"fields": {"storage": self._storage.describe()}})
            stop.wait()
        while not stop.level:
            pause = self._poll.total_seconds()
            try:
                pause = self.turn(stop)
                self._silent = False
            except (BrokerError, StorageError) as error:
                if not self._silent:
                    _log.warning("schedules wait: %s", error)
                self._silent = True
            stop.wait(pause)
        return Exit.OK

    def turn(self, stop: Stop) -> float:
        """Do all that is to be done now; gives the seconds until there may be more.

        Raises:
            BrokerError, StorageError: What was not done is found by the next turn, of this or any other.
        """
        self._clock.look()
        if self._declared is not None:
            self._queue.operations.acting_as("scheduler").schedules.synchronise(self._declared)
            self._declared = None
        self._send_again(stop)
        return self._fire_due(stop)

    # Ticks that were claimed, and not sent ---------------------------------------------------------------------------------------------

    def _send_again(self, stop: Stop) -> None:
        while not stop.level:
            now = self._queue.broker.now()
            ticks = self._storage.unsent_ticks(now - RESEND_AFTER, _BATCH)
            old = [one for one in ticks if now - one.claimed_at > _SURELY_KNOWN]
            ended, doubtful = self._look_up(old) if old else (set(), set())
            if ended:
                self._storage.mark_sent([(one.schedule, one.due) for one in old if one.job.id in ended])
            sent = self._send([one for one in ticks if one.job.id not in ended | doubtful], now)
            if sent:
                _log.warning("ticks were claimed and not sent; sent again", extra={"fields": {"ticks": sent}})
            if not (sent or ended) or len(ticks) < _BATCH:
                return

    def _look_up(self, ticks: Sequence[Tick]) -> tuple[set[str], set[str]]:
        """The ids of those jobs that ended long ago and are known to history alone, and of those of which nobody can tell yet.

        They would be made anew: the broker does not know them any more.
        """
        ids = [one.job.id for one in ticks]
        forgotten = [job_id for job_id, job in zip(ids, self._queue.broker.get(ids), strict=True) if job is None]
        is_behind = bool(forgotten) and self._queue.broker.outbox_lag().oldest_age > _RECORDED
        ended = {job_id for job_id in forgotten if self._storage.job_executions(job_id)}
        return ended, set(forgotten) - ended if is_behind else set()

    def _send(self, ticks: Sequence[Tick], now: datetime) -> int:
        return len(send_ticks(self._queue, self._storage, ticks, now=now)) if ticks else 0

    # Schedules that are due ------------------------------------------------------------------------------------------------------------

    def _fire_due(self, stop: Stop) -> float:
        while True:
            self._put_off = {one: until for one, until in self._put_off.items() if until > monotonic()}
            now = self._queue.broker.now()
            coming = self._storage.due_schedules(now + self._poll, _BATCH + len(self._put_off))
            self._attendance.look(now)
            coming = [one for one in coming if (one.name, one.version) not in self._put_off]
            due = [one for one in coming if one.next_run is not None and one.next_run <= now]
            if not due or stop.level:
                next_one = min((one.next_run for one in coming if one.next_run is not None), default=now + self._poll)
                again = min(self._put_off.values(), default=float("inf")) - monotonic()
                return max(min((next_one - now).total_seconds(), again), 0.0)
            self._fire(due[:_BATCH], now, stop)
            # However long there is something due.
            self._clock.look()
            self._send_again(stop)

    def _fire(self, due: Sequence[Schedule], now: datetime, stop: Stop) -> None:
        """Fire what these schedules have due; what cannot be claimed is put off."""
        self._looks = _LOOKS
        busy = unfinished(self._queue, self._storage, [one for one in due if one.overlap == "skip"])
        chains = [_Chain(one, decision) for one in due if (decision := self._decide(one, now, busy=one.name in busy)) is not None]
        self._tell_missed()
        while chains and not stop.level:
            claims = [one.claim(self._queue, now) for one in chains]
            answers = self._storage.claim_ticks(claims)
            won = []
            for chain, claim, is_won in zip(chains, claims, answers, strict=True):
                seen = claim.schedule
                if is_won:
                    self._refused.pop(seen.name, None)
                    won.append((chain, claim))
                    continue
                # Whoever was first has made another version of it, which is not put off. If there is none, the next try looks at what has fired.
                if self._was_refused(seen):
                    self._put_off[seen.name, seen.version] = monotonic() + _AT_IT
                self._refused[seen.name] = seen.version
            self._send([claim.tick for _chain, claim in won if claim.tick is not None], now)
            chains = [chain for chain, claim in won if chain.goes_on(claim)]
            now = self._queue.broker.now() if chains else now

    def _tell_missed(self) -> None:
        now = monotonic()
        fresh = [(schedule, fires) for schedule, fires in self._missed if self._told.get(schedule.name, now) <= now]
        self._missed = []
        self._told |= {schedule.name: now + _TELL_AGAIN for schedule, _fires in fresh}
        for schedule, fires in fresh[:_TOLD_ONE_BY_ONE]:
            facts = {"schedule": schedule.name, "since": rfc3339(schedule.next_run), "misfire": schedule.misfire, "fires": fires}
            _log.warning("ticks were missed", extra={"fields": facts})
        if len(fresh) > _TOLD_ONE_BY_ONE:
            _log.warning("ticks of more schedules were missed", extra={"fields": {"schedules": len(fresh) - _TOLD_ONE_BY_ONE}})

    def _was_refused(self, schedule: Schedule) -> bool:
        """Whether a claim of just this version was."""
        return self._refused.get(schedule.name) == schedule.version

    def _decide(self, schedule: Schedule, now: datetime, *, busy: bool) -> Decision | None:
        try:
            ticks = Ticks(self._read(schedule.expression, schedule.timezone), start=schedule.start, end=schedule.end)
            decision = decide(schedule, ticks, now, self._attendance)
        except Exception as error:  # noqa: BLE001 - a third party's timetable
            known = isinstance(error, InvalidSchedule | PluginError)
            _log.error("schedule %r is due and cannot be read: %s", schedule.name, error, exc_info=None if known else error)
            self._put_off[schedule.name, schedule.version] = monotonic() + _UNREADABLE
            return None
        if self._was_refused(schedule):
            # Nobody else has moved it on. After an edit while the clock was set back, a tick may have become a job already.
            if self._looks == 0:
                self._put_off[schedule.name, schedule.version] = monotonic() + _AT_IT
                return None
            self._looks -= 1
            fired = {tick.due for tick in self._storage.ticks(schedule.name, _KEPT)}
            decision = attrs.evolve(decision, ticks=tuple(one for one in decision.ticks if one not in fired))
        if decision.missed:
            self._missed.append((schedule, len(decision.ticks)))
        if len(decision.ticks) > _IN_A_ROW:
            # Others are due as well.
            decision = attrs.evolve(decision, ticks=decision.ticks[:_IN_A_ROW], next_run=decision.ticks[_IN_A_ROW])
        if busy and decision.ticks:
            _log.info("tick skipped", extra={"fields": {"schedule": schedule.name, "still_running": schedule.last_job_id}})
            decision = attrs.evolve(decision, ticks=())
        return decision


class _Chain:
    """The ticks that one schedule fires one after the other, each claimed from where the one before has left it."""

    def __init__(self, schedule: Schedule, decision: Decision) -> None:
        self._schedule = schedule
        self._ticks: Iterator[datetime] = iter(decision.ticks)
        self._due = next(self._ticks, None)
        self._then = next(self._ticks, None)
        self._last = decision.next_run

    def claim(self, queue: JobQueue, now: datetime) -> Claim:
        """The claim of the next tick; of none where there is none to fire."""
        tick = None
        if self._due is not None:
            try:
                tick = make_tick(queue, self._schedule, self._due, now=now)
            except InvalidJob as error:
                _log.error("schedule %r is due and its job cannot be made: %s", self._schedule.name, error)
        return Claim(schedule=self._schedule, tick=tick, next_run=self._last if self._then is None else self._then)

    def goes_on(self, claimed: Claim) -> bool:
        """Move on after *claimed*; False at the end."""
        # Storage says by how much a claim moves the version, so the schedule need not be read again.
        self._schedule = replace(claimed.schedule, version=claimed.schedule.version + 1, next_run=claimed.next_run)
        self._due, self._then = self._then, next(self._ticks, None)
        return self._due is not None
