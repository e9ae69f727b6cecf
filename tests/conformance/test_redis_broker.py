"""The Redis broker keeps every promise of ``jobqueue_core.broker``, on each server there is (``tox -e servers``), and on a cluster."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from jobqueue_core.testing import BrokerSuite
from jobqueue_redis.broker import RedisBroker

if TYPE_CHECKING:
    from jobqueue_core.broker import Broker
    from jobqueue_core.testing.broker_suite import OpenBroker


class TestRedisBroker(BrokerSuite):
    """A running server with a namespace for each test; its clock is the server's, so time really passes."""

    @pytest.fixture
    def open_broker(self, redis_url: str, redis_namespace: str) -> OpenBroker:
        """Open one more broker in the test's namespace."""

        def open_broker(*, result_ttl: timedelta = timedelta(days=1), max_pending: int = 1_000_000) -> Broker:
            return RedisBroker(redis_url, namespace=redis_namespace, result_ttl=result_ttl, max_pending=max_pending)

        return open_broker


class TestRedisClusterBroker(BrokerSuite):
    """The same on Redis Cluster, where each queue is a shard."""

    one_id_space = False

    @pytest.fixture
    def open_broker(self, redis_cluster_url: str) -> OpenBroker:
        """Open one more broker in the test's namespace."""
        namespace = f"test-{secrets.token_hex(6)}"

        def open_broker(*, result_ttl: timedelta = timedelta(days=1), max_pending: int = 1_000_000) -> Broker:
            return RedisBroker(redis_cluster_url, namespace=namespace, result_ttl=result_ttl, max_pending=max_pending)

        return open_broker
