"""Lets threads that enqueue at once share round trips: what comes while a batch is under way goes with the next one.

Nobody waits for company: who comes first sends at once, alone. The next batch is sent by one of those who have come meanwhile.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Final

from jobqueue_core.errors import BrokerUnavailable, QueueFull

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jobqueue_core.broker import Enqueued
    from jobqueue_core.job import NewJob

__all__ = ["SharedSend"]

_MAX_BATCH: Final = 200
_MAX_BATCH_BYTES: Final = 1 << 20
_PATIENCE: Final = 0.25
"""Seconds that a job waits for a batch to take it; then it is sent alone, so that a broker that is slow does not delay it twice."""


class _Entry:
    """A job that waits for a batch, then for its answer."""

    __slots__ = ("answer", "batch", "error", "is_led", "job", "told")

    def __init__(self, job: NewJob) -> None:
        self.job = job
        self.told = threading.Lock()
        self.told.acquire()
        self.batch: list[_Entry] | None = None
        """What its thread is to send; None where another one sends it."""
        self.is_led = False
        """Whether its thread has begun to."""
        self.answer: Enqueued | None = None
        self.error: Exception | None = None


class SharedSend:
    """Sends jobs of many threads in batches, one batch at a time.

    Args:
        send: Sends a batch; answers in its order.
    """

    def __init__(self, send: Callable[[list[NewJob]], list[Enqueued]]) -> None:
        self._send = send
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._is_sending = False
        self._waiting: list[_Entry] = []

    def submit(self, job: NewJob) -> Enqueued:
        """Send *job*, perhaps with those of other threads. Raises what sending raises."""
        if self._pid != os.getpid():
            # After a fork: whoever was sending does so in another process.
            self._begin()
        entry = _Entry(job)
        try:
            with self._lock:
                if self._is_sending:
                    self._waiting.append(entry)
                else:
                    self._is_sending = True
                    entry.batch = [entry]
            if entry.batch is None and not self._wait(entry):
                return self._alone(job)
            if entry.batch is not None:
                self._lead(entry.batch)
        except BaseException:
            self._abandon(entry)
            raise
        return self._answered(entry)

    def _abandon(self, entry: _Entry) -> None:
        """Leave no gap where a thread goes away: a signal's handler may raise in it at any moment."""
        with self._lock:
            if entry in self._waiting:
                self._waiting.remove(entry)
        if entry.batch is not None and not entry.is_led:
            self._end(entry.batch)

    def _wait(self, entry: _Entry) -> bool:
        """Wait until *entry* has been answered, or its thread is to send a batch; False when none has taken it in time."""
        if entry.told.acquire(timeout=_PATIENCE):
            return True
        with self._lock:
            if entry in self._waiting:
                self._waiting.remove(entry)
                return False
        entry.told.acquire()
        return True

    def _lead(self, batch: list[_Entry]) -> None:
        """Send *batch*, answer for it, and have the next one sent."""
        batch[0].is_led = True
        try:
            answers = self._send([one.job for one in batch])
            for one, answer in zip(batch, answers, strict=True):
                one.answer = answer
        except Exception as error:  # noqa: BLE001 - each thread is to be told
            for one in batch:
                one.error = error
        finally:
            self._end(batch)

    def _end(self, batch: list[_Entry]) -> None:
        self._hand_over()
        for one in batch[1:]:
            one.told.release()

    def _hand_over(self) -> None:
        with self._lock:
            if not self._waiting:
                self._is_sending = False
                return
            count = _fitting(self._waiting)
            batch, self._waiting = self._waiting[:count], self._waiting[count:]
            batch[0].batch = batch
        batch[0].told.release()

    def _answered(self, entry: _Entry) -> Enqueued:
        error = entry.error
        if error is None and entry.answer is not None:
            return entry.answer
        if entry.batch is not None and len(entry.batch) == 1 and error is not None:
            raise error
        if isinstance(error, BrokerUnavailable):
            raise BrokerUnavailable(str(error), maybe_accepted=error.maybe_accepted) from error
        if isinstance(error, QueueFull):
            raise QueueFull(str(error)) from error
        # Something about a job: each is to fail by its own. Or nobody has sent it, because the thread that was to do so is gone.
        return self._alone(entry.job)

    def _alone(self, job: NewJob) -> Enqueued:
        return self._send([job])[0]


def _fitting(waiting: Sequence[_Entry]) -> int:
    """How many of *waiting* go into one batch; one at least."""
    size = 0
    for count, entry in enumerate(waiting[:_MAX_BATCH]):
        size += len(entry.job.payload_json)
        if size > _MAX_BATCH_BYTES and count:
            return count
    return min(len(waiting), _MAX_BATCH)
