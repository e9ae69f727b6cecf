"""``jobqueue executions``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import click

from jobqueue_cli.pages import Page, collect
from jobqueue_cli.parameters import LIMIT, MOMENT
from jobqueue_cli.rendering import Columns, short_duration
from jobqueue_core.attempt import Execution, ExecutionState
from jobqueue_core.storage import ExecutionFilter

if TYPE_CHECKING:
    from jobqueue_cli.session import Cli

__all__ = ["executions"]


def _took(one: Mapping[str, Any]) -> str:
    milliseconds = one["duration_ms"]
    return f"{milliseconds:.0f}ms" if milliseconds < 1000 else short_duration(timedelta(milliseconds=milliseconds))


_COLUMNS: Final[Columns] = {
    "JOB": "job_id",
    "RUN": "run",
    "TYPE": "type",
    "QUEUE": "queue",
    "STATE": "state",
    "ATTEMPT": "attempt",
    "FINISHED": "finished_at",
    "TOOK": _took,
    "ERROR": "error",
}


@click.command()
@click.option("--job", "job_id", metavar="ID", help="Only of this job, by run.")
@click.option("--type", "job_type", metavar="TYPE", help="Only of this job type.")
@click.option("--state", type=click.Choice([one.value for one in ExecutionState]), help="Only those that ended so.")
@click.option("--queue", metavar="NAME", help="Only of this queue.")
@click.option("--since", type=MOMENT, metavar="TIME|AGO", help="Only those that ended then or later: a time, or how long ago (1h).")
@click.option("--until", type=MOMENT, metavar="TIME|AGO", help="Only those that ended before.")
@click.option("--limit", type=LIMIT, default=50, show_default=True, help="At most so many.")
@click.pass_obj
def executions(
    cli: Cli,
    *,
    job_id: str | None,
    job_type: str | None,
    state: str | None,
    queue: str | None,
    since: datetime | timedelta | None,
    until: datetime | timedelta | None,
    limit: int,
) -> None:
    """List executions, newest first; those of one job by run."""
    wanted = ExecutionFilter(
        type=job_type,
        queue=queue,
        state=None if state is None else ExecutionState(state),
        since=cli.moment(since),
        until=cli.moment(until),
    )

    def page(cursor: str | None, size: int) -> Page:
        found = cli.operations.executions(wanted, cursor=cursor, limit=size)
        return Page(objects=[one.to_dict() for one in found.executions], next=found.next)

    if job_id is None:
        cli.show_list(collect(cli, page, limit), _COLUMNS)
        return
    of_job = [one.to_dict() for one in cli.operations.job_executions(job_id) if _matches(one, wanted)]
    cli.show_list(of_job[:limit], _COLUMNS)


def _matches(one: Execution, wanted: ExecutionFilter) -> bool:
    return (
        wanted.type in (None, one.type)
        and wanted.queue in (None, one.queue)
        and wanted.state in (None, one.state)
        and (wanted.since is None or wanted.since <= one.finished_at)
        and (wanted.until is None or one.finished_at < wanted.until)
    )
