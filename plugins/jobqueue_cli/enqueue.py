"""``jobqueue enqueue``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click

from jobqueue_cli.parameters import DURATION, INSTANT, PAYLOAD, Payload, read_metadata
from jobqueue_cli.waiting import show_finished
from jobqueue_core.job import Priority

if TYPE_CHECKING:
    from jobqueue_cli.session import Cli

__all__ = ["enqueue"]

C = TypeVar("C", bound=Callable[..., object])


def _options(function: C) -> C:
    """The client's options, by the client's names where the contract has no other."""
    for option in reversed(
        (
            click.option("--queue", metavar="NAME", help="Where it goes; else where its handler says."),
            click.option("--priority", type=click.Choice([one.value for one in Priority]), help="Likewise."),
            click.option("--delay", type=DURATION, help="Run it that much later."),
            click.option("--at", "scheduled_at", type=INSTANT, help="Run it at that time, given with its offset."),
            click.option("--expires-in", type=DURATION, help="Cancel it if no run has started by then."),
            click.option("--expires-at", type=INSTANT, help="The same as a time."),
            click.option("--max-retries", type=int, help="How often to try again after a failure; else as its handler says."),
            click.option("--timeout", type=DURATION, help="How long one run may take; likewise."),
            click.option("--unique-key", metavar="KEY", help="At most one unfinished job of the queue has it; a duplicate gives back that job."),
            click.option("--unique-for", type=DURATION, help="Hold the key at least that long."),
            click.option("--metadata", multiple=True, metavar="K=V", callback=read_metadata, help="Text to keep with the job; may be repeated."),
            click.option("--id", metavar="UUID", help="An id of yours: repeating the command with it makes no second job."),
        )
    ):
        function = option(function)
    return function


@click.command()
@click.argument("job_type", metavar="TYPE")
@click.option("--payload", type=PAYLOAD, metavar="JSON|@FILE|-", help="Its payload: JSON, a file or stdin; else null.")
@_options
@click.option("--wait", is_flag=True, help="Wait until it has finished and show it; exit 1 unless it completed.")
@click.option("--wait-timeout", type=DURATION, help="How long to wait; implies --wait.")
@click.pass_obj
def enqueue(
    cli: Cli,
    /,
    job_type: str,
    *,
    payload: Payload | None,
    wait: bool,
    wait_timeout: timedelta | None,
    **options: str | int | datetime | timedelta | None,
) -> None:
    """Enqueue one job of TYPE, and say what it is called.

    To a pipe this prints the job's id and nothing else.
    """
    given: dict[str, Any] = {name: value for name, value in options.items() if value not in (None, {})}
    job = cli.queue.enqueue(job_type, None if payload is None else payload.value, **given)
    if wait or wait_timeout is not None:
        show_finished(cli, job.id, timeout=wait_timeout)
        return
    cli.answer(job.to_dict(), job.id)
    cli.hint(f"{job.type} is {job.state} in queue {job.queue} ({job.priority})")
