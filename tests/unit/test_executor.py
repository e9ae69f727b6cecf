"""Whatever a handler does, its run ends in an outcome; nothing of it escapes into the worker."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
import pytest

from jobqueue_core import Discard, Job, JobContext, JobState, Priority, Retry, RetryPolicy, Snooze, handler
from jobqueue_core.attempt import MAX_ERROR, MAX_TRACEBACK, Cancelled, Completed, Dead, Outcome, Retrying, Returned, Snoozed
from jobqueue_core.handlers import inspect_handler
from jobqueue_core.job import DeadReason
from jobqueue_core.payload import MAX_RESULT
from jobqueue_core.worker.executor import Executor
from jobqueue_core.worker.plan import JobDefaults, Plan

if TYPE_CHECKING:
    from jobqueue_core.context import StopReason

DEFAULTS = JobDefaults(retry=RetryPolicy(base="10s", jitter="none"), max_retries=3)
KINDS = pytest.mark.parametrize("kind", ["async", "thread"])


def job(**fields: Any) -> Job:
    return Job(
        **{
            "id": "01890a5d-ac96-774b-bcce-b302099a8057",
            "type": "t",
            "payload_json": b"{}",
            "queue": "default",
            "priority": Priority.MEDIUM,
            "state": JobState.PROCESSING,
            "created_at": datetime(2030, 1, 1, tzinfo=UTC),
            "run": 1,
            **fields,
        }
    )


def decide(
    kind: str, act: Callable[[Any], Any], *, of: Job | None = None, stop: StopReason | None = None, annotation: Any = Any, **options: Any
) -> Outcome:
    """Run a handler that does *act*, in either kind, and return how its run ended."""

    def plain(payload: Any, ctx: JobContext) -> Any:
        ctx.stop_reason = stop
        return act(payload)

    async def waiting(payload: Any, ctx: JobContext) -> Any:
        ctx.stop_reason = stop
        await asyncio.sleep(0)
        return act(payload)

    function = waiting if kind == "async" else plain
    function.__annotations__["payload"] = annotation
    plan = Plan(inspect_handler(handler("t", **options)(function)), middleware=(), defaults=DEFAULTS)
    context = plan.context(of or job(), "worker-1")
    if kind == "async":
        return asyncio.run(Executor().run_async(plan, context))
    return Executor().run_sync(plan, context)


def raising(error: BaseException | type[BaseException]) -> Callable[[Any], NoReturn]:
    def act(_payload: Any) -> NoReturn:
        raise error

    return act


# Results -------------------------------------------------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize(("value", "written"), [(None, None), (0, b"0"), ("", b'""'), ({"a": [1, None]}, b'{"a":[1,null]}'), ((1, 2), b"[1,2]")])
def test_what_a_handler_returns_is_the_result(kind: str, value: object, written: bytes | None) -> None:
    assert decide(kind, lambda _: value) == Completed(result_json=written)


@KINDS
@pytest.mark.parametrize(
    "value", [object(), {1: 2}, float("nan"), "\ud800", "x" * (MAX_RESULT - 1), iter([1])], ids=["object", "key", "nan", "half", "big", "iterator"]
)
def test_a_result_that_cannot_be_kept_fails_the_run_and_says_so(kind: str, value: object) -> None:
    outcome = decide(kind, lambda _: value)
    assert isinstance(outcome, Retrying)
    assert outcome.error.startswith("InvalidPayload: result")


@KINDS
def test_a_result_of_exactly_the_limit_is_kept(kind: str) -> None:
    outcome = decide(kind, lambda _: "x" * (MAX_RESULT - 2))
    assert isinstance(outcome, Completed)
    assert len(outcome.result_json or b"") == MAX_RESULT


class Trap(dict[str, int]):
    def __iter__(self) -> Iterator[str]:
        raise SystemExit(3)

    def keys(self) -> NoReturn:  # type: ignore[override]  # what is tested
        raise SystemExit(3)

    def items(self) -> NoReturn:  # type: ignore[override]  # what is tested
        raise SystemExit(3)


@KINDS
def test_a_result_that_fights_back_harms_nobody(kind: str) -> None:
    assert isinstance(decide(kind, lambda _: Trap(a=1)), (Completed, Retrying))


# Exceptions ----------------------------------------------------------------------------------------------------------------------------


class Unreadable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class Deadly(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)

    __repr__ = __str__


class ForgetfulRetry(Retry):
    def __init__(self) -> None:
        pass


class ForgetfulSnooze(Snooze):
    def __init__(self) -> None:
        pass


class ForgetfulDiscard(Discard):
    def __init__(self) -> None:
        pass


@KINDS
@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("no"), "ValueError: no"),
        (ValueError, "ValueError"),
        (KeyError("a"), "KeyError: 'a'"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (BaseException("base"), "BaseException: base"),
        (GeneratorExit(), "GeneratorExit"),
        (asyncio.CancelledError("mine"), "CancelledError: mine"),
        (StopIteration(1), "RuntimeError: coroutine raised StopIteration"),
        (StopAsyncIteration(1), "StopAsyncIteration: 1"),
        (MemoryError(), "MemoryError"),
        (RecursionError("deep"), "RecursionError: deep"),
        (BaseExceptionGroup("both", [ValueError("a"), SystemExit(1)]), "BaseExceptionGroup: both (2 sub-exceptions)"),
        (ValueError("half \ud800"), "ValueError: half \\ud800"),
        (Unreadable(), "Unreadable: (its message cannot be read: ValueError)"),
        (Deadly(), "Deadly: (its message cannot be read: SystemExit)"),
        (ForgetfulRetry(), "ForgetfulRetry"),
        (ForgetfulSnooze(), "ForgetfulSnooze"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_whatever_a_handler_raises_is_a_failure_of_its_job(kind: str, error: BaseException, text: str) -> None:
    outcome = decide(kind, raising(error))
    assert isinstance(outcome, Retrying)
    assert outcome.error == text
    assert outcome.delay == timedelta(seconds=10)
    outcome.error.encode()
    (outcome.traceback or "").encode()


@KINDS
def test_a_failure_has_the_traceback_from_the_handler_inwards(kind: str) -> None:
    outcome = decide(kind, raising(ValueError("no")))
    assert isinstance(outcome, Retrying)
    frames = [line for line in (outcome.traceback or "").splitlines() if line.startswith("  File ")]
    assert all("test_executor" in frame for frame in frames), frames
    assert (outcome.traceback or "").endswith("ValueError: no\n")


@KINDS
def test_endless_errors_and_tracebacks_are_cut(kind: str) -> None:
    def deep(n: int) -> None:
        if n:
            deep(n - 1)
            return
        raise ValueError("x" * 1_000_000)

    outcome = decide(kind, lambda _: deep(200))
    assert isinstance(outcome, Retrying)
    assert (len(outcome.error), len(outcome.traceback or "")) == (MAX_ERROR, MAX_TRACEBACK)


@KINDS
def test_the_last_attempt_that_fails_is_a_death(kind: str) -> None:
    assert isinstance(decide(kind, raising(ValueError), of=job(retry_count=2)), Retrying)
    outcome = decide(kind, raising(ValueError), of=job(retry_count=3))
    assert isinstance(outcome, Dead)
    assert outcome.reason is DeadReason.RETRIES_EXHAUSTED


@KINDS
@pytest.mark.parametrize(
    ("of", "options", "dies"), [({"max_retries": 0}, {}, True), ({}, {"max_retries": 0}, True), ({"max_retries": 1}, {"max_retries": 0}, False)]
)
def test_the_jobs_own_retries_count_before_the_handlers_and_those_before_the_default(
    kind: str, of: dict[str, int], options: dict[str, int], *, dies: bool
) -> None:
    assert isinstance(decide(kind, raising(ValueError), of=job(**of), **options), Dead if dies else Retrying)


@KINDS
def test_the_handlers_own_policy_counts_before_the_default_and_grows(kind: str) -> None:
    policy = RetryPolicy(base="1s", jitter="none")
    outcome = decide(kind, raising(ValueError), of=job(retry_count=2), retry=policy)
    assert isinstance(outcome, Retrying)
    assert outcome.delay == timedelta(seconds=4)


# What a handler may ask for ------------------------------------------------------------------------------------------------------------


@KINDS
def test_retry_comes_again_at_the_time_it_names_and_counts(kind: str) -> None:
    assert decide(kind, raising(Retry("later", delay="7s"))) == Retrying(
        delay=timedelta(seconds=7), error="Retry: later", traceback=_trace(kind, Retry("later"))
    )
    assert isinstance(decide(kind, raising(Retry(delay="7s")), of=job(retry_count=3)), Dead)


def _trace(kind: str, error: BaseException) -> str | None:
    outcome = decide(kind, raising(error))
    assert isinstance(outcome, Retrying)
    return outcome.traceback


@KINDS
def test_retry_without_a_delay_follows_the_policy(kind: str) -> None:
    outcome = decide(kind, raising(Retry()))
    assert isinstance(outcome, Retrying)
    assert outcome.delay == timedelta(seconds=10)


@KINDS
def test_retry_counts_for_more_than_discard_on(kind: str) -> None:
    assert isinstance(decide(kind, raising(Retry(delay="7s")), discard_on=(Exception,)), Retrying)


@KINDS
def test_snooze_is_no_failure_even_on_the_last_attempt(kind: str) -> None:
    assert decide(kind, raising(Snooze("5m")), of=job(retry_count=3)) == Snoozed(delay=timedelta(minutes=5))


@KINDS
def test_discard_is_a_death_at_once(kind: str) -> None:
    outcome = decide(kind, raising(Discard("why")))
    assert isinstance(outcome, Dead)
    assert (outcome.reason, outcome.error) == (DeadReason.DISCARDED, "Discard: why")
    assert isinstance(decide(kind, raising(ForgetfulDiscard())), Dead)


@KINDS
def test_an_exception_named_by_discard_on_and_its_subclasses_are_deaths_at_once(kind: str) -> None:
    for error in (LookupError("no"), KeyError("no")):
        outcome = decide(kind, raising(error), discard_on=(LookupError,))
        assert isinstance(outcome, Dead)
        assert outcome.reason is DeadReason.DISCARDED
    assert isinstance(decide(kind, raising(ValueError), discard_on=(LookupError,)), Retrying)


@pytest.mark.parametrize("wrong", ["soon", "-1s", timedelta(seconds=-1)])
def test_a_delay_that_cannot_be_read_fails_where_it_is_made(wrong: Any) -> None:
    for make in (Snooze, lambda delay: Retry(delay=delay)):
        with pytest.raises(ValueError, match="duration"):
            make(wrong)


# The payload ---------------------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Explosive:
    x: int = 0

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError("x must not be negative")
        if self.x > 9:
            raise SystemExit("too big")


class Strict(msgspec.Struct):
    x: int


@KINDS
def test_a_payload_that_does_not_fit_is_dead_at_once_with_the_fields_path(kind: str) -> None:
    outcome = decide(kind, lambda payload: payload, of=job(payload_json=b'{"x":"a"}'), annotation=Strict)
    assert isinstance(outcome, Dead)
    assert outcome.reason is DeadReason.INVALID_PAYLOAD
    assert outcome.error.startswith("payload.x: ")


@KINDS
def test_a_payload_class_may_refuse_values(kind: str) -> None:
    outcome = decide(kind, lambda payload: payload, of=job(payload_json=b'{"x":-1}'), annotation=Explosive)
    assert isinstance(outcome, Dead)
    assert (outcome.reason, "x must not be negative" in outcome.error) == (DeadReason.INVALID_PAYLOAD, True)


@KINDS
def test_a_payload_class_that_breaks_is_a_failure_of_the_job(kind: str) -> None:
    outcome = decide(kind, lambda payload: payload, of=job(payload_json=b'{"x":10}'), annotation=Explosive)
    assert isinstance(outcome, Retrying)
    assert outcome.error == "SystemExit: too big"


@KINDS
def test_an_invalid_payload_that_the_handler_itself_raises_is_a_failure_like_any_other(kind: str) -> None:
    from jobqueue_core import InvalidPayload

    assert isinstance(decide(kind, raising(InvalidPayload("payload", "of another job"))), Retrying)


class OddDuration(timedelta):
    """As other libraries make them; no encoder knows it."""


@KINDS
def test_a_delay_of_another_librarys_class_becomes_a_plain_one_which_can_be_written_down(kind: str) -> None:
    forgetful = Snooze("1s")
    forgetful.delay = OddDuration(seconds=3)
    for error in (Snooze(OddDuration(seconds=3)), Retry(delay=OddDuration(seconds=3)), forgetful):
        outcome = decide(kind, raising(error))
        assert isinstance(outcome, Snoozed | Retrying)
        assert (outcome.delay, type(outcome.delay)) == (timedelta(seconds=3), timedelta)


# Being asked to stop -------------------------------------------------------------------------------------------------------------------


@KINDS
def test_a_run_that_was_asked_to_stop_ends_as_it_was_asked(kind: str) -> None:
    for error in (asyncio.CancelledError(), ValueError("while stopping"), Retry(delay="1s")):
        assert isinstance(decide(kind, raising(error), stop="shutdown"), Returned)
        assert isinstance(decide(kind, raising(error), stop="cancel"), Cancelled)
        outcome = decide(kind, raising(error), stop="timeout", timeout="1m30s")
        assert isinstance(outcome, Retrying)
        assert outcome.error == "TimeoutError: timed out after 1m30s"


@KINDS
def test_a_timeout_spends_an_attempt_and_the_last_one_is_a_death(kind: str) -> None:
    outcome = decide(kind, raising(asyncio.CancelledError()), stop="timeout", of=job(retry_count=3, timeout=timedelta(seconds=2)))
    assert isinstance(outcome, Dead)
    assert (outcome.reason, outcome.error) == (DeadReason.RETRIES_EXHAUSTED, "TimeoutError: timed out after 2s")


@KINDS
def test_a_run_that_completes_although_it_was_asked_to_stop_has_completed(kind: str) -> None:
    for reason in ("cancel", "timeout", "shutdown"):
        assert decide(kind, lambda _: 1, stop=reason) == Completed(result_json=b"1")


async def _sleep_and_swallow(_payload: Any) -> str:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        return "swallowed"
    return "slept"


async def _sleep_and_turn(_payload: Any) -> None:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError as error:
        raise ValueError("instead") from error


async def _sleep(_payload: Any) -> None:
    await asyncio.sleep(60)


@pytest.mark.parametrize(("function", "outcome"), [(_sleep_and_swallow, Completed), (_sleep_and_turn, Cancelled), (_sleep, Cancelled)])
def test_the_next_run_of_the_same_coroutine_knows_nothing_of_a_cancel_however_it_was_taken(
    function: Callable[[Any], Awaitable[Any]], outcome: type
) -> None:
    plan = Plan(inspect_handler(handler("t")(function)), middleware=(), defaults=DEFAULTS)
    context = plan.context(job(), "worker-1")

    async def runner() -> tuple[Outcome, int]:
        task = asyncio.current_task()
        assert task is not None
        context.stop_reason = "cancel"
        asyncio.get_running_loop().call_later(0.001, task.cancel)
        ended = await Executor().run_async(plan, context)
        await asyncio.sleep(0)
        return ended, task.cancelling()

    ended, cancelling = asyncio.run(runner())
    assert isinstance(ended, outcome)
    assert cancelling == 0


def test_a_coroutine_that_is_closed_from_outside_obeys() -> None:
    plan = Plan(inspect_handler(handler("t")(_sleep)), middleware=(), defaults=DEFAULTS)
    context = plan.context(job(), "worker-1")

    async def start_and_close() -> None:
        coroutine = Executor().run_async(plan, context)
        coroutine.send(None)
        coroutine.close()

    asyncio.run(start_and_close())


def test_a_handler_that_does_not_end_is_a_timeout_with_no_need_of_its_help() -> None:
    plan = Plan(inspect_handler(handler("t", timeout="1s")(_sleep)), middleware=(), defaults=DEFAULTS)
    outcome = Executor().timed_out(plan, plan.context(job(), "worker-1"))
    assert isinstance(outcome, Retrying)
    assert outcome.error == "TimeoutError: timed out after 1s"


def test_a_plain_handler_runs_in_the_calling_thread() -> None:
    assert decide("thread", lambda _: threading.current_thread().name) == Completed(result_json=msgspec.json.encode(threading.current_thread().name))
