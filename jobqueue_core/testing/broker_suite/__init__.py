"""The conformance suite for brokers: what ``jobqueue_core.broker`` promises, as tests.

Inherit it and say how to open the broker; ``jobqueue_core.testing`` shows how. Each class in it is one part of the promise.
"""

from __future__ import annotations

from jobqueue_core.testing.broker_suite.arrangement import BrokerArrangement, OpenBroker
from jobqueue_core.testing.broker_suite.control import CancelContract, PauseContract, RequeueContract
from jobqueue_core.testing.broker_suite.enqueue import EnqueueContract, IdempotencyContract
from jobqueue_core.testing.broker_suite.hold import ReclaimContract, ReclaimWorkerContract, RenewContract, ZombieContract
from jobqueue_core.testing.broker_suite.inspection import InspectionContract, QueueContract
from jobqueue_core.testing.broker_suite.lease import LeaseContract, SuspectContract, WaitContract
from jobqueue_core.testing.broker_suite.life import LifeContract
from jobqueue_core.testing.broker_suite.order import DelayContract, OrderContract
from jobqueue_core.testing.broker_suite.outbox import EventContract, OutboxContract
from jobqueue_core.testing.broker_suite.retention import RetentionContract
from jobqueue_core.testing.broker_suite.settle import ReleaseContract, SettleContract
from jobqueue_core.testing.broker_suite.unique import UniqueKeyContract
from jobqueue_core.testing.broker_suite.workers import ReportContract, WorkerContract

__all__ = ["BrokerArrangement", "BrokerSuite", "OpenBroker"]


class BrokerSuite(
    EnqueueContract,
    IdempotencyContract,
    UniqueKeyContract,
    OrderContract,
    DelayContract,
    LeaseContract,
    SuspectContract,
    WaitContract,
    RenewContract,
    ReclaimContract,
    ZombieContract,
    ReclaimWorkerContract,
    SettleContract,
    ReleaseContract,
    CancelContract,
    PauseContract,
    RequeueContract,
    InspectionContract,
    QueueContract,
    WorkerContract,
    ReportContract,
    OutboxContract,
    EventContract,
    RetentionContract,
    LifeContract,
):
    """All that a broker must do. Override ``open_broker``, and ``clock`` if the broker's clock can be injected.

    ``chooses_suspects = False`` says that ``lease`` cannot keep to *suspects*, ``one_id_space = False`` that an id is known within its queue only.
    """
