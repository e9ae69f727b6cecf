"""The worker: takes jobs, runs their handlers and settles how they ended. A thread for each of these, and one that keeps what is held."""

from jobqueue_core.worker.options import HandlerProcessOptions, WorkerOptions
from jobqueue_core.worker.worker import Worker

__all__ = ["HandlerProcessOptions", "Worker", "WorkerOptions"]
