"""The queue behind the API: opened when it is first needed, and again while it cannot be."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from jobqueue_core.errors import BrokerUnavailable, StorageUnavailable

if TYPE_CHECKING:
    from jobqueue_core.app import App
    from jobqueue_core.client import JobQueue

__all__ = ["Backend"]


class Backend:
    """The queue that an app describes.

    A process serves from its start, whether or not broker and storage answer: who asks for the queue while they do not is told so.

    Args:
        app: Settings and plugins.
    """

    def __init__(self, app: App) -> None:
        self.app = app
        self._lock = threading.Lock()
        self._queue: JobQueue | None = None
        self._failure: BrokerUnavailable | StorageUnavailable | None = None
        self._failed_at = 0.0

    @property
    def queue(self) -> JobQueue:
        """The queue.

        Raises:
            BrokerUnavailable, StorageUnavailable: No answer.
            IncompatibleData: Their data are of another release.
            PluginError: What is chosen cannot be used.
        """
        if self._queue is not None:
            return self._queue
        asked_at = time.monotonic()
        with self._lock:
            if self._queue is None:
                # An attempt may take seconds. Who has waited for somebody else's need not make one of their own.
                if self._failure is not None and self._failed_at >= asked_at:
                    raise type(self._failure)(str(self._failure)) from self._failure
                self._queue = self._open()
            return self._queue

    def _open(self) -> JobQueue:
        try:
            return self.app.queue
        except (BrokerUnavailable, StorageUnavailable) as error:
            self._failure, self._failed_at = error, time.monotonic()
            raise
