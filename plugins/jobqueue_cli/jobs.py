"""``jobqueue job`` and ``jobqueue jobs``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from jobqueue_cli.pages import Page, collect
from jobqueue_cli.parameters import DURATION, LIMIT
from jobqueue_cli.waiting import show_finished
from jobqueue_core.broker import JobFilter
from jobqueue_core.job import JobState

if TYPE_CHECKING:
    from jobqueue_cli.rendering import Columns
    from jobqueue_cli.session import Cli

__all__ = ["job", "jobs"]


def _attempt(one: Mapping[str, Any]) -> str:
    return f"{one['attempt']}" if one["max_retries"] is None else f"{one['attempt']}/{one['max_retries'] + 1}"


_COLUMNS: Final[Columns] = {
    "ID": "id",
    "TYPE": "type",
    "QUEUE": "queue",
    "PRIORITY": "priority",
    "STATE": "state",
    "ATTEMPT": _attempt,
    "CREATED": "created_at",
    "DUE": "scheduled_at",
    "ERROR": "last_error",
}
_LOG: Final[Columns] = {"TIME": "at", "RUN": "run", "LEVEL": "level", "MESSAGE": "message"}


@click.command()
@click.option("--state", type=click.Choice([one.value for one in JobState]), help="Only jobs in this state.")
@click.option("--type", "job_type", metavar="TYPE", help="Only jobs of this type.")
@click.option("--queue", metavar="NAME", help="Only jobs of this queue.")
@click.option("--limit", type=LIMIT, default=50, show_default=True, help="At most so many.")
@click.pass_obj
def jobs(cli: Cli, *, state: str | None, job_type: str | None, queue: str | None, limit: int) -> None:
    """List jobs: live ones newest first, then those that finished last."""
    wanted = JobFilter(state=None if state is None else JobState(state), type=job_type, queue=queue)

    def page(cursor: str | None, size: int) -> Page:
        found = cli.operations.jobs(wanted, cursor=cursor, limit=size)
        return Page(objects=[one.to_dict() for one in found.jobs], next=found.next)

    cli.show_list(collect(cli, page, limit), _COLUMNS)


@click.group()
def job() -> None:
    """Show, cancel or wait for one job, or read its log."""


@job.command()
@click.argument("job_id", metavar="ID")
@click.pass_obj
def show(cli: Cli, job_id: str) -> None:
    """Show a job; one that the broker has forgotten, as history remembers it."""
    cli.show(cli.operations.job(job_id).to_dict())


@job.command()
@click.argument("job_id", metavar="ID")
@click.pass_obj
def cancel(cli: Cli, job_id: str) -> None:
    """Cancel a job that waits, or ask a running one to stop."""
    done = cli.operations.cancel_job(job_id)
    text = "cancelled" if done.status == "cancelled" else "is running and was asked to stop"
    cli.answer(done.job.to_dict(), f"job {done.job.id} {text}")


@job.command()
@click.argument("job_id", metavar="ID")
@click.option("--timeout", type=DURATION, help="How long to wait; else until it has finished.")
@click.pass_obj
def wait(cli: Cli, job_id: str, *, timeout: timedelta | None) -> None:
    """Wait until a job has finished and show it; exit 1 unless it completed."""
    show_finished(cli, job_id, timeout=timeout)


@job.command()
@click.argument("job_id", metavar="ID")
@click.pass_obj
def logs(cli: Cli, job_id: str) -> None:
    """Show what a job's handlers logged: its latest 1,000 lines."""
    lines = cli.operations.job_logs(job_id)
    cli.show_list([one.to_dict() for one in lines], _LOG)
