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
_UNGUARDED: Final = frozenset({"close", "events", "interrupt"})
"""What may take long although all is well."""


class Circuit:
    """Whether one dependency answers. After a failure one caller at a time tries it, the others are told what that one was.

    Args:
        monotonic: A clock, in seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._failure: BrokerUnavailable | StorageUnavailable | None = None
        self._failed_at = 0.0
        self._is_tried = False

    def call(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """Call *function*, which asks the dependency.

        Raises:
            BrokerUnavailable, StorageUnavailable: It did not answer just now, or a moment ago.
        """
        tries = self._failure is not None and self._begin_trying()
        try:
            answer = function(*args, **options)
        except (BrokerUnavailable, StorageUnavailable) as error:
            self._failure, self._failed_at = error, self._monotonic()
            raise
        except Exception:
            self._failure = None
            raise
        else:
            if self._failure is not None:
                self._failure = None
            return answer
        finally:
            if tries:
                self._is_tried = False

    def _begin_trying(self) -> bool:
        """Whether this caller is the one to try; True unless the dependency has answered meanwhile."""
        with self._lock:
            failure = self._failure
            if failure is None:
                return False
            if self._is_tried or self._monotonic() - self._failed_at < _PAUSE:
                raise _again(failure)
            self._is_tried = True
            return True


def _again(failure: BrokerUnavailable | StorageUnavailable) -> BrokerUnavailable | StorageUnavailable:
    """The failure, for somebody who has not even sent anything."""
    if isinstance(failure, BrokerUnavailable):
        return BrokerUnavailable(str(failure), maybe_accepted=False)
    return type(failure)(str(failure))


class Guarded:
    """A broker or storage behind a circuit: opened by the first call, and again by later ones while it cannot be.

    Args:
        open: Opens it, or gives what is open already.
    """

    def __init__(self, open: Callable[[], Any]) -> None:
        self._open = open
        self._circuit = Circuit()
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
