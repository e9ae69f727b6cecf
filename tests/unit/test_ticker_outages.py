"""The ticker outlives a broker or storage that is away, and sends again what may not have arrived."""

from __future__ import annotations

import itertools

import pytest
from schedule_scene import SECOND, Scene, Wrapped, seconds
from schedule_trials import DEADLY, assert_one_each, open_scene

from jobqueue_core.errors import BrokerUnavailable, QueueFull, StorageUnavailable
from jobqueue_core.service import Exit, Stop

scene = pytest.fixture(open_scene)


@pytest.mark.parametrize("failure", [BrokerUnavailable("away"), QueueFull("full"), StorageUnavailable("away")], ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("name", sorted(DEADLY - {"get"}))
def test_a_scheduler_outlives_a_broker_or_storage_that_is_away(scene: Scene, name: str, failure: Exception) -> None:
    scene.add()
    stop = Stop()
    calls = itertools.count(1)

    def fails(called: str) -> None:
        if called == name and next(calls) == 1:
            raise failure

    looked = itertools.count(1)

    def stops(called: str) -> None:
        if called == "unsent_ticks":
            scene.clock.advance(SECOND)
            if next(looked) > 8:
                stop.request()

    broker = Wrapped(scene.broker, before=fails)
    storage = Wrapped(scene.storage, before=fails, after=stops)
    ticker = scene.ticker(broker=broker, storage=storage, poll_interval=SECOND / 100)
    assert ticker.run(stop) == Exit.OK
    scene.turn()
    found = scene.ticks()
    assert len(found) >= 5
    assert_one_each(found, seconds(1, len(found)))


def test_a_tick_whose_job_may_have_arrived_is_sent_again_under_its_id(scene: Scene) -> None:
    scene.add()

    def cut_off(name: str) -> None:
        if name == "enqueue":
            raise BrokerUnavailable("the reply was lost")

    scene.clock.advance(SECOND)
    with pytest.raises(BrokerUnavailable):
        scene.turn(scene.ticker(broker=Wrapped(scene.broker, after=cut_off)))
    scene.pass_time(7 * SECOND)
    assert_one_each(scene.ticks(), seconds(1, 8))
