"""What a job costs the worker itself, on a broker that costs nothing."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import attrs

from .children import measure
from .jobs import new_jobs
from .nullbroker import NullBroker
from .tables import Results, Row, interleaved
from .working import work

if TYPE_CHECKING:
    from .options import Options

__all__ = ["run"]


def work_off(*, handler: str, jobs: int, concurrency: int, busy: bool) -> dict[str, float]:
    """In the child: one run."""
    return work(NullBroker(new_jobs(handler, jobs)), jobs, concurrency=concurrency, busy=busy)


def run(options: Options) -> Results:
    """The table."""
    rows = [Row(str(load), partial(measure, "worker.work_off", jobs=options.jobs, **attrs.asdict(load))) for load in options.loads]
    return interleaved("worker: jobs from memory, no broker", rows, options.repeats)
