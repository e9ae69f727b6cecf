"""What a worker holds: jobs leased and not started, running, and finished and not yet settled.

Every thread of the worker meets here, under one lock that is held for a few microseconds at a time. Hand-over is by deque, flag and doorbell:
a bell is rung only for somebody who has said that he waits (WORKER.md, section 7 of the measurements, is where this shape comes from).
"""

from __future__ import annotations

from collections import Counter, deque
from datetime import timedelta
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Final, Literal, Protocol

from jobqueue_core.attempt import Outcome, Release
from jobqueue_core.worker.lock import BriefLock
from jobqueue_core.worker.pace import LONGEST_BUFFER_SECONDS, Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from jobqueue_core.worker.run import Run


__all__ = ["Holdings", "Kind", "StartedJobs"]

Kind = Literal["async", "thread"]

_MAX_LEASE: Final = 200
_NOBODY_WAITS: Final = -1
_WOKEN: Final = 2
_MAX_OUTCOMES: Final = 500
_SUSPECT_DELAY: Final = timedelta(seconds=1)
_LIMITED_DELAY: Final = timedelta(seconds=1)
_LIMITED_PAUSE: Final = 0.02


class StartedJobs(Protocol):
    """A table that outlives this process, in which a supervisor reads which handlers were running when it died (DESIGN R4)."""

    def set(self, slot: int, job_id: str) -> None:
        """Say that *job_id*'s handler has started, in a slot of its own."""

    def clear(self, slot: int) -> None:
        """Say that the handler in *slot* has ended."""


class _Lane:
    """One kind of runner, and what is ready for it."""

    __slots__ = ("idle", "ready", "waker")

    def __init__(self) -> None:
        self.ready: deque[Run] = deque()
        self.idle = 0
        """How many runners wait to be woken."""
        self.waker: Callable[[int], None] | None = None


