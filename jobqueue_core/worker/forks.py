"""Copies of the worker that a handler makes with ``os.fork`` and lets return: they must not go on being one."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobqueue_core.worker.holdings import Run

__all__ = ["end_if_copy"]

_log = logging.getLogger("jobqueue.worker")


def end_if_copy(worker_pid: int, run: Run) -> None:
    """End this process if it is not the worker's, but a copy of it in which the handler of *run* has returned.

    It would run what is buffered a second time, and clear the slots of the worker's own table.

    Args:
        worker_pid: The worker's process.
        run: What its handler was forked from.
    """
    if os.getpid() == worker_pid:
        return
    job = run.lease.job
    facts = {"job_id": job.id, "type": job.type, "run": job.run, "pid": os.getpid()}
    _log.warning("a handler has forked and let the copy return: the copy ends here; end it by os._exit(), or use subprocess", extra={"fields": facts})
    os._exit(0)
