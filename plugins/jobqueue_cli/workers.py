"""``jobqueue workers``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from jobqueue_cli.rendering import Columns
    from jobqueue_cli.session import Cli

__all__ = ["workers"]

_COLUMNS: Final[Columns] = {
    "ID": "id",
    "NAME": "name",
    "HOST": "host",
    "PID": "pid",
    "VERSION": "version",
    "QUEUES": lambda one: ",".join(one["queues"]),
    "RUNNING": lambda one: f"{len(one['running'])}/{one['concurrency']}",
    "STARTED": "started_at",
    "BEAT": "last_beat",
    "STOPPING": "stopping",
}


@click.command()
@click.pass_obj
def workers(cli: Cli) -> None:
    """List the workers that live: that have said so within 15 s."""
    cli.show_list([one.to_dict() for one in cli.operations.workers()], _COLUMNS)
