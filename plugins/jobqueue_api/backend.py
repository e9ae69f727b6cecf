"""The queue behind the API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from .circuit import Guarded

if TYPE_CHECKING:
    from jobqueue_core.app import App
    from jobqueue_core.broker import Broker
    from jobqueue_core.storage import Storage

__all__ = ["Backend", "ping"]

_NOBODY: Final = "00000000-0000-0000-0000-000000000000"
"""The id of no job: what to ask storage for when only the answer matters."""


def ping(storage: Storage) -> None:
    """Ask *storage* something that costs nothing; it may play some roles only.

    Raises:
        StorageUnavailable: No answer.
    """
    if hasattr(storage, "dead_letter"):
        storage.dead_letter(_NOBODY)
    elif hasattr(storage, "job_executions"):
        storage.job_executions(_NOBODY)
    elif hasattr(storage, "schedule"):
        storage.schedule("-")


class Backend:
    """The queue that an app describes.

    A process serves from its start, whether or not broker and storage answer: they are opened when they are first asked, and who asks while they
    are away is told so.

    Args:
        app: Settings and plugins.
    """

    def __init__(self, app: App) -> None:
        broker = cast("Broker", Guarded(lambda: app.broker, lambda broker: broker.now()))
        storage = cast("Storage", Guarded(lambda: app.storage, ping))
        self.queue = app.queue_on(broker, storage)