class Holdings:
    """The worker's books.

    Args:
        concurrency: Most handlers that run at once.
        margin: Seconds before the end of a lease within which nothing is started any more.
        worker_id: Who holds all this.
        table: Where to note what has started.
        ask_again: Ends a wait for jobs, from any thread: more may be had now than was asked for.
    """

    def __init__(
        self,
        *,
        concurrency: int,
        margin: float,
        worker_id: str,
        table: StartedJobs | None = None,
        ask_again: Callable[[], None] = lambda: None,
    ) -> None:
        self._lock = BriefLock()
        self._concurrency = concurrency
        self._margin = margin
        self._worker_id = worker_id
        self._table = table
        self._ask_again = ask_again
        self._slots = list(range(concurrency * 2 + 64))
        self.held: dict[str, Run] = {}
        """Every lease this worker answers for, by token."""
        self.running: dict[str, Run] = {}
        self.written_off: set[Run] = set()
        """Runs that were settled although their handlers had not ended, and still have not."""
        self._lanes: dict[Kind, _Lane] = {"async": _Lane(), "thread": _Lane()}
        self._limited: dict[str, deque[Run]] = {}
        """Runs that wait for one of their type to end, by type."""
        self._active: Counter[str] = Counter()
        self._not_before = 0.0
        """Until when not to lease, by the monotonic clock."""
        self._suspect: Run | None = None
        self._asked_without_suspects = False
        self._outcomes: deque[tuple[Run, Outcome, float]] = deque()
        self._releases: deque[Release] = deque()
        self._unsettled = 0
        """Started and not settled: what a crash would repeat."""
        self._pace = Pace()
        self._starting = True
        self._room_bell: SimpleQueue[None] = SimpleQueue()
        self._room_at = _NOBODY_WAITS
        """With how many jobs buffered the lease thread wants to be rung for."""
        self._settle_bell: SimpleQueue[None] = SimpleQueue()
        self._settler_waits = False

    # The lease thread ------------------------------------------------------------------------------------------------------------------

    def room(self) -> tuple[int, int]:
        """How many jobs to lease now, and how many of them may be suspects."""
        with self._lock:
            suspects = self._suspect is None and not any(run.lease.job.crashes for lane in self._lanes.values() for run in lane.ready)
            self._asked_without_suspects = not suspects
            return self._want(), int(suspects)

    def wait_for_room(self, timeout: float) -> None:
        """Return when there may be room, or after *timeout* seconds."""
        with self._lock:
            if self._want():
                return
            self._room_at = max(self._pace.buffer // 2, self._concurrency)
            timeout = min(timeout, max(self._not_before - monotonic(), 0.0) or timeout)
        _wait(self._room_bell, timeout)
        with self._lock:
            self._room_at = _NOBODY_WAITS

    def _want(self) -> int:
        if not self._starting or len(self._outcomes) > _MAX_OUTCOMES or monotonic() < self._not_before:
            return 0
        buffered = self._buffered()
        free = self._concurrency - len(self.running) - buffered
        cap = self._pace.buffer
        ahead = cap - buffered if buffered <= cap // 2 else 0
        return max(0, min(_MAX_LEASE, max(free, ahead)))

    def _buffered(self) -> int:
        return sum(len(lane.ready) for lane in self._lanes.values())

    def _ring_for_room(self) -> None:
        if self._room_at != _NOBODY_WAITS and self._want():
            self._room_at = _NOBODY_WAITS
            self._room_bell.put(None)

    def add(self, runs: Iterable[Run]) -> None:
        """Take leased jobs in, most urgent first."""
        with self._lock:
            self._pace.measure()
            for run in runs:
                self.held[run.lease.token] = run
                if not self._starting:
                    self._give_back(run)
                    continue
                self._lane_of(run).ready.append(run)
            self._wake()

    def _lane_of(self, run: Run) -> _Lane:
        return self._lanes["async" if run.plan.isolation == "async" else "thread"]

    # The runners -----------------------------------------------------------------------------------------------------------------------

    def serve(self, kind: Kind, waker: Callable[[int], None]) -> None:
        """Say how to wake idle runners of *kind*: *waker* is called with how many, under the lock, and must not block."""
        self._lanes[kind].waker = waker

    def take(self, kind: Kind) -> Run | None:
        """Start the next run of *kind*; None when there is none, and then the caller counts as idle until it is woken."""
        now = monotonic()
        with self._lock:
            run = self._take(self._lanes[kind], now)
            if run is not None:
                self._wake()
            return run

    def swap(self, run: Run, outcome: Outcome) -> Run | None:
        """Note how a run ended and start the next of its kind in its place: :meth:`finish` and :meth:`take` in one step.

        When *run* has been written off, nothing is started and nobody counts as idle: the caller's place was filled.
        """
        now = monotonic()
        with self._lock:
            if run.done:
                self.written_off.discard(run)
                return None
            ask_again = self._end(run, outcome, now)
            following = self._take(self._lane_of(run), now)
            if following is None:
                # The place is free for a runner of the other kind.
                self._wake()
        if ask_again:
            self._ask_again()
        return following

    def _take(self, lane: _Lane, now: float) -> Run | None:
        ready = lane.ready
        while ready and self._may_start():
            run = ready.popleft()
            if run.valid_until - self._margin <= now:
                self._give_back(run)
            elif run.lease.job.crashes and self._suspect is not None:
                self._give_back(run, _SUSPECT_DELAY)
            elif run.plan.concurrency is not None and self._active[run.plan.spec.type] >= run.plan.concurrency:
                self._limit(run)
            else:
                self._start(run, now)
                if len(ready) <= self._room_at:
                    self._ring_for_room()
                return run
        lane.idle += 1
        if self._room_at != _NOBODY_WAITS:
            # What it waited for may be gone from the buffer unstarted: it has to count again.
            self._room_at = _NOBODY_WAITS
            self._room_bell.put(None)
        return None

    def _may_start(self) -> bool:
        return self._starting and len(self.running) < self._concurrency and self._unsettled < self._pace.unsettled(self._concurrency)

    def _start(self, run: Run, now: float) -> None:
        job = run.lease.job
        run.context = run.plan.context(job, self._worker_id)
        run.started_at = now
        self.running[run.lease.token] = run
        self._unsettled += 1
        if job.crashes:
            self._suspect = run
        if run.plan.concurrency is not None:
            self._active[run.plan.spec.type] += 1
        if self._table is not None and self._slots:
            run.slot = self._slots.pop()
            self._table.set(run.slot, job.id)

    def _limit(self, run: Run) -> None:
        waiting = self._limited.setdefault(run.plan.spec.type, deque())
        # As many as may run wait here, so that the next starts without a round trip; more would keep other types out.
        if len(waiting) < (run.plan.concurrency or 1):
            waiting.append(run)
        else:
            # Behind it there may be jobs of other types, for the slots that are free: look for them, but not in a rush.
            self._give_back(run, _LIMITED_DELAY)
            self._not_before = monotonic() + _LIMITED_PAUSE

    def finish(self, run: Run, outcome: Outcome) -> bool:
        """Note how a run ended; False when that was settled before, because the run had been written off."""
        return self._finish(run, outcome, written_off=False)

    def _finish(self, run: Run, outcome: Outcome, *, written_off: bool) -> bool:
        now = monotonic()
        with self._lock:
            if run.done:
                self.written_off.discard(run)
                return False
            if written_off:
                run.written_off = True
                self.written_off.add(run)
            ask_again = self._end(run, outcome, now)
            self._ring_for_room()
            self._wake()
        if ask_again:
            self._ask_again()
        return True

    def _end(self, run: Run, outcome: Outcome, now: float) -> bool:
        """Put a run that has ended with the outcomes; says whether to ask again for jobs."""
        seconds = now - run.started_at
        run.done = True
        self.running.pop(run.lease.token, None)
        self._pace.finished(seconds)
        if run.slot >= 0 and self._table is not None:
            self._table.clear(run.slot)
            self._slots.append(run.slot)
            run.slot = -1
        if run.plan.concurrency is not None:
            self._end_limited(run)
        self._outcomes.append((run, outcome, seconds))
        self._ring_settler()
        if self._suspect is not run:
            return False
        self._suspect = None
        # The lease thread may be waiting for other jobs than those of which one may run now.
        return self._asked_without_suspects

    def _end_limited(self, run: Run) -> None:
        """One more of its type may run: it goes before what is ready."""
        job_type = run.plan.spec.type
        self._active[job_type] -= 1
        waiting = self._limited.get(job_type)
        if waiting:
            self._lane_of(run).ready.appendleft(waiting.popleft())
            if not waiting:
                del self._limited[job_type]

    def _wake(self) -> None:
        """Wake idle runners where they may start something: a few, each of which wakes as many when there is more than it takes.

        So all are at work soon where handlers wait for something, and where they do not, one has done the work before a third is woken.
        """
        room = min(self._concurrency - len(self.running), self._pace.unsettled(self._concurrency) - self._unsettled)
        for lane in self._lanes.values():
            count = min(lane.idle, len(lane.ready), room, _WOKEN)
            if count > 0 and lane.waker is not None:
                lane.idle -= count
                room -= count
                lane.waker(count)

    # The settle thread -----------------------------------------------------------------------------------------------------------------

    def outcomes(self, limit: int) -> list[tuple[Run, Outcome, float]]:
        """Take up to *limit* outcomes, with the seconds each run took."""
        outcomes = self._outcomes
        return [outcomes.popleft() for _ in range(min(limit, len(outcomes)))]

    def releases(self) -> list[Release]:
        """Take what is to be given back."""
        with self._lock:
            taken = list(self._releases)
            self._releases.clear()
        return taken

    def waiting_outcomes(self) -> int:
        """How many outcomes and releases wait to be taken."""
        return len(self._outcomes) + len(self._releases)

    def wait_for_outcomes(self, timeout: float) -> None:
        """Return when there is something to settle or give back, or after *timeout* seconds."""
        with self._lock:
            if self._outcomes or self._releases:
                return
            self._settler_waits = True
        _wait(self._settle_bell, timeout)
        with self._lock:
            self._settler_waits = False

    def ring_settler(self) -> None:
        """End :meth:`wait_for_outcomes`, whatever there is to settle."""
        with self._lock:
            self._ring_settler()

    def settled(self, runs: Sequence[Run], seconds: float) -> None:
        """Forget runs whose outcomes the broker has answered for; that took *seconds*."""
        with self._lock:
            for run in runs:
                self.held.pop(run.lease.token, None)
            self._unsettled -= len(runs)
            self._pace.settled(len(runs), seconds)
            self._wake()
            self._ring_for_room()

    # The keeper ------------------------------------------------------------------------------------------------------------------------

    def snapshot(self) -> list[Run]:
        """Every run that is held and not yet finished: buffered, limited or running."""
        with self._lock:
            return [run for run in self.held.values() if not run.done]

    def leases(self) -> list[Run]:
        """Every run whose lease is held: also the finished ones that are not settled."""
        with self._lock:
            return list(self.held.values())

    def renewed(self, tokens: Iterable[str], *, sent_at: float, valid_until: float) -> None:
        """Note that leases hold until *valid_until*."""
        with self._lock:
            for token in tokens:
                run = self.held.get(token)
                if run is not None:
                    run.renewed_at, run.valid_until = sent_at, valid_until

    def lost(self, tokens: Iterable[str]) -> list[Run]:
        """Drop what was not started of leases that are lost; returns those that run, for the caller to stop."""
        with self._lock:
            runs = [self.held[token] for token in tokens if token in self.held]
            for run in runs:
                if not run.started_at and not run.done:
                    self._forget(run)
            return [run for run in runs if run.lease.token in self.running]

    def give_back(self, runs: Iterable[Run], delay: timedelta = timedelta(0)) -> None:
        """Give back runs that have not started."""
        with self._lock:
            for run in runs:
                if not run.started_at and not run.done and run.lease.token in self.held:
                    self._remove_waiting(run)
                    self._give_back(run, delay)

    def trim(self) -> None:
        """Give back what is buffered beyond what handlers, slower now than when it was leased, will start soon (DESIGN R1)."""
        now = monotonic()
        with self._lock:
            self._pace.measure()
            keep = max(self._concurrency - len(self.running), self._pace.longest_buffer)
            for lane in self._lanes.values():
                for run in list(lane.ready)[keep:]:
                    if now - run.buffered_at >= LONGEST_BUFFER_SECONDS:
                        lane.ready.remove(run)
                        self._give_back(run)

    def settle_unstarted(self, run: Run, outcome: Outcome) -> None:
        """Settle a run whose handler is not there to be started."""
        with self._lock:
            run.done = True
            self.held[run.lease.token] = run
            self._unsettled += 1
            self._outcomes.append((run, outcome, 0.0))
            self._ring_settler()

    def refuse(self, release: Release) -> None:
        """Give back a job for which there is no plan."""
        with self._lock:
            self._releases.append(release)
            self._ring_settler()

    def write_off(self, run: Run, outcome: Outcome) -> bool:
        """Settle a run whose handler does not end; whatever it returns later is dropped. False when it has ended meanwhile."""
        return self._finish(run, outcome, written_off=True)

    def stop_starting(self) -> None:
        """Start nothing more, and give back what has not started."""
        with self._lock:
            self._starting = False
            waiting = [run for run in self.held.values() if not run.started_at and not run.done]
            for lane in self._lanes.values():
                lane.ready.clear()
            self._limited.clear()
            for run in waiting:
                self._give_back(run)
            self._room_bell.put(None)

    def idle(self) -> bool:
        """True when nothing is held and nothing waits to be given back."""
        with self._lock:
            return not self.held and not self._releases and not self._outcomes

    def _give_back(self, run: Run, delay: timedelta = timedelta(0)) -> None:
        self.held.pop(run.lease.token, None)
        self._releases.append(Release(lease=run.lease, delay=delay))
        self._ring_settler()

    def _forget(self, run: Run) -> None:
        self.held.pop(run.lease.token, None)
        self._remove_waiting(run)

    def _remove_waiting(self, run: Run) -> None:
        for queue in (*(lane.ready for lane in self._lanes.values()), *self._limited.values()):
            if run in queue:
                queue.remove(run)

    def _ring_settler(self) -> None:
        if self._settler_waits:
            self._settler_waits = False
            self._settle_bell.put(None)


def _wait(bell: SimpleQueue[None], timeout: float) -> None:
    try:
        bell.get(timeout=timeout)
    except Empty:
        return
