"""The SQLite storage keeps every promise of ``jobqueue_core.storage``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jobqueue_core.testing import StorageSuite
from jobqueue_sqlite.storage import SqliteStorage

if TYPE_CHECKING:
    from jobqueue_core.testing.storage_suite import OpenStorage


class TestSqliteStorage(StorageSuite):
    """One file, several storage objects on it."""

    @pytest.fixture
    def open_storage(self, tmp_path: Path) -> OpenStorage:
        """Open one more storage on the test's file."""
        return lambda: SqliteStorage(tmp_path / "jobqueue.db")
