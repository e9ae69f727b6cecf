"""Says at once that a broker or storage is away, while it is.

To find that out takes a thread up to five seconds. Where each request found it out anew, a few of them would hold every thread, and the process
could not even say that it lives.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

from jobqueue_core.errors import BrokerUnavailable, StorageUnavailable

__all__ = ["Circuit", "Guarded"]

T = TypeVar("T")

_PAUSE: Final = 1.0
"""Seconds after a failure in which nobody tries again."""
_IN_A_ROW: Final = 3
"""Failures, without an answer between them, after which a dependency counts as away: one request may also take too long by itself."""
_UNGUARDED: Final = frozenset({"close", "events", "interrupt"})
"""What may take long although all is well."""


class Circuit:
    """Whether one dependency answers.

    After some failures in a row it counts as away: callers are told so, and one of them at a time asks whether it is back.

    Args:
        ping: Asks the dependency something that costs nothing: a request that takes too long by itself can then neither hide that it is back, nor
            be made again and again to find out.
        monotonic: A clock, in seconds.
    """

    def __init__(self, ping: Callable[[], object], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._ping = ping
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._failures = 0
        self._failure: BrokerUnavailable | StorageUnavailable | None = None
        """Why it counts as away; None while it does not."""
        self._failed_at = 0.0
        self._is_tried = False

    def call(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """Call *function*, which asks the dependency.

        Raises:
            BrokerUnavailable, StorageUnavailable: It does not answer, or did not a moment ago.
        """
        if self._failure is not None:
            self._find_out()
        try:
            answer = function(*args, **options)
        except (BrokerUnavailable, StorageUnavailable) as error:
            self._failed(error)
            raise
        except Exception:
            self._failures = 0
            raise
        self._failures = 0
        return answer

    def _failed(self, error: BrokerUnavailable | StorageUnavailable) -> None:
        with self._lock:
            self._failures += 1
            if self._failures >= _IN_A_ROW:
                self._failure, self._failed_at = error, self._monotonic()

    def _find_out(self) -> None:
        """Ask whether it is back, unless somebody does so or has done so just now. Raises what it failed with."""
        with self._lock:
            failure = self._failure
            if failure is None:
                return
            if self._is_tried or self._monotonic() - self._failed_at < _PAUSE:
                raise failure.again()
            self._is_tried = True
        try:
            self._ping()
        except (BrokerUnavailable, StorageUnavailable) as error:
            self._failure, self._failed_at = error, self._monotonic()
            raise error.again() from error
        else:
            self._failures, self._failure = 0, None
        finally:
            self._is_tried = False


class Guarded:
    """A broker or storage behind a circuit: opened by the first call, and again by later ones while it cannot be.

    Args:
        open: Opens it, or gives what is open already.
        ping: Asks it something that costs nothing.
    """

    def __init__(self, open: Callable[[], Any], ping: Callable[[Any], object]) -> None:
        self._open = open
        self._circuit = Circuit(lambda: ping(open()))
        self._part: Any = None

    def __getattr__(self, name: str) -> Any:
        if self._part is None:
            self._part = self._circuit.call(self._open)
        value = getattr(self._part, name)
        if not callable(value) or name in _UNGUARDED:
            return value
        guarded = partial(self._circuit.call, value)
        self.__dict__[name] = guarded
        return guarded
