"""Runners: where handlers run. One file a kind, one protocol for all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from jobqueue_core.worker.run import Run

__all__ = ["Runner"]


class Runner(Protocol):
    """Takes runs from the holdings, runs them, and hands their outcomes back, in threads or tasks of its own.

    The protocol is what the keeper asks of it. How one is started and closed is between it and the worker.
    """

    def stop(self, run: Run) -> None:
        """Ask a run to end early; its context says why (``stop_reason``). Returns at once."""

    def force(self, run: Run) -> bool:
        """End a run that has been asked and has not ended, by whatever means there are; they may be of no use. Returns at once.

        Returns:
            False when it cannot be done at this moment, and is worth another try.
        """

    def replace(self) -> None:
        """Make up for a slot whose handler was written off."""
