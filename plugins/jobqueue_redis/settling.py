"""Ends of leases: outcomes, jobs given back, jobs lost with their worker; and what running jobs say of themselves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar

import attrs
import msgspec
from msgspec.structs import replace

from jobqueue_core import lifecycle
from jobqueue_core.attempt import Completed, DeadLetter, Execution, LogLine, Release, Report, Retrying, Settlement, Snoozed
from jobqueue_core.errors import QueueFull
from jobqueue_core.job import Job, JobState, Progress
from jobqueue_core.printable import printable, writable

from .steps import steps
from .values import EPOCH, extra, rest_of

if TYPE_CHECKING:
    from .keys import Shard
    from .link import Link

Call = TypeVar("Call", Settlement, Release)

__all__ = ["End", "Handed", "Settling"]

_log = logging.getLogger("jobqueue.redis")
_MICROSECOND: Final = timedelta(microseconds=1)
_NONE: Final = timedelta(0)
_LONGEST: Final = timedelta(days=10_000)
"""A longer delay could not be told from an instant (``values``): 27 years will do."""
_MAX_LINES: Final = 1_000
_MOST_ITEMS: Final = 500
"""How many items one script takes: about 4 ms of the server's time."""
_LOST, _DONE, _TO_STOP = 0, 1, 2
_WHAT: Final = {
    JobState.COMPLETED: b"c",
    JobState.DEAD: b"d",
    JobState.CANCELLED: b"x",
    JobState.RETRYING: b"t",
    JobState.SCHEDULED: b"s",
    JobState.QUEUED: b"r",
}

_encoder = msgspec.msgpack.Encoder()


class Handed(msgspec.Struct, frozen=True):
    """What this process remembers of a lease it was handed."""

    job_id: str
    keeps: bool
    """Whether the job's record is kept for its idempotency key."""


class End(msgspec.Struct, frozen=True):
    """What becomes of a leased job, computed as if the time were ``EPOCH``; the script makes it so if the lease holds."""

    token: str
    job: Job
    """The job afterwards."""
    keeps: bool
    delay: timedelta = timedelta(0)
    execution: Execution | None = None
    dead_letter: DeadLetter | None = None
    silent_ms: int | None = None
    """Only if the holder has been silent so long."""


