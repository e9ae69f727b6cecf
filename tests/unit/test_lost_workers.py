from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import timedelta
from typing import Any, Self

import attrs
import pytest

from jobqueue_core.broker import Reclaimed
from jobqueue_core.errors import BrokerUnavailable, PluginError
from jobqueue_core.observers import Observers
from jobqueue_core.supervision.lostworkers import LostWorker, LostWorkers
from jobqueue_core.testing.factories import dead_letter

WORKER = LostWorker(worker_id="w1", started=frozenset({"j1"}), error="worker lost: killed by SIGKILL")


@attrs.define
class FakeBroker:
    answers: list[Reclaimed | Exception]
    calls: list[tuple[str, Collection[str], str, int]] = attrs.field(factory=list)

    def reclaim_worker(self, worker_id: str, *, started: Collection[str], error: str, max_crashes: int) -> Reclaimed:
        self.calls.append((worker_id, started, error, max_crashes))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@attrs.define
class FakeApp:
    broker: FakeBroker
    closed: bool = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.closed = True


def take_back(app: Any, *, lease: timedelta = timedelta(minutes=1)) -> None:
    lost = LostWorkers(lambda: app, observers=Observers, lease=lease, max_crashes=3)
    lost.take_back(WORKER)
    lost.join(20.0)


def test_what_had_started_is_passed_on_and_the_broker_closed() -> None:
    app = FakeApp(FakeBroker([Reclaimed(requeued=2)]))

    take_back(app)

    assert app.broker.calls == [("w1", frozenset({"j1"}), "worker lost: killed by SIGKILL", 3)]
    assert app.closed


def test_dead_letters_are_logged_as_warnings(caplog: pytest.LogCaptureFixture) -> None:
    letter = dead_letter(error="worker lost")

    with caplog.at_level(logging.INFO, "jobqueue"):
        take_back(FakeApp(FakeBroker([Reclaimed(dead=1, dead_letters=(letter,))])))

    (line,) = [one for one in caplog.records if one.getMessage() == "worker_lost"]
    assert line.levelno == logging.WARNING
    assert line.__dict__["fields"]["job_id"] == letter.job.id
    assert "payload" not in line.__dict__["fields"]


def test_it_is_tried_again_until_the_broker_answers() -> None:
    app = FakeApp(FakeBroker([BrokerUnavailable("away"), Reclaimed()]))

    take_back(app)

    assert len(app.broker.calls) == 2


def test_it_is_given_up_when_the_leases_have_long_run_out(caplog: pytest.LogCaptureFixture) -> None:
    app = FakeApp(FakeBroker([BrokerUnavailable("away")]))

    take_back(app, lease=timedelta(milliseconds=10))

    assert app.closed
    assert "reclaim given up" in caplog.messages


@pytest.mark.parametrize("error", [PluginError("it lacks its driver", plugin="redis"), ZeroDivisionError()])
def test_a_broken_broker_costs_a_line_and_nothing_else(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    app = FakeApp(FakeBroker([error]))

    take_back(app)

    assert len(app.broker.calls) == 1
    assert "cannot reclaim" in caplog.messages
