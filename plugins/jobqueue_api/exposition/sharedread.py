"""Reading something that may take long, or not end: never twice at once, and nobody waits longer than he wants to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

__all__ = ["SharedRead"]

T = TypeVar("T")


class SharedRead(Generic[T]):
    """A read in a thread of its own, whose answer goes to everybody who has asked for it by then.

    However many ask a server that hangs, one thread waits for it.

    Args:
        name: What is read, for the thread's name.
        read: Reads it.
    """

    def __init__(self, name: str, read: Callable[[], T]) -> None:
        self._name = name
        self._read = read
        self._lock = threading.Lock()
        self._under_way: Future[T] | None = None

    def ask(self) -> Future[T]:
        """The answer to come, or the error: of the read that is under way, else of one that begins now."""
        with self._lock:
            if self._under_way is None or self._under_way.done():
                answer: Future[T] = Future()
                # A daemon: a process that ends does not wait for a server that hangs.
                threading.Thread(target=self._carry_out, args=[answer], name=f"jobqueue-read-{self._name}", daemon=True).start()
                self._under_way = answer
            return self._under_way

    def _carry_out(self, answer: Future[T]) -> None:
        try:
            answer.set_result(self._read())
        except BaseException as error:  # noqa: BLE001 - whoever waits for the answer raises it
            answer.set_exception(error)
