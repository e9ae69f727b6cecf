"""The conformance suite for storages: what ``jobqueue_core.storage`` promises, as tests.

Inherit ``StorageSuite``, or of its parts those whose role the storage plays, and say how to open it::

    class TestMyStorage(StorageSuite):
        @pytest.fixture
        def open_storage(self, tmp_path):
            return lambda: MyStorage(tmp_path / "history")
"""

from __future__ import annotations

from jobqueue_core.testing.storage_suite.arrangement import OpenStorage, StorageArrangement
from jobqueue_core.testing.storage_suite.dead_letters import DeadLetterContract
from jobqueue_core.testing.storage_suite.ends import EndContract
from jobqueue_core.testing.storage_suite.history import HistoryContract
from jobqueue_core.testing.storage_suite.schedules import ScheduleContract
from jobqueue_core.testing.storage_suite.statistics import StatisticsContract
from jobqueue_core.testing.storage_suite.totals import TotalsContract

__all__ = [
    "DeadLetterContract",
    "EndContract",
    "HistoryContract",
    "OpenStorage",
    "ScheduleContract",
    "StatisticsContract",
    "StorageArrangement",
    "StorageSuite",
    "TotalsContract",
]


class StorageSuite(HistoryContract, EndContract, StatisticsContract, TotalsContract, DeadLetterContract, ScheduleContract):
    """All that a storage must do. Override ``open_storage``."""
