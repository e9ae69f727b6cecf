"""Ends handlers that have a process of their own. The handler threads start and await them (``threads.py``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobqueue_core.service import Stop
    from jobqueue_core.worker.isolation.pool import HandlerProcesses
    from jobqueue_core.worker.run import Run
    from jobqueue_core.worker.runners.threads import ThreadRunner

__all__ = ["ProcessRunner"]


class ProcessRunner:
    """Handler processes as a runner."""

    def __init__(self, processes: HandlerProcesses, threads: ThreadRunner) -> None:
        self._processes = processes
        self._threads = threads

    def start(self, stop: Stop) -> None:
        """Start the first process, unless *stop* rises first. Raises CannotStart when it cannot run handlers."""
        self._processes.start(lambda: stop.level)

    def stop(self, run: Run) -> None:
        """Ask the handler: ``ctx.cancelled`` is set in its process, and an ``async def`` is cancelled."""
        if run.context is not None and run.context.stop_reason is not None:
            self._processes.ask(run.context, run.context.stop_reason)

    def force(self, run: Run) -> bool:
        """Kill the process, and all that its handler has started."""
        return run.context is None or self._processes.kill(run.context)

    def replace(self) -> None:
        """Make up for the thread that waits for a process which cannot even be killed."""
        self._threads.replace()

    def close(self) -> bool:
        """Let idle processes leave their lifespans, and kill the others; False when one did not end in order."""
        return self._processes.close()
