"""``jobqueue queue`` and ``jobqueue queues``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from jobqueue_cli.rendering import Columns, short_duration
from jobqueue_cli.wording import counted
from jobqueue_core.errors import JobNotFound

if TYPE_CHECKING:
    from jobqueue_cli.session import Cli

__all__ = ["queue", "queues"]


def _depth(one: Mapping[str, Any]) -> str:
    return "/".join(str(count) for count in one["depth"].values())


def _oldest(one: Mapping[str, Any]) -> str:
    return "-" if one["oldest_age"] is None else short_duration(timedelta(seconds=one["oldest_age"]))


def _rate(one: Mapping[str, Any]) -> str:
    return f"{one['rates'].get('completed', 0.0):.1f}/s"


_COLUMNS: Final[Columns] = {
    "QUEUE": "name",
    "PAUSED": "paused",
    "WAITING": "waiting",
    "C/H/M/L": _depth,
    "PROCESSING": "processing",
    "SCHEDULED": "scheduled",
    "RETRYING": "retrying",
    "OLDEST": _oldest,
    "COMPLETED": "totals.completed",
    "FAILED": "totals.failed",
    "DEAD": "totals.dead",
    "RATE": _rate,
}


@click.command()
@click.pass_obj
def queues(cli: Cli) -> None:
    """List the queues in numbers; waiting jobs also by priority: critical/high/medium/low."""
    cli.show_list([one.to_dict() for one in cli.operations.queues()], _COLUMNS)


@click.group()
def queue() -> None:
    """Pause, resume or purge a queue."""


@queue.command()
@click.argument("name")
@click.pass_obj
def pause(cli: Cli, name: str) -> None:
    """Hand out nothing more from a queue; what runs goes on."""
    cli.operations.pause_queue(name)
    cli.answer(_as_it_is(cli, name, paused=True), f"queue {name} is paused")


@queue.command()
@click.argument("name")
@click.pass_obj
def resume(cli: Cli, name: str) -> None:
    """Hand out jobs from a queue again."""
    cli.operations.resume_queue(name)
    cli.answer(_as_it_is(cli, name, paused=False), f"queue {name} is not paused")


@queue.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def purge(cli: Cli, name: str, *, yes: bool) -> None:
    """Cancel all waiting, scheduled and retrying jobs of a queue; what runs goes on."""
    stats = cli.operations.queue(name)
    cli.confirm(f"Cancel {counted(stats.waiting + stats.scheduled + stats.retrying, 'job')} of queue {name}?", yes=yes)
    purged = cli.operations.purge_queue(name)
    cli.answer({"queue": name, "purged": purged}, f"cancelled {counted(purged, 'job')} of queue {name}")


def _as_it_is(cli: Cli, name: str, *, paused: bool) -> Mapping[str, Any]:
    try:
        return cli.operations.queue(name).to_dict()
    except JobNotFound:
        # A queue that has never had a job may be resumed all the same.
        return {"name": name, "paused": paused}
