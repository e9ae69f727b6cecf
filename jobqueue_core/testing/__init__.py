"""For tests: a harness that runs handlers through the real worker, the conformance suites that every broker and storage must pass, and clocks.

A plugin's own tests inherit a suite and say how to open what is tested::

    from jobqueue_core.testing import BrokerSuite, ManualClock

    class TestMyBroker(BrokerSuite):
        @pytest.fixture
        def clock(self):
            return ManualClock()          # leave this out if the broker's clock is a server's: the suite then really waits

        @pytest.fixture
        def open_broker(self, tmp_path, clock):
            def open_broker(*, result_ttl=timedelta(days=1), max_pending=1_000_000):
                return MyBroker(tmp_path / "jobs", result_ttl=result_ttl, max_pending=max_pending, clock=clock)
            return open_broker

The names are looked up when they are used: importing this package does not import pytest, which the suites need.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from jobqueue_core.testing.broker_suite import BrokerSuite
    from jobqueue_core.testing.clock import Clock, ManualClock, WaitingClock
    from jobqueue_core.testing.harness import Harness
    from jobqueue_core.testing.storage_suite import StorageSuite

__all__ = ["BrokerSuite", "Clock", "Harness", "ManualClock", "StorageSuite", "WaitingClock"]

_HOMES: Final = {
    "BrokerSuite": "broker_suite",
    "Clock": "clock",
    "Harness": "harness",
    "ManualClock": "clock",
    "StorageSuite": "storage_suite",
    "WaitingClock": "clock",
}


def __getattr__(name: str) -> object:
    """Import what is asked for, not more."""
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
