from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from jobqueue_core import handler, lifespan
from jobqueue_core.handlers import Lifespan, inspect_handler
from jobqueue_core.worker.lifespans import Lifespans
from jobqueue_core.worker.plan import JobDefaults, Plan


@pytest.fixture
def told() -> list[str]:
    return []


Make = Callable[..., Lifespan]


@pytest.fixture
def make(told: list[str]) -> Make:
    def make(name: str, *, entering: BaseException | None = None, leaving: BaseException | None = None) -> Lifespan:
        async def resources() -> AsyncIterator[str]:
            if entering is not None:
                raise entering
            told.append(f"enter {name}")
            yield name
            told.append(f"leave {name}")
            if leaving is not None:
                raise leaving

        resources.__module__, resources.__qualname__ = "shop", name
        return lifespan(resources)

    return make


def plan() -> Plan:
    @handler("quick")
    async def quick(payload: Any) -> None: ...

    return Plan(inspect_handler(quick), middleware=(), defaults=JobDefaults())


def test_they_are_left_in_the_opposite_order_and_each_serves_its_own_handlers(make: Make, told: list[str]) -> None:
    first, second = plan(), plan()

    async def live() -> None:
        lifespans = Lifespans([(make("a"), [first]), (make("b"), [second])])
        await lifespans.enter()
        assert (first.resources, second.resources) == ("a", "b")
        await lifespans.leave()

    asyncio.run(live())
    assert told == ["enter a", "enter b", "leave b", "leave a"]


def test_one_that_cannot_be_entered_is_named_and_those_before_it_are_left(make: Make, told: list[str]) -> None:
    lifespans = Lifespans([(make("a"), []), (make("b", entering=LookupError("no database")), []), (make("c"), [])])

    with pytest.raises(LookupError, match="no database") as caught:
        asyncio.run(lifespans.enter())

    assert caught.value.__notes__ == ["raised by the lifespan shop.b when it was entered"]
    assert told == ["enter a", "leave a"]


@pytest.mark.parametrize("error", [SystemExit("no database"), KeyboardInterrupt("no database"), asyncio.CancelledError("no database")])
def test_what_would_end_more_than_the_lifespan_becomes_an_ordinary_error(make: Make, error: BaseException) -> None:
    lifespans = Lifespans([(make("a", entering=error), [])])

    with pytest.raises(RuntimeError, match=f"{type(error).__name__}: no database") as caught:
        asyncio.run(lifespans.enter())

    assert caught.value.__cause__ is error


def test_one_that_raises_when_it_is_left_is_named_and_keeps_none_of_the_others(make: Make, told: list[str], caplog: pytest.LogCaptureFixture) -> None:
    async def live() -> None:
        lifespans = Lifespans([(make("a"), []), (make("b", leaving=LookupError("b")), []), (make("c", leaving=LookupError("c")), [])])
        await lifespans.enter()
        await lifespans.leave()

    with pytest.raises(LookupError, match="c") as caught:
        asyncio.run(live())

    assert caught.value.__notes__ == ["raised by the lifespan shop.c when it was left"]
    assert told[-3:] == ["leave c", "leave b", "leave a"]
    (line,) = caplog.records
    assert line.__dict__["fields"] == {"lifespan": "shop.b"}


def test_the_error_that_began_it_counts_for_more_than_those_of_leaving(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    lifespans = Lifespans([(make("a", leaving=OSError("cannot close")), []), (make("b", entering=LookupError("no database")), [])])

    with pytest.raises(LookupError, match="no database"):
        asyncio.run(lifespans.enter())

    (line,) = caplog.records
    assert line.exc_info is not None
    assert isinstance(line.exc_info[1], OSError)
