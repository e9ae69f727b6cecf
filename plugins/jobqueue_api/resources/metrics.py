"""``GET /metrics``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobqueue_api.exposition.exposition import Exposition
from jobqueue_api.http.operation import Call, Document, operation

if TYPE_CHECKING:
    from jobqueue_core.app import App

__all__ = ["Metrics"]


class Metrics:
    """What Prometheus scrapes.

    Args:
        app: Whose broker and storage are asked.
    """

    def __init__(self, app: App) -> None:
        self._exposition = Exposition(app)

    @operation("getMetrics", "Metrics for Prometheus", tag="monitoring", role="read", answers={200: "text/plain"})
    def on_get(self, call: Call[None, None]) -> Document:
        """Queues, workers, executions and schedules in Prometheus' text format; in OpenMetrics for whoever asks for it by `Accept`.

        Answers 200 also while broker or storage are away: `jobqueue_broker_up` or `jobqueue_storage_up` is 0 then, and what they know is left out.
        """
        scrape = self._exposition.scrape(call.request.get_header("Accept"), call.request.get_header("Accept-Encoding"))
        return Document(scrape.data, scrape.content_type, headers=scrape.headers)
