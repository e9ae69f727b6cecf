"""What the core itself offers, by the same hooks as any plugin: the roles ``worker`` and ``scheduler``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobqueue_core.hookspecs import hookimpl
from jobqueue_core.service import Service, ServicePlugin

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jobqueue_core.app import App

__all__ = ["jobqueue_services"]


@hookimpl
def jobqueue_services() -> Iterable[ServicePlugin]:
    """The core's roles."""
    return (
        ServicePlugin(
            name="worker",
            summary="runs handlers",
            open=_worker,
            processes=lambda settings: settings.worker.processes,
            records=True,
            by_default=True,
            runs_handlers=True,
        ),
        ServicePlugin(
            name="scheduler",
            summary="makes due jobs available and takes back those of dead workers",
            open=_scheduler,
            records=True,
            by_default=True,
        ),
        ServicePlugin(name="recorder", summary="moves history and dead letters into storage", open=_recorder, internal=True),
    )


def _worker(app: App) -> Service:
    from jobqueue_core.worker import Worker

    return Worker.from_app(app, records=False)


def _scheduler(app: App) -> Service:
    from jobqueue_core.upkeep import UpkeepService

    return UpkeepService(
        app.broker, poll_interval=app.settings.scheduler.poll_interval, max_crashes=app.settings.job.max_crashes, observers=app.observers
    )


def _recorder(app: App) -> Service:
    from jobqueue_core.recorder import Recorder

    history = app.settings.history
    return Recorder(broker=app.broker, storage=app.storage, record=history.record, retention=history.retention)
