"""Taking back what dead workers held, sooner than their leases run out (DESIGN R4)."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import attrs

from jobqueue_core.errors import BrokerError, JobQueueError
from jobqueue_core.reclaimed import announce

if TYPE_CHECKING:
    from jobqueue_core.app import App
    from jobqueue_core.observers import Observers

__all__ = ["LostWorker", "LostWorkers"]

_log = logging.getLogger("jobqueue.supervisor")
_PAUSE: Final = 0.5


@attrs.frozen(kw_only=True)
class LostWorker:
    """A worker that died with leases in hand."""

    worker_id: str
    started: frozenset[str]
    """The ids of jobs whose handlers were running: these count a crash."""
    error: str
    """How it died, for the jobs' ``last_error``."""


class LostWorkers:
    """Reclaims in threads of its own, each with a broker of its own: the supervisor goes on meanwhile.

    Args:
        open_app: Assembles an app; closed when the worker's jobs have been taken back.
        observers: The observers to tell of jobs that have died.
        lease: How long leases last: when twice that has passed, others have taken the jobs back.
        max_crashes: As for ``Upkeep.reclaim``.
    """

    def __init__(self, open_app: Callable[[], App], *, observers: Callable[[], Observers], lease: timedelta, max_crashes: int) -> None:
        self._open_app = open_app
        self._observers = observers
        self._patience = 2 * lease.total_seconds()
        self._max_crashes = max_crashes
        self._threads: list[threading.Thread] = []

    def take_back(self, worker: LostWorker) -> None:
        """Begin to take back what *worker* held."""
        thread = threading.Thread(target=self._persist, args=(worker,), name="jobqueue-reclaim", daemon=True)
        self._threads = [one for one in self._threads if one.is_alive()] + [thread]
        thread.start()

    def join(self, timeout: float) -> None:
        """Wait up to *timeout* seconds for what has begun; leases that run out do the rest."""
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _persist(self, worker: LostWorker) -> None:
        deadline = time.monotonic() + self._patience
        try:
            with self._open_app() as app:
                while True:
                    try:
                        answer = app.broker.reclaim_worker(
                            worker.worker_id, started=worker.started, error=worker.error, max_crashes=self._max_crashes
                        )
                    except BrokerError as error:
                        if time.monotonic() >= deadline:
                            _log.warning("reclaim given up", extra={"fields": {"worker": worker.worker_id, "error": str(error)}})
                            return
                    else:
                        announce(answer, self._observers(), worker_id=worker.worker_id)
                        return
                    time.sleep(_PAUSE)
        except JobQueueError as error:
            _log.error("cannot reclaim", extra={"fields": {"worker": worker.worker_id, "error": str(error)}})
        except Exception:  # noqa: BLE001 - a broker is a third party's code
            _log.exception("cannot reclaim", extra={"fields": {"worker": worker.worker_id}})
