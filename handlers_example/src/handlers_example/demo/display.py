# ruff: noqa: T201 - it talks to a person
"""Showing jobs as they run, and what came of them."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

from handlers_example.demo.plan import Step
from jobqueue_core import Job, JobState

Show = Callable[[Step, Job], None]
"""Called with each change that is seen."""


def display(steps: Sequence[Step]) -> AbstractContextManager[Show]:
    """Bars on a terminal where rich is installed, else lines."""
    if sys.stdout.isatty() and importlib.util.find_spec("rich"):
        return bars(steps)
    return lines()


@contextlib.contextmanager
def lines() -> Iterator[Show]:
    """One line for each change."""
    yield lambda step, job: print(describe(step, job), flush=True)


@contextlib.contextmanager
def bars(steps: Sequence[Step]) -> Iterator[Show]:
    """One bar for each job type, and a line for each failure."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()) as progress:
        tasks = {job_type: progress.add_task(job_type, total=total) for job_type, total in Counter(step.type for step in steps).items()}

        def show(step: Step, job: Job) -> None:
            if job.state in (JobState.RETRYING, JobState.DEAD):
                progress.console.print(describe(step, job), markup=False, highlight=False)
            if job.state.finished:
                progress.advance(tasks[step.type])

        yield show


def describe(step: Step, job: Job) -> str:
    """One change of one job, in a line."""
    error = f": {job.last_error}" if job.last_error and job.state is not JobState.COMPLETED else ""
    return f"{step.type} ({step.label}) {job.state}{error}"


def table(rows: Sequence[tuple[Step, Job]]) -> str:
    """What came of each job."""
    cells = [("TYPE", "JOB", "STATE", "RUNS", "LAST RUN", "RESULT")]
    cells += [(step.type, step.label, job.state.value, str(job.run), duration(job), result(job)) for step, job in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join(cut(line, shutil.get_terminal_size(fallback=(160, 24)).columns) for line in lines)


def duration(job: Job) -> str:
    """How long its latest run took."""
    if job.started_at is None or job.completed_at is None:
        return "-"
    return f"{(job.completed_at - job.started_at).total_seconds() * 1000:.0f} ms"


def result(job: Job) -> str:
    """Its result or error, cut short; not the path, which is its label."""
    shown = {name: value for name, value in job.result.items() if name != "path"} if isinstance(job.result, dict) else job.last_error or ""
    text = shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False)
    return cut(text, 70)


def cut(text: str, width: int) -> str:
    """The beginning of *text*, marked where something is left out."""
    return text if len(text) <= width else text[: width - 1] + "…"
