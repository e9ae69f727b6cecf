"""A worker by itself: how it is made, how it is listed, and that it breaks as a whole."""

from __future__ import annotations

from typing import Any

import pytest
from worker_shop import Gate, Shop, open_shop, quick, until

from jobqueue_core import Registry, Worker

shop = pytest.fixture(open_shop)


@pytest.mark.parametrize(
    "options",
    [{"concurrency": 0}, {"concurrency": -1}, {"queues": []}, {"lease": "500ms"}, {"lease": "soon"}, {"shutdown_timeout": "-1s"}],
    ids=str,
)
def test_a_worker_cannot_be_made_in_a_way_in_which_it_would_do_nothing(shop: Shop, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Worker(shop.queue, registry=Registry.of(quick), **options)


def test_a_worker_is_listed_with_what_it_serves_and_runs_and_forgotten_when_it_has_stopped(shop: Shop) -> None:
    gate = Gate()
    worker = shop.start(*gate.handlers, name="mill")
    until(shop.broker.workers)
    info = shop.broker.workers()[0]
    assert (info.id, info.name, info.concurrency, [one.type for one in info.types]) == (worker.worker_id, "mill", 4, ["gate.async", "gate.thread"])
    shop.end()
    assert shop.broker.workers() == []
    assert {one.type for one in shop.broker.types()} == {"gate.async", "gate.thread"}


@pytest.mark.parametrize(("call", "thread"), [("lease", "jobqueue-lease"), ("promote", "jobqueue-upkeep"), ("settle", "jobqueue-settle")])
def test_a_worker_breaks_when_one_of_its_threads_does_instead_of_seeming_to_work(shop: Shop, call: str, thread: str) -> None:
    def broken(*_: object, **__: object) -> None:
        raise LookupError("a mistake in a broker")

    shop.wire.hooks[call] = broken
    shop.queue.enqueue("quick")
    with pytest.raises(LookupError, match="a mistake in a broker") as raised:
        shop.worker([quick]).run(shop.stop)
    assert raised.value.__notes__ == [f"raised in the thread {thread}"]