class Settling:
    """Ends leases. Shared by everything that does, so that each does it in the same way.

    Args:
        link: The server.
        ttl_ms: How long finished jobs are kept.
        max_pending: Most executions that wait for storage.
    """

    def __init__(self, link: Link, *, ttl_ms: int, max_pending: int) -> None:
        self._link = link
        self._ttl_ms = ttl_ms
        self._max_pending = max_pending
        self.handed: dict[str, Handed] = {}
        """The leases this process was handed and has not ended, by token."""
        self._progress: dict[str, Progress] = {}
        self.listening = False
        """Whether someone listens to events, as far as is known."""
        self._told_full = False

    # The worker's calls ----------------------------------------------------------------------------------------------------------------

    def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        """See ``Consumer.settle``."""
        return self._carry_out(settlements, self._conclude, tells=True)

    def release(self, releases: Sequence[Release]) -> list[bool]:
        """See ``Consumer.release``."""
        return self._carry_out(releases, self._give_back, tells=False)

    def report(self, reports: Sequence[Report]) -> None:
        """See ``Consumer.report``. A full server keeps nothing of it: that must not keep jobs from ending."""
        try:
            for some in steps(reports, 100):
                self._report(some)
        except QueueFull as error:
            if not self._told_full:
                _log.warning("progress and log lines of running jobs are dropped: %s", error)
            self._told_full = True
        else:
            self._told_full = False

    # Ends ------------------------------------------------------------------------------------------------------------------------------

    def end(self, ends: Sequence[End], *, event: str | None = None, quiet_us: int | None = None) -> list[int]:
        """Carry out *ends*; for each 1 when it was done now or before, 0 when the lease is lost, 2 when the job is to be cancelled instead.

        Args:
            ends: What is to become of which lease.
            event: What to call it to those who listen; None to tell nobody.
            quiet_us: As ``Link.call`` takes it.
        """
        answers = [_LOST] * len(ends)
        by_queue: dict[str, list[int]] = {}
        for index, end in enumerate(ends):
            by_queue.setdefault(end.job.queue, []).append(index)
        by_shard: dict[Shard, list[int]] = {}
        for queue, of_queue in by_queue.items():
            by_shard.setdefault(self._link.shard_of(queue), []).extend(of_queue)
        for shard, all_indexes in by_shard.items():
            for indexes in steps(all_indexes, _MOST_ITEMS, size=lambda index: _size(ends[index].job)):
                for index, answer in zip(*self._end(shard, indexes, ends, event, quiet_us), strict=True):
                    answers[index] = answer
        return answers

    def _carry_out(self, calls: Sequence[Call], make: Callable[..., End], *, tells: bool) -> list[bool]:
        event = "settled" if tells else None
        handed = self.handed
        ours = [call for call in calls if call.lease.token in handed or _is_token(call.lease.token)]
        answers = self.end([make(call, stops=False) for call in ours], event=event)
        # Where someone has asked for a cancel, and where it may have been carried out as one by an earlier call whose answer was lost.
        again = [n for n, answer in enumerate(answers) if answer == _TO_STOP or (answer == _LOST and not _completes(ours[n]))]
        if again:
            for n, answer in zip(again, self.end([make(ours[n], stops=True) for n in again], event=event), strict=True):
                answers[n] = answer
        done = {call.lease.token: answer == _DONE for call, answer in zip(ours, answers, strict=True)}
        for token in done:
            handed.pop(token, None)
            self._progress.pop(token, None)
        return [done.get(call.lease.token, False) for call in calls]

    def _conclude(self, settlement: Settlement, *, stops: bool) -> End:
        lease = settlement.lease
        job = lease.job
        outcome = writable(settlement.outcome)
        if isinstance(outcome, (Retrying, Snoozed)) and outcome.delay > _LONGEST:
            outcome = attrs.evolve(outcome, delay=_LONGEST)
        if self._progress and (progress := self._progress.get(lease.token)) is not None:
            job = replace(job, progress=progress)
        conclusion = lifecycle.conclude(
            job,
            outcome,
            now=EPOCH,
            duration=settlement.duration,
            cancel_requested=stops,
            max_retries=settlement.max_retries,
        )
        after = conclusion.job
        # A retry or snooze has just been given its time; what stood there before does not matter to others.
        delay = after.scheduled_at - EPOCH if after.scheduled_at is not None else _NONE
        return End(lease.token, after, self._keeps(lease.token), delay, conclusion.execution, conclusion.dead_letter)

    def _give_back(self, release: Release, *, stops: bool) -> End:
        change = lifecycle.park if release.unknown_type else lifecycle.give_back
        delay = min(release.delay, _LONGEST)
        after = change(release.lease.job, now=EPOCH, delay=delay, cancel_requested=stops)
        return End(release.lease.token, after, self._keeps(release.lease.token), delay)

    def _keeps(self, token: str) -> bool:
        handed = self.handed.get(token)
        return handed is not None and handed.keeps

    # Sending ---------------------------------------------------------------------------------------------------------------------------

    def _end(self, shard: Shard, indexes: Sequence[int], ends: Sequence[End], event: str | None, quiet_us: int | None) -> tuple[list[int], list[int]]:
        """Carry out some ends of one shard; the indexes in the order in which they were sent, and the answers."""
        groups: dict[tuple[str, int | None], list[tuple[int, str]]] = {}
        for index in indexes:
            end = ends[index]
            code, _, entry = end.token.partition(" ")
            groups.setdefault((code, end.silent_ms), []).append((index, entry))
        order = [index for group in groups.values() for index, _ in group]
        executions = [ends[index].execution for index in order]
        rows = [execution for execution in executions if execution is not None]
        numbers = b"" if len(rows) == len(executions) else ",".join(str(n) for n, one in enumerate(executions, 1) if one is not None)
        letters: list[bytes | int] = []
        for n, index in enumerate(order, 1):
            if (letter := ends[index].dead_letter) is not None:
                letters += (n, _encoder.encode(letter))
        items: list[bytes | str | int] = []
        for (code, silent_ms), group in groups.items():
            items += (code, len(group), b"" if silent_ms is None else silent_ms)
            for index, entry in group:
                items += _item(entry, ends[index])
        while True:
            told, heard = self._event(event, order, ends)
            reply = self._link.call(
                "settle",
                shard,
                self._ttl_ms,
                self._max_pending,
                _encoder.encode(rows) if rows else b"",
                numbers,
                told,
                heard,
                len(letters) // 2,
                *letters,
                *items,
                quiet_us=quiet_us,
            )
            if reply != b"listening":
                self.listening = bool(reply[0])
                return order, reply[1]
            self.listening = True

    def _event(self, event: str | None, order: Sequence[int], ends: Sequence[End]) -> tuple[bytes, bytes]:
        """The event as it is sent, and whether the script may ask for one."""
        if event is None:
            return b"", b"-"
        if not self.listening:
            return b"", b"0"
        jobs = [ends[index].job for index in order]
        data = {"jobs": [{"id": job.id, "type": job.type, "queue": job.queue, "state": job.state.value} for job in jobs]}
        return _encoder.encode([event, data]), b"1"

    def _report(self, reports: Sequence[Report]) -> None:
        by_shard: dict[Shard, list[bytes | str | int]] = {}
        for one in reports:
            if not _is_token(one.lease.token):
                continue
            code, _, entry = one.lease.token.partition(" ")
            progress = b""
            if one.progress is not None:
                kept = Progress(one.progress.fraction, None if one.progress.message is None else printable(one.progress.message))
                progress = _encoder.encode(kept)
                self._progress[one.lease.token] = kept
            lines = [_encoder.encode(LogLine(line.at, line.run, line.level, printable(line.message))) for line in one.lines[-_MAX_LINES:]]
            by_shard.setdefault(self._link.shard_of(one.lease.job.queue), []).extend((code, entry, one.lease.job.id, progress, len(lines), *lines))
        for shard, items in by_shard.items():
            self._link.call("report", shard, _MAX_LINES, *items)


def _item(entry: str, end: End) -> tuple[str, bytes, str, bytes | int, bytes]:
    job = end.job
    what = _WHAT[job.state]
    more: bytes | int = b""
    if what in b"cdx":
        more = extra(job, keeps=end.keeps)
    elif what != b"r":
        more = end.delay // _MICROSECOND
    return entry, what, job.id, more, rest_of(job, keeps=end.keeps)


def _size(job: Job) -> int:
    return len(job.payload_json) + len(job.result_json or b"")


def _completes(call: Settlement | Release) -> bool:
    return isinstance(call, Settlement) and isinstance(call.outcome, Completed)


def _is_token(token: str) -> bool:
    """Whether *token* is of this broker: one of another names no lease here."""
    code, _, entry = token.partition(" ")
    return len(code) > 2 and code[0] in "sru" and code[1] in "0123" and entry.replace("-", "", 1).isdecimal()
