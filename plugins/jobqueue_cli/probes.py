"""Whether the workers of this host are well: what ``jobqueue doctor --worker`` tells a container's health checks."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from jobqueue_core.broker import WORKER_SHOWN
from jobqueue_core.checks import Check, Finding
from jobqueue_core.durations import format_duration
from jobqueue_core.errors import BrokerUnavailable

if TYPE_CHECKING:
    from jobqueue_core.app import App
    from jobqueue_core.broker import WorkerInfo

__all__ = ["probe"]


def probe(*, live: bool) -> Check:
    """A check of this host's workers.

    Args:
        live: Ask only for what a restart of the container would mend: a broker that is away is no error, nor is a worker that is stopping.
    """
    return Check(name="worker", run=_live if live else _ready)


def _ready(app: App, _fix: bool) -> list[Finding]:  # noqa: FBT001 - the signature of a check
    here = _workers_here(app)
    working = [one for one in here if not one.stopping]
    return [*map(_described, here), *_missing(len(working), "is well and takes jobs", app)]


def _live(app: App, _fix: bool) -> list[Finding]:  # noqa: FBT001 - the signature of a check
    try:
        here = _workers_here(app)
    except BrokerUnavailable as error:
        # Workers wait for the broker to come back; to kill them for it would only take away what they run.
        return [Finding(level="warning", text=f"whether workers live cannot be told: {error}")]
    return [*map(_described, here), *_missing(len(here), "is well", app)]


def _workers_here(app: App) -> list[WorkerInfo]:
    # Of the broker itself: opening storage too would cost time, and storage may be away.
    host = socket.gethostname()
    return [one for one in app.broker.workers() if one.host == host]


def _described(one: WorkerInfo) -> Finding:
    state = "is stopping" if one.stopping else "lives"
    return Finding(level="ok", text=f"worker {one.name} {state} (pid {one.pid}, {len(one.running)} of {one.concurrency} slots busy)")


def _missing(found: int, what: str, app: App) -> list[Finding]:
    wanted = app.settings.worker.processes
    if found >= wanted:
        return []
    host, within = socket.gethostname(), format_duration(WORKER_SHOWN)
    missing = f"no worker of host {host}" if not found else f"only {found} of the {wanted} workers of host {host}"
    text = f"{missing} has said within the last {within} that it {what}"
    return [Finding(level="error", text=text, remedy="see the log of jobqueue-run; if it does not run, start it: jobqueue-run worker")]
