"""Wait for a job, and show how it ended."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from jobqueue_core.durations import format_duration
from jobqueue_core.errors import JobNotFound, WaitTimeout
from jobqueue_core.job import Job, JobState, Progress

if TYPE_CHECKING:
    from jobqueue_cli.session import Cli

__all__ = ["show_finished"]

_LOOK: Final = timedelta(milliseconds=500)
_HUNDRED: Final = 100


def show_finished(cli: Cli, job_id: str, *, timeout: timedelta | None) -> None:
    """Wait until a job has finished, showing its progress on a terminal, and show it; exit 1 unless it completed.

    Raises:
        JobNotFound: Nobody knows it.
        WaitTimeout: It had not finished after *timeout*; it goes on.
    """
    job = _wait(cli, job_id, timeout)
    cli.show(job.to_dict())
    if job.state is not JobState.COMPLETED:
        cli.note(f"job {job.id} is {job.state}" + (f": {job.last_error}" if job.last_error else ""))
        cli.fail()


def _wait(cli: Cli, job_id: str, timeout: timedelta | None) -> Job:
    deadline = None if timeout is None else time.monotonic() + timeout.total_seconds()
    with cli.progress(f"job {job_id}") as update:
        while True:
            left = None if deadline is None else timedelta(seconds=max(0.0, deadline - time.monotonic()))
            try:
                return cli.queue.wait(job_id, timeout=_LOOK if left is None else min(_LOOK, left))
            except WaitTimeout as error:
                if timeout is not None and left is not None and left <= _LOOK:
                    job = cli.queue.get(job_id)
                    raise WaitTimeout(f"job {job_id} is still {job.state if job else 'unknown'} after {format_duration(timeout)}") from error
            job = cli.queue.get(job_id)
            if job is None:
                raise JobNotFound("job", job_id)
            progress = job.progress or Progress(0.0)
            update(round(progress.fraction * _HUNDRED), _HUNDRED)
