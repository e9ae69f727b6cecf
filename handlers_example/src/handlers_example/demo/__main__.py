# ruff: noqa: T201 - it talks to a person
"""The demonstration: start a worker, enqueue some jobs, watch them, stop the worker."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from handlers_example.demo.display import display, table
from handlers_example.demo.plan import Step, plan
from handlers_example.demo.service import Service, ServiceError, write_config
from jobqueue_core import Job, JobQueue, JobQueueError, JobState

POLL: Final = 0.05
"""Seconds."""
PATIENCE: Final = 60.0
"""Seconds without any change after which something must be wrong."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration; 0 if every job ended as expected, 1 if not, 2 for wrong usage, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="python -m handlers_example.demo", description="Start a worker, run some jobs, show what becomes of them.")
    parser.add_argument("--folder", type=Path, default=Path("jobqueue-demo"), help="for database, config file and log (default: ./jobqueue-demo)")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="files to compute the checksums of (default: ./docs)")
    options = parser.parse_args(arguments)
    if not options.docs.is_dir():
        parser.error(f"{options.docs} is not a folder; name one that has files with --docs")
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.default_int_handler)
    try:
        return demonstrate(options.folder.absolute(), options.docs.absolute())
    except KeyboardInterrupt:
        print("interrupted; jobqueue-run has been stopped", file=sys.stderr)
        return 130
    except (ServiceError, JobQueueError) as error:
        print(error, file=sys.stderr)
        return 1


def demonstrate(folder: Path, docs: Path) -> int:
    """Enqueue the planned jobs, wait for them, report; returns the exit status."""
    config = write_config(folder)
    print(f"Config file: {config}\nLog:         {config.with_name('jobqueue-run.log')}\n", flush=True)
    with JobQueue.from_config(config) as queue, Service(config, os.environ) as service:
        steps = plan(docs)
        finished = watch(queue, service, steps, enqueue(queue, steps))
        status = service.stop()
    rows = list(zip(steps, finished, strict=True))
    print(f"\n{table(rows)}\n")
    surprises = [(step, job) for step, job in rows if job.state is not step.expected]
    for step, job in surprises:
        print(f"{step.type} ({step.label}) should have ended {step.expected}, but is {job.state}")
    if status:
        print(f"jobqueue-run ended with status {status}; its log ends:\n{service.tail()}")
    if surprises or status:
        return 1
    print(closing_words(rows, config))
    return 0


def enqueue(queue: JobQueue, steps: Sequence[Step]) -> list[Job]:
    """Enqueue every step in one go.

    Raises:
        ServiceError: The broker did not take one.
    """
    answers = queue.enqueue_many({"type": step.type, "payload": step.payload} for step in steps)
    jobs = [answer.job for answer in answers if answer.job is not None]
    if len(jobs) < len(steps):
        raise ServiceError("\n".join(answer.problem or answer.status for answer in answers if answer.job is None))
    return jobs


def watch(queue: JobQueue, service: Service, steps: Sequence[Step], jobs: list[Job]) -> list[Job]:
    """Show each change until all jobs have finished; returns them.

    Raises:
        ServiceError: jobqueue-run has ended, or nothing happens any more.
    """
    latest = list(jobs)
    changed = time.monotonic()
    with display(steps) as show:
        while not all(job.state.finished for job in latest):
            service.check()
            for index, known in enumerate(latest):
                job = known if known.state.finished else queue.get(known.id) or known
                if (job.state, job.run) != (known.state, known.run):
                    show(steps[index], job)
                    changed = time.monotonic()
                latest[index] = job
            if time.monotonic() - changed > PATIENCE:
                raise ServiceError(f"nothing has happened for {PATIENCE:.0f} s; {service.log} ends:\n{service.tail()}")
            time.sleep(POLL)
    return latest


def closing_words(rows: Sequence[tuple[Step, Job]], config: Path) -> str:
    """What to try next."""
    command = f"jobqueue -c {shlex.quote(os.path.relpath(config))}"
    dead = next(job for _, job in rows if job.state is JobState.DEAD)
    return f"""\
Every job ended as expected. The one that always fails is in the dead letter queue, with its error:
    {command} dlq show {dead.id}
To try it again, put it back and start a worker (it will fail again, as its payload asks for):
    {command} dlq retry {dead.id}
    jobqueue-run -c {shlex.quote(os.path.relpath(config))}
The e-mail is in {os.path.relpath(config.with_name("maildir"))}."""


if __name__ == "__main__":
    sys.exit(main())
