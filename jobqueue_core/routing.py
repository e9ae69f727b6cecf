"""Where jobs of a type go when neither the producer nor a local handler says: what running workers have published."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from jobqueue_core.errors import BrokerUnavailable

if TYPE_CHECKING:
    from jobqueue_core.broker import Inspection, TypeInfo
    from jobqueue_core.job import Priority
    from jobqueue_core.requests import Routing

__all__ = ["PublishedTypes", "Routes"]

_FRESH_FOR: Final = 5.0


class PublishedTypes:
    """Routing by the types that workers publish, asked for at most every five seconds."""

    def __init__(self, broker: Inspection) -> None:
        self._broker = broker
        self._lock = threading.Lock()
        self._types: dict[str, TypeInfo] = {}
        self._read_at = float("-inf")
        self._failed_at = float("-inf")
        self._failure = ""

    def route(self, job_type: str) -> tuple[str | None, Priority | None]:
        """The queue and priority that workers have published for *job_type*."""
        asked_at = time.monotonic()
        if asked_at - self._read_at > _FRESH_FOR:
            with self._lock:
                # Whoever waited for another's question has its answer, or its failure: asking one after the other would take each 5 s longer.
                if self._failed_at >= asked_at:
                    raise BrokerUnavailable(self._failure, maybe_accepted=False)
                if self._read_at < asked_at:
                    self._read()
        published = self._types.get(job_type)
        return (None, None) if published is None else (published.queue, published.priority)

    def _read(self) -> None:
        try:
            types = self._broker.types()
        except BrokerUnavailable as error:
            # A job of an unknown route must not go to the wrong queue; and it cannot be sent now anyway.
            self._failure = f"cannot ask which queue the job type belongs to: {error}"
            self._failed_at = time.monotonic()
            raise BrokerUnavailable(self._failure, maybe_accepted=False) from error
        self._types = {name: one for one in types for name in (one.type, *one.aliases)}
        self._read_at = time.monotonic()


class Routes:
    """Several routings, the first that knows winning for queue and priority each."""

    def __init__(self, *routings: Routing) -> None:
        self._routings = routings

    def route(self, job_type: str) -> tuple[str | None, Priority | None]:
        """The first queue and the first priority that any of them declares."""
        queue: str | None = None
        priority: Priority | None = None
        for routing in self._routings:
            found_queue, found_priority = routing.route(job_type)
            queue, priority = queue or found_queue, priority or found_priority
            if queue is not None and priority is not None:
                break
        return queue, priority
