"""Middleware: layers round every run, one signature for both kinds of handler."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import sys
import threading
from collections.abc import Awaitable, Callable, Generator
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

from jobqueue_core import Discard, Job, JobContext, JobState, Priority, Retry, Snooze, handler
from jobqueue_core.attempt import Completed, Dead, Outcome, Retrying, Snoozed
from jobqueue_core.handlers import inspect_handler
from jobqueue_core.histogram import Histogram
from jobqueue_core.job import DeadReason
from jobqueue_core.middleware import Metrics, Middleware, Next, log_starts, misfit, name_of
from jobqueue_core.worker.executor import Executor
from jobqueue_core.worker.plan import JobDefaults, Plan

JOB = Job(
    id="01890a5d-ac96-774b-bcce-b302099a8057",
    type="t",
    payload_json=b'{"n":1}',
    queue="default",
    priority=Priority.MEDIUM,
    state=JobState.PROCESSING,
    created_at=datetime(2030, 1, 1, tzinfo=UTC),
    run=1,
)


def plain(payload: Any) -> Any:
    if payload == "raise" or payload.get("n") == "raise":
        raise KeyError("no")
    return payload


async def waiting(payload: Any) -> Any:
    await asyncio.sleep(0)
    return plain(payload)


def plain_failing(payload: Any) -> Any:
    raise KeyError("no")


async def waiting_failing(payload: Any) -> Any:
    await asyncio.sleep(0)
    raise KeyError("no")


both = pytest.mark.parametrize("function", [plain, waiting])
both_failing = pytest.mark.parametrize("function", [plain_failing, waiting_failing])


def run(function: Callable[..., Any], *middleware: Middleware) -> Outcome:
    plan = Plan(inspect_handler(handler("t")(function)), middleware=middleware, defaults=JobDefaults())
    context = plan.context(JOB, "worker-1")
    if plan.isolation == "async":
        return asyncio.run(Executor().run_async(plan, context))
    return Executor().run_sync(plan, context)


@both
def test_the_first_is_the_outermost(function: Callable[..., Any]) -> None:
    seen: list[str] = []

    def layer(name: str) -> Middleware:
        async def note(ctx: JobContext, call_next: Next) -> object:
            seen.append(f"{name} before")
            result = await call_next(ctx)
            seen.append(f"{name} after")
            return result

        return note

    assert run(function, layer("outer"), layer("inner")) == Completed(result_json=b'{"n":1}')
    assert seen == ["outer before", "inner before", "inner after", "outer after"]


@both
def test_a_layer_may_change_the_result(function: Callable[..., Any]) -> None:
    async def wrap(ctx: JobContext, call_next: Next) -> object:
        return {"wrapped": await call_next(ctx)}

    assert run(function, wrap) == Completed(result_json=b'{"wrapped":{"n":1}}')


@both
def test_a_layer_may_leave_the_handler_out(function: Callable[..., Any]) -> None:
    async def skip(ctx: JobContext, call_next: Next) -> object:
        return "skipped"

    assert run(function, skip) == Completed(result_json=b'"skipped"')


@both_failing
def test_a_layer_sees_the_exception_of_the_handler(function: Callable[..., Any]) -> None:
    seen: list[BaseException] = []

    async def watch(ctx: JobContext, call_next: Next) -> object:
        try:
            return await call_next(ctx)
        except KeyError as error:
            seen.append(error)
            raise

    outcome = run(function, watch)
    assert isinstance(outcome, Retrying)
    assert outcome.error == "KeyError: 'no'"
    assert len(seen) == 1


@both_failing
def test_a_layer_may_turn_a_failure_into_a_result(function: Callable[..., Any]) -> None:
    async def forgive(ctx: JobContext, call_next: Next) -> object:
        try:
            return await call_next(ctx)
        except KeyError:
            return "forgiven"

    assert run(function, forgive) == Completed(result_json=b'"forgiven"')


@both
def test_a_layer_that_raises_fails_the_run(function: Callable[..., Any]) -> None:
    async def broken(ctx: JobContext, call_next: Next) -> object:
        raise LookupError("middleware")

    outcome = run(function, broken)
    assert isinstance(outcome, Retrying)
    assert outcome.error == "LookupError: middleware"


@both
@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Snooze("5s"), Snoozed(delay=timedelta(seconds=5))),
        (Discard("unwanted"), Dead(reason=DeadReason.DISCARDED, error="Discard: unwanted")),
        (Retry("busy", delay="7s"), Retrying(delay=timedelta(seconds=7), error="Retry: busy")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_layer_may_ask_for_what_a_handler_may_ask_for(function: Callable[..., Any], error: Exception, outcome: Any) -> None:
    async def ask(ctx: JobContext, call_next: Next) -> object:
        raise error

    asked = run(function, ask)
    assert asked == (outcome if isinstance(outcome, Snoozed) else attrs.evolve(outcome, traceback=asked.traceback))  # type: ignore[union-attr]


@both
def test_a_layer_may_give_the_handler_another_payload(function: Callable[..., Any]) -> None:
    async def decrypt(ctx: JobContext, call_next: Next) -> object:
        ctx.payload = {"n": 2}
        return await call_next(ctx)

    assert run(function, decrypt) == Completed(result_json=b'{"n":2}')


@both
def test_a_layer_that_is_a_plain_function_may_hand_on_or_raise(function: Callable[..., Any]) -> None:
    def hand_on(ctx: JobContext, call_next: Next) -> Awaitable[object]:
        return call_next(ctx)

    def broken(ctx: JobContext, call_next: Next) -> Awaitable[object]:
        raise LookupError("middleware")

    assert run(function, hand_on) == Completed(result_json=b'{"n":1}')
    outcome = run(function, broken)
    assert isinstance(outcome, Retrying)
    assert outcome.error == "LookupError: middleware"


@both
def test_a_layer_sees_the_job_and_its_payload(function: Callable[..., Any]) -> None:
    seen: list[object] = []

    async def look(ctx: JobContext, call_next: Next) -> object:
        seen.append((ctx.job.type, ctx.payload, ctx.attempt, ctx.run, ctx.worker_id))
        return await call_next(ctx)

    run(function, look)
    assert seen == [("t", {"n": 1}, 1, 1, "worker-1")]


class Pause:
    """Something to wait for, as the event loop's own futures are."""

    def __await__(self) -> Generator[None, None, None]:
        yield


