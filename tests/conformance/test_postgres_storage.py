"""The PostgreSQL storage keeps every promise of ``jobqueue_core.storage``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from servers import PostgresPlace

from jobqueue_core.testing import StorageSuite
from jobqueue_postgres.storage import PostgresStorage

if TYPE_CHECKING:
    from jobqueue_core.testing.storage_suite import OpenStorage


class TestPostgresStorage(StorageSuite):
    """One schema, several storage objects on it."""

    @pytest.fixture
    def open_storage(self, postgres_place: PostgresPlace) -> OpenStorage:
        """Open one more storage object on the test's schema."""
        return lambda: PostgresStorage(postgres_place.url, namespace=postgres_place.namespace)


class TestPooledPostgresStorage(StorageSuite):
    """The same behind a transaction pooler, where any transaction may find any session."""

    @pytest.fixture
    def open_storage(self, pooled_place: PostgresPlace) -> OpenStorage:
        """Open one more storage object on the test's schema."""
        return lambda: PostgresStorage(pooled_place.url, namespace=pooled_place.namespace, pooled=True)
