"""The lifespans of handler modules: entered before the first job, left after the last, and named in whatever goes wrong."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractAsyncContextManager

    from jobqueue_core.handlers import Lifespan
    from jobqueue_core.worker.plan import Plan

__all__ = ["Lifespans"]

_log = logging.getLogger("jobqueue.worker")


class Lifespans:
    """Enters and leaves lifespans, one after the other. To be done in one task: context variables and cancel scopes belong to the task that set them.

    Args:
        lifespans: Each with the plans of its module's handlers.
    """

    def __init__(self, lifespans: Iterable[tuple[Lifespan, list[Plan]]]) -> None:
        self._lifespans = list(lifespans)
        self._entered: list[tuple[str, AbstractAsyncContextManager[object]]] = []
        self.current = ""
        """The name of the one that is being entered or left, with its module's; empty when none is."""

    async def enter(self) -> None:
        """Enter them, and give each handler what its lifespan yields.

        Raises:
            Exception: What one raised, with a note of where it comes from. Those that were entered before have been left again.
        """
        for lifespan, plans in self._lifespans:
            self.current = f"{lifespan.__module__}.{getattr(lifespan, '__qualname__', lifespan)}"
            try:
                manager = lifespan()
                resources = await manager.__aenter__()
            except BaseException as error:  # noqa: BLE001 - it is the user's code, and becomes an ordinary error
                failure = _named(error, self.current, "entered")
                await self._leave_after(failure)
                raise failure from failure.__cause__
            self._entered.append((self.current, manager))
            for plan in plans:
                plan.resources = resources
        self.current = ""

    async def leave(self) -> None:
        """Leave those that were entered, the last one first; one that raises keeps none of the others.

        Raises:
            Exception: What the first one raised, with a note of where it comes from; more are logged.
        """
        first: Exception | None = None
        while self._entered:
            name, manager = self._entered.pop()
            self.current = name
            try:
                await manager.__aexit__(None, None, None)
            except BaseException as error:  # noqa: BLE001 - as above
                failure = _named(error, name, "left")
                if first is None:
                    first = failure
                else:
                    _log.exception("a lifespan failed", extra={"fields": {"lifespan": name}})
        self.current = ""
        if first is not None:
            raise first from first.__cause__

    async def _leave_after(self, failure: Exception) -> None:
        try:
            await self.leave()
        except Exception as error:  # noqa: BLE001 - as above
            _log.error("a lifespan failed", exc_info=error, extra={"fields": {"after": str(failure)}})


def _named(error: BaseException, name: str, step: str) -> Exception:
    """*error* with a note of where it comes from; what would end a process or a task in silence becomes an ordinary error."""
    if isinstance(error, Exception):
        named = error
    else:
        named = RuntimeError(f"{type(error).__qualname__}: {error}" if str(error) else type(error).__qualname__)
        named.__cause__ = error
    named.add_note(f"raised by the lifespan {name} when it was {step}")
    return named
