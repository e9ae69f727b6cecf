"""Metrics for Prometheus, made from what broker and storage know when somebody asks: no process keeps a count of its own.

So they are the same whichever process of however many answers, and nothing is lost when one ends. What cannot be known is left out: never
a zero in its place.
"""

from __future__ import annotations

import gzip
import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from datetime import timedelta
from time import monotonic
from typing import TYPE_CHECKING, Final, TypeVar

import attrs
from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder, gzip_accepted
from prometheus_client.registry import Collector

from jobqueue_core.errors import JobQueueError

from .facts import read_broker, read_storage
from .families import Families
from .sharedread import SharedRead

if TYPE_CHECKING:
    from jobqueue_core.app import App

__all__ = ["Exposition", "Scrape"]

_log = logging.getLogger("jobqueue.api")
_PATIENCE: Final = timedelta(seconds=4)
"""It leaves one second to write the answer, of the five in which there must be one."""
_COMPRESSION: Final = 1
"""Lines that resemble each other shrink to a tenth at the least effort."""

T = TypeVar("T")


@attrs.frozen
class Scrape:
    """An answer to whoever scrapes."""

    data: bytes
    content_type: str
    headers: Mapping[str, str]


@attrs.frozen
class _Metrics(Collector):
    """Metrics as they were at one time."""

    families: tuple[Metric, ...]

    def collect(self) -> tuple[Metric, ...]:
        return self.families


class Exposition:
    """The metrics of an installation.

    Scrapes at once share what is read.

    Args:
        app: What is asked for broker and storage at each scrape: they may be away when this is made.
        patience: How long they are waited for, both at once.
    """

    def __init__(self, app: App, *, patience: timedelta = _PATIENCE) -> None:
        settings = app.settings
        self._patience = patience
        self._families = Families(namespace=settings.run.namespace, broker=settings.broker.plugin, storage=settings.storage.plugin)
        self._broker = SharedRead("broker", lambda: read_broker(app.broker))
        self._storage = SharedRead("storage", lambda: read_storage(app.storage))

    def scrape(self, accept: str | None, accept_encoding: str | None) -> Scrape:
        """The metrics as they are now, within five seconds.

        Args:
            accept: The request's header ``Accept``: OpenMetrics for whoever prefers it, else Prometheus' own text.
            accept_encoding: Likewise ``Accept-Encoding``: compressed for whoever takes gzip.
        """
        try:
            encode, content_type = choose_encoder(accept or "")
        except TypeError:  # what it makes of a version that is no number
            encode, content_type = choose_encoder("")
        data = encode(_Metrics(tuple(self._collect())))
        headers = {"Vary": "Accept, Accept-Encoding"}
        if gzip_accepted(accept_encoding or ""):
            data = gzip.compress(data, _COMPRESSION)
            headers["Content-Encoding"] = "gzip"
        return Scrape(data, content_type, headers)

    def _collect(self) -> Iterator[Metric]:
        answers = self._broker.ask(), self._storage.ask()
        deadline = monotonic() + self._patience.total_seconds()
        return self._families.of(_known("broker", answers[0], deadline), _known("storage", answers[1], deadline))


def _known(name: str, answer: Future[T], deadline: float) -> T | None:
    """The answer, if there is one by then."""
    try:
        return answer.result(timeout=max(deadline - monotonic(), 0))
    except TimeoutError:
        _log.warning("metrics without %s: it does not answer in time", name)
    except JobQueueError as error:
        _log.warning("metrics without %s: %s", name, error)
    return None
