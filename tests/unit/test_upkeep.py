"""Upkeep: what it does after the broker has been away."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import pytest

from jobqueue_core.broker import Reclaimed
from jobqueue_core.errors import BrokerUnavailable
from jobqueue_core.service import Stop
from jobqueue_core.upkeep import UpkeepService


class Chores:
    """An upkeep that notes what is asked of it, and is away as often as told."""

    def __init__(self, away: int) -> None:
        self.away = away
        self.back_at: float | None = None
        self.reclaimed_at: float | None = None
        self.reclaimed = threading.Event()

    def promote(self, limit: int) -> int:
        if self.away:
            self.away -= 1
            raise BrokerUnavailable("away")
        self.back_at = self.back_at or time.monotonic()
        return 0

    def reclaim(self, limit: int, *, max_crashes: int) -> Reclaimed:
        self.reclaimed_at = time.monotonic()
        self.reclaimed.set()
        return Reclaimed()

    def prune(self, limit: int) -> int:
        return 0


@pytest.mark.parametrize(("away", "grace"), [(2, 0.3), (0, 0.0)])
def test_workers_that_live_come_before_reclaim_when_the_broker_is_back(monkeypatch: pytest.MonkeyPatch, away: int, grace: float) -> None:
    monkeypatch.setattr("jobqueue_core.upkeep._AFTER_OUTAGE", 0.3)
    monkeypatch.setattr("jobqueue_core.upkeep._RECLAIM", 0.0)
    chores: Any = Chores(away)
    stop = Stop()
    thread = threading.Thread(target=UpkeepService(chores, poll_interval=timedelta(milliseconds=5), max_crashes=3).run, args=(stop,))
    thread.start()
    assert chores.reclaimed.wait(10)
    stop.request()
    thread.join()
    waited = chores.reclaimed_at - chores.back_at
    assert waited >= grace
    assert away or waited < 0.3
