"""The SQLite broker keeps every promise of ``jobqueue_core.broker``."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jobqueue_core.testing import BrokerSuite, ManualClock
from jobqueue_sqlite.broker import SqliteBroker

if TYPE_CHECKING:
    from jobqueue_core.broker import Broker
    from jobqueue_core.testing.broker_suite import OpenBroker


class TestSqliteBroker(BrokerSuite):
    """One file, several broker objects on it, and a clock that stands still until it is moved."""

    @pytest.fixture
    def clock(self) -> ManualClock:
        """The clock of all brokers of one test."""
        return ManualClock()

    @pytest.fixture
    def open_broker(self, tmp_path: Path, clock: ManualClock) -> OpenBroker:
        """Open one more broker on the test's file."""

        def open_broker(*, result_ttl: timedelta = timedelta(days=1), max_pending: int = 1_000_000) -> Broker:
            return SqliteBroker(tmp_path / "jobqueue.db", result_ttl=result_ttl, max_pending=max_pending, clock=clock)

        return open_broker
