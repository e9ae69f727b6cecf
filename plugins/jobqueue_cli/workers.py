"""``jobqueue workers``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

import click

from jobqueue_cli.wording import counted

if TYPE_CHECKING:
    from jobqueue_cli.rendering import Columns
    from jobqueue_cli.session import Cli

__all__ = ["workers"]

_TYPES: Final = 3
"""So many types are named in a worker's row; one that runs hundreds of jobs stays a line."""


def _runs(one: Mapping[str, Any]) -> str:
    types = Counter(job["type"] for job in _longest_first(one["running"]))
    named = [name if count == 1 else f"{name} x{count}" for name, count in list(types.items())[:_TYPES]]
    return ", ".join([*named, *([f"{counted(len(types) - _TYPES, 'more type')}"] if len(types) > _TYPES else [])]) or "-"


def _oldest(one: Mapping[str, Any]) -> str:
    return min((job["started_at"] for job in one["running"]), default="-")


_COLUMNS: Final[Columns] = {
    "NAME": "name",
    "HOST": "host",
    "PID": "pid",
    "VERSION": "version",
    "QUEUES": lambda one: ",".join(one["queues"]),
    "BUSY": lambda one: f"{len(one['running'])}/{one['concurrency']}",
    "RUNS": _runs,
    "OLDEST": _oldest,
    "STARTED": "started_at",
    "BEAT": "last_beat",
    "STOPPING": "stopping",
    "ID": "id",
}
_RUNNING: Final[Columns] = {
    "STARTED": "started_at",
    "JOB": "job_id",
    "TYPE": "type",
    "WORKER": "worker",
    "HOST": "host",
    "PID": "pid",
    "VERSION": "version",
}


@click.command()
@click.option("--running", is_flag=True, help="List the jobs that run instead, the longest first: each with its worker, host and since when.")
@click.pass_obj
def workers(cli: Cli, *, running: bool) -> None:
    """List the workers that live, and what each runs; a beat tells it anew every 5 s.

    A worker that has died is gone at once where its jobqueue-run lives, else within 10 s.
    """
    found = [one.to_dict() for one in cli.operations.workers()]
    if running:
        cli.show_list(_longest_first([job for one in found for job in _jobs_of(one)]), _RUNNING)
    else:
        cli.show_list(found, _COLUMNS)


def _jobs_of(worker: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for job in worker["running"]:
        yield {**job, "worker_id": worker["id"], "worker": worker["name"], **{name: worker[name] for name in ("host", "pid", "version")}}


def _longest_first(jobs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(jobs, key=itemgetter("started_at", "job_id"))