async def wait_before(ctx: JobContext, call_next: Next) -> object:
    await Pause()
    return await call_next(ctx)


async def wait_after(ctx: JobContext, call_next: Next) -> object:
    await call_next(ctx)
    await Pause()
    return "never"


async def wait_and_break(ctx: JobContext, call_next: Next) -> object:
    try:
        await Pause()
    finally:
        raise LookupError("cut off")


async def wait_on_and_on(ctx: JobContext, call_next: Next) -> object:
    while True:
        try:
            await Pause()
        except GeneratorExit:
            await Pause()


@pytest.mark.parametrize("layer", [wait_before, wait_after, wait_and_break, wait_on_and_on])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_layer_that_waits_round_a_plain_def_handler_fails_that_job_and_the_error_says_why(layer: Middleware) -> None:
    outcome = run(plain, layer)
    assert isinstance(outcome, Retrying)
    assert "a middleware awaited something other than call_next round a plain 'def' handler" in outcome.error


def test_a_layer_may_wait_round_an_async_def_handler() -> None:
    assert run(waiting, wait_before) == Completed(result_json=b'{"n":1}')


@both
def test_a_layer_that_needs_the_event_loop_round_a_plain_def_handler_fails_that_job_only(function: Callable[..., Any]) -> None:
    async def sleep(ctx: JobContext, call_next: Next) -> object:
        await asyncio.sleep(0.001)
        return await call_next(ctx)

    assert isinstance(run(function, sleep), Completed if function is waiting else Retrying)


