"""The queue behind the API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from .circuit import Guarded

if TYPE_CHECKING:
    from jobqueue_core.app import App
    from jobqueue_core.broker import Broker
    from jobqueue_core.storage import Storage

__all__ = ["NOBODY", "Backend"]

NOBODY: Final = "00000000-0000-0000-0000-000000000000"
"""The id of no job: what to ask storage for when only the answer matters."""


class Backend:
    """The queue that an app describes.

    A process serves from its start, whether or not broker and storage answer: they are opened when they are first asked, and who asks while they
    are away is told so.

    Args:
        app: Settings and plugins.
    """

    def __init__(self, app: App) -> None:
        broker = cast("Broker", Guarded(lambda: app.broker, lambda broker: broker.now()))
        storage = cast("Storage", Guarded(lambda: app.storage, lambda storage: storage.dead_letter(NOBODY)))
        self.queue = app.queue_on(broker, storage)
