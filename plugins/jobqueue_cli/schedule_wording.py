"""What the commands about schedules say: in which state one is, when it is due, what it has done, and which one was meant."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from jobqueue_cli.clocks import on_both
from jobqueue_core.errors import JobNotFound

if TYPE_CHECKING:
    from jobqueue_cli.session import Cli
    from jobqueue_core.storage import Schedule

__all__ = ["STATES", "due_text", "run_text", "state_of", "suggesting"]

STATES: Final = ("active", "paused", "disabled", "over")
"""``over``: it has no tick any more."""


def state_of(one: Mapping[str, Any]) -> str:
    """Which of :data:`STATES` a schedule, as ``--json`` shows it, is in."""
    if not one["enabled"]:
        return "paused" if one["paused"] else "disabled"
    return "active" if one["next_run"] else "over"


def due_text(schedule: Schedule) -> str:
    """When it is due next, on its clocks and on ours, or why it is not."""
    if not schedule.fires:
        return f"it is {state_of(schedule.to_dict())}, see 'jobqueue schedules resume'"
    if schedule.next_run is None:
        return "it is over, and never due again"
    return f"next {on_both(schedule.next_run, schedule.timezone)}"


def run_text(run: Mapping[str, Any]) -> str:
    """One run, as ``--json`` shows it, in a line."""
    state = run["state"] or ("unknown" if run["sent"] else "on its way")
    words = (run["due"], run["job_id"], state, "by hand" if run["manual"] else None, run["error"])
    return "  ".join(word for word in words if word)


class _UnknownSchedule(JobNotFound):
    """No schedule has that name, and another has nearly that name."""

    def __init__(self, name: str, *, nearly: str) -> None:
        super().__init__("schedule", name)
        self.args = (f"{self}: did you mean {nearly!r}?",)


@contextlib.contextmanager
def suggesting(cli: Cli) -> Iterator[None]:
    """Add to an error about a name that no schedule has which one has nearly that name.

    Raises:
        JobNotFound: The same, saying more.
    """
    try:
        yield
    except JobNotFound as error:
        nearly = difflib.get_close_matches(error.name, [one.name for one in cli.operations.schedules.all()], n=1) if error.what == "schedule" else []
        if not nearly:
            raise
        raise _UnknownSchedule(error.name, nearly=nearly[0]) from error
