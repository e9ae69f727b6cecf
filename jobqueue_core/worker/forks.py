"""Copies of the worker that a handler makes with ``os.fork`` and lets return: they must not go on being one."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobqueue_core.job import Job

__all__ = ["end_if_copy"]

_log = logging.getLogger("jobqueue.worker")


def end_if_copy(original_pid: int, job: Job) -> None:
    """End this process if it is not the one that it was, but a copy of it in which the handler of *job* has returned.

    It would run what is buffered a second time, and clear the slots of the worker's own table.

    Args:
        original_pid: The process that called the handler.
        job: The handler's.
    """
    if os.getpid() == original_pid:
        return
    facts = {**job.log_facts(), "pid": os.getpid()}
    _log.warning("a handler has forked and let the copy return: the copy ends here; end it by os._exit(), or use subprocess", extra={"fields": facts})
    os._exit(0)
