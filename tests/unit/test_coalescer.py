"""Asynchronous callers share round trips."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from jobqueue_core.broker import Enqueued
from jobqueue_core.coalescer import Coalescer
from jobqueue_core.errors import BrokerUnavailable
from jobqueue_core.job import NewJob, new_job_id

MIB = 1 << 20


def new(size: int = 2) -> NewJob:
    return NewJob(id=new_job_id("default"), type="t", payload_json=b"x" * size)


class Broker:
    """Takes batches, and holds each until it is let go."""

    def __init__(self, *, held: bool = False) -> None:
        self.batches: list[list[str]] = []
        self.arrived = threading.Semaphore(0)
        self.gate = threading.Event()
        self.error: Exception | None = None
        if not held:
            self.gate.set()

    def send(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        self.batches.append([job.id for job in jobs])
        self.arrived.release()
        assert self.gate.wait(10)
        if self.error is not None:
            raise self.error
        return [Enqueued(status="created", problem=job.id) for job in jobs]


async def arrival(broker: Broker) -> None:
    await asyncio.get_running_loop().run_in_executor(None, broker.arrived.acquire)


def test_what_arrives_while_a_batch_is_under_way_goes_with_the_next_one() -> None:
    broker = Broker(held=True)
    coalescer = Coalescer(broker.send)

    async def main() -> list[Enqueued]:
        first = asyncio.create_task(coalescer.submit(new()))
        await arrival(broker)
        rest = [asyncio.create_task(coalescer.submit(new())) for _ in range(99)]
        await asyncio.sleep(0)
        broker.gate.set()
        return await asyncio.gather(first, *rest)

    answers = asyncio.run(main())
    assert [len(batch) for batch in broker.batches] == [1, 99]
    assert [answer.problem for answer in answers] == [job_id for batch in broker.batches for job_id in batch], "each caller has its own answer"
    coalescer.close()


def test_a_batch_has_at_most_500_jobs() -> None:
    broker = Broker()
    coalescer = Coalescer(broker.send)

    async def main() -> None:
        await asyncio.gather(*(coalescer.submit(new()) for _ in range(1_200)))

    asyncio.run(main())
    assert [len(batch) for batch in broker.batches] == [500, 500, 200]
    coalescer.close()


def test_a_batch_has_at_most_four_mebibytes_and_at_least_one_job() -> None:
    broker = Broker()
    coalescer = Coalescer(broker.send)

    async def main() -> None:
        await asyncio.gather(*(coalescer.submit(new(MIB)) for _ in range(10)), coalescer.submit(new(5 * MIB)))

    asyncio.run(main())
    assert [len(batch) for batch in broker.batches] == [4, 4, 2, 1]
    coalescer.close()


def test_a_caller_that_is_cancelled_takes_nobody_with_it() -> None:
    broker = Broker(held=True)
    coalescer = Coalescer(broker.send)

    async def main() -> list[Enqueued | BaseException]:
        tasks = [asyncio.create_task(coalescer.submit(new())) for _ in range(3)]
        await arrival(broker)
        later = [asyncio.create_task(coalescer.submit(new())) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        later[0].cancel()
        await asyncio.sleep(0)
        broker.gate.set()
        return await asyncio.gather(*tasks, *later, return_exceptions=True)

    answers = asyncio.run(main())
    assert [isinstance(answer, Enqueued) for answer in answers] == [True, False, True, False, True, True]
    coalescer.close()


def test_an_error_reaches_every_caller_of_the_batch_and_nobody_else() -> None:
    broker = Broker()
    coalescer = Coalescer(broker.send)

    async def main() -> None:
        broker.error = BrokerUnavailable("away")
        answers = await asyncio.gather(*(coalescer.submit(new()) for _ in range(3)), return_exceptions=True)
        assert [type(answer) for answer in answers] == [BrokerUnavailable] * 3
        broker.error = None
        assert (await coalescer.submit(new())).status == "created"

    asyncio.run(main())
    coalescer.close()


def test_event_loops_in_several_threads_do_not_mix() -> None:
    broker = Broker()
    coalescer = Coalescer(broker.send)
    answers: list[Enqueued] = []

    async def main() -> None:
        answers.extend(await asyncio.gather(*(coalescer.submit(new()) for _ in range(50))))

    threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({answer.problem for answer in answers}) == 400
    coalescer.close()


def test_it_can_be_used_from_one_loop_after_another() -> None:
    coalescer = Coalescer(Broker().send)
    for _ in range(3):
        assert asyncio.run(coalescer.submit(new())).status == "created"
    coalescer.close()
    coalescer.close()


@pytest.mark.parametrize("count", [0, 1])
def test_a_batch_that_the_broker_answers_wrongly_leaves_nobody_waiting(count: int) -> None:
    coalescer = Coalescer(lambda _jobs: [Enqueued(status="created")] * count)

    async def main() -> None:
        with pytest.raises(ValueError, match="zip"):
            await asyncio.wait_for(asyncio.gather(coalescer.submit(new()), coalescer.submit(new())), 5)

    asyncio.run(main())
    coalescer.close()