# Before anything runs -------------------------------------------------------------------------------------------------------------------


async def good(ctx: JobContext, call_next: Next) -> object:
    return await call_next(ctx)


async def tagged(tag: str, ctx: JobContext, call_next: Next) -> object:
    return await call_next(ctx)


class Layer:
    async def __call__(self, ctx: JobContext, call_next: Next) -> object:
        return await call_next(ctx)

    async def method(self, ctx: JobContext, call_next: Next) -> object:
        return await call_next(ctx)


@functools.wraps(good)
def wrapped(*arguments: Any) -> Any:
    return good(*arguments)


RIGHT = [good, functools.partial(tagged, "x"), functools.partial(functools.partial(tagged), "x"), Layer(), Layer().method, wrapped]


@pytest.mark.parametrize("middleware", [*RIGHT, functools.partial(Layer())], ids=name_of)
def test_what_can_be_called_as_a_middleware_is_one(middleware: Middleware) -> None:
    assert misfit(middleware) is None
    assert run(plain, middleware) == run(waiting, middleware) == Completed(result_json=b'{"n":1}')


@pytest.mark.parametrize(
    ("middleware", "cause"),
    [
        (plain, "middleware 'plain' is not asynchronous: write 'async def plain(ctx, call_next)' and 'return await call_next(ctx)'"),
        (waiting, "middleware 'waiting' takes (payload: 'Any') -> 'Any', and is called with (ctx, call_next)"),
        (functools.partial(good, 1), "middleware 'good' takes (call_next: 'Next') -> 'object', and is called with (ctx, call_next)"),
        (Layer, "<class 'test_middleware.Layer'> is no middleware"),
        (None, "None is no middleware"),
    ],
)
def test_what_cannot_be_is_told_without_being_called(middleware: Any, cause: str) -> None:
    found = misfit(middleware)
    assert found is not None
    assert found.replace("tests.unit.", "").startswith(cause)


# The bundled ones ----------------------------------------------------------------------------------------------------------------------


@both
def test_metrics_count_and_measure(function: Callable[..., Any]) -> None:
    metrics = Metrics()
    run(function, metrics.measure)
    assert (metrics.started, metrics.raised, metrics.durations["t"].count) == (1, 0, 1)


@both_failing
def test_metrics_count_what_raised_and_let_it_through(function: Callable[..., Any]) -> None:
    metrics = Metrics()
    assert isinstance(run(function, metrics.measure), Retrying)
    assert (metrics.started, metrics.raised, metrics.durations["t"].count) == (1, 1, 1)


def test_the_total_of_all_types_can_be_asked_while_new_ones_are_measured() -> None:
    metrics = Metrics()
    stop = threading.Event()

    def measure() -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            metrics.durations[f"type {number % 1000}"] = Histogram({number % 270: 1})

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=measure)
    thread.start()
    try:
        counts = [metrics.total().count for _ in range(200)]
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert counts == sorted(counts)
    assert metrics.total().count == len(metrics.durations)


@both
def test_starts_are_logged_at_debug_without_the_payload(function: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    """How runs end is logged when that is settled: see integration/test_worker_logs.py."""
    with caplog.at_level(logging.DEBUG, logger="jobqueue.worker"):
        assert isinstance(run(function, log_starts), Completed)
    (record,) = [record for record in caplog.records if record.name == "jobqueue.worker"]
    assert (record.getMessage(), record.levelno) == ("started", logging.DEBUG)
    assert record.__dict__["fields"] == {"job_id": JOB.id, "type": "t", "queue": "default", "attempt": 1, "run": 1, "worker": "worker-1"}


def test_a_payload_that_does_not_fit_reaches_no_middleware() -> None:
    calls: list[str] = []

    async def note(ctx: JobContext, call_next: Next) -> object:
        calls.append("called")
        return await call_next(ctx)

    def typed(payload: int) -> None: ...

    assert isinstance(run(typed, note), Dead)
    assert calls == []
