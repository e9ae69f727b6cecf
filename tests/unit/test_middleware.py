"""Middleware: layers round every run, one signature for both kinds of handler."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Generator
from datetime import UTC, datetime
from typing import Any

import pytest

from jobqueue_core import Job, JobContext, JobState, Priority, handler
from jobqueue_core.attempt import Completed, Dead, Outcome, Retrying
from jobqueue_core.handlers import inspect_handler
from jobqueue_core.middleware import Metrics, Middleware, Next, log_runs
from jobqueue_core.worker.executor import Executor, JobDefaults, Plan

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


@both
def test_starts_and_completions_are_logged_at_debug_without_the_payload(function: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="jobqueue.worker"):
        run(function, log_runs)
    assert [record.getMessage() for record in caplog.records if record.name == "jobqueue.worker"] == ["started", "completed"]
    for record in caplog.records:
        if record.name == "jobqueue.worker":
            fields: dict[str, object] = record.__dict__["fields"]
            assert {"job_id", "type", "queue", "attempt", "run", "worker"} <= set(fields)
            assert "payload" not in fields


def test_a_payload_that_does_not_fit_reaches_no_middleware() -> None:
    calls: list[str] = []

    async def note(ctx: JobContext, call_next: Next) -> object:
        calls.append("called")
        return await call_next(ctx)

    def typed(payload: int) -> None: ...

    assert isinstance(run(typed, note), Dead)
    assert calls == []
