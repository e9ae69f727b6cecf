"""Texts that can be written down: for brokers, which get what handlers raised and logged."""

from __future__ import annotations

import attrs

from jobqueue_core.attempt import Cancelled, Completed, Crashed, Dead, Outcome, Retrying, Returned, Snoozed

__all__ = ["printable", "writable"]


def printable(text: str) -> str:
    """*text* without lone surrogates, which cannot be written down as UTF-8 (names of files may hold them)."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def writable(outcome: Outcome) -> Outcome:
    """*outcome* with texts that can be written down: else it would be refused for ever, and its job never end."""
    match outcome:
        case Completed():
            return outcome
        case Snoozed():
            return outcome if outcome.error is None else attrs.evolve(outcome, error=printable(outcome.error))
        case Cancelled() | Returned() | Crashed():
            return attrs.evolve(outcome, error=printable(outcome.error))
        case Retrying() | Dead():
            traceback = None if outcome.traceback is None else printable(outcome.traceback)
            return attrs.evolve(outcome, error=printable(outcome.error), traceback=traceback)
