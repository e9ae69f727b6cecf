"""Decides how a run ends: calls the handler through its middleware and turns whatever happens into an outcome."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import traceback
from datetime import timedelta
from typing import Any, Final, assert_never

from jobqueue_core.attempt import MAX_ERROR, MAX_TRACEBACK, Cancelled, Completed, Crashed, Dead, Outcome, Retrying, Returned, Snoozed
from jobqueue_core.context import JobContext, current_run
from jobqueue_core.durations import format_duration, plain
from jobqueue_core.errors import InvalidPayload
from jobqueue_core.handlers import HandlerSpec
from jobqueue_core.job import DeadReason
from jobqueue_core.middleware import compose
from jobqueue_core.payload import encodable, encode_result
from jobqueue_core.signals import Discard, Retry, Snooze
from jobqueue_core.worker.interrupting import interruptible
from jobqueue_core.worker.isolation.endings import CannotStart, ProcessDied
from jobqueue_core.worker.plan import EndedElsewhere, Plan

__all__ = ["Executor"]

_log = logging.getLogger("jobqueue.worker")
_CANNOT_START: Final = timedelta(seconds=5)
"""How long a job waits for which no handler process could be started."""
_OUR_FRAMES: Final = (
    __file__,
    compose.__code__.co_filename,
    HandlerSpec.call.__code__.co_filename,
    interruptible.__code__.co_filename,
    Plan.context.__code__.co_filename,
)


class Executor:
    """Runs handlers and answers with outcomes; never raises for what a handler does."""

    async def run_async(self, plan: Plan, context: JobContext, task: asyncio.Task[Any] | None = None) -> Outcome:
        """Run an ``async def`` handler in the calling *task*; None: find out which that is, which takes longer than running a no-op."""
        current_run.set(context)
        outcome = self._convert(plan, context)
        if task is None:
            task = asyncio.current_task()
        if outcome is None:
            try:
                result = await plan.call(context)
            except BaseException as error:  # a handler: SystemExit and the like are failures of its job, not of the worker
                if isinstance(error, GeneratorExit) and _current_task() is not task:
                    # Not the handler's own: this coroutine is being closed.
                    raise
                outcome = self._raised(plan, context, error)
            else:
                outcome = self._returned(plan, context, result)
        context.ended = True
        # The runner's task lives on: what was asked of it has been answered, also when the handler did not heed it.
        while task is not None and task.cancelling():
            task.uncancel()
        return outcome

    def run_sync(self, plan: Plan, context: JobContext) -> Outcome:
        """Run a plain ``def`` handler in the calling thread.

        Middleware is asynchronous in form only: with nothing to wait for, its coroutine runs from start to end in one step.
        """
        current_run.set(context)
        outcome = self._convert(plan, context)
        if outcome is None:
            try:
                coroutine = plan.call(context)
                coroutine.send(None)  # type: ignore[attr-defined]  # middleware are coroutine functions
            except StopIteration as stop:
                outcome = self._returned(plan, context, stop.value)
            except BaseException as error:  # noqa: BLE001 - as in run_async
                outcome = self._raised(plan, context, error)
            else:
                with contextlib.suppress(BaseException):  # whatever the middleware does when it is cut off
                    coroutine.close()  # type: ignore[attr-defined]  # as above
                error_text = "a middleware awaited something other than call_next round a plain 'def' handler"
                outcome = self._failed(plan, context, RuntimeError(error_text))
        context.ended = True
        return outcome

    def run_elsewhere(self, plan: Plan, context: JobContext) -> Outcome:
        """Run a handler in another process, which decides the outcome; what it cannot say, that it has died or could not start, is decided here.

        The calling thread waits for it. Of the middleware only the bundled ones are here: the others are wrapped round the handler there.
        """
        try:
            plan.call(context).send(None)  # type: ignore[attr-defined]  # middleware are coroutine functions
        except StopIteration as stop:
            outcome: Outcome = stop.value
            return outcome
        except EndedElsewhere as ended:
            return ended.outcome
        except BaseException as error:  # noqa: BLE001 - as in run_async
            return self._ended_otherwise(plan, context, error)
        return self._failed(plan, context, RuntimeError("a bundled middleware has waited for something"))

    def _ended_otherwise(self, plan: Plan, context: JobContext, error: BaseException) -> Outcome:
        if context.stop_reason is not None:
            # It was killed because it did not end.
            return self.timed_out(plan, context)
        match error:
            case ProcessDied():
                return Crashed(error=str(error)[:MAX_ERROR], max_crashes=plan.max_crashes)
            case CannotStart():
                _log.error("job put off: %s", error, extra={"fields": {**context.job.log_facts(), "worker": context.worker_id}})
                return Snoozed(delay=_CANNOT_START, error=str(error)[:MAX_ERROR])
            case _:
                return self._failed(plan, context, error)

    def timed_out(self, plan: Plan, context: JobContext) -> Outcome:
        """The outcome of a run that does not end although its time is over."""
        if context.stop_reason is None:
            context.stop_reason = "timeout"
        return self._raised(plan, context, asyncio.CancelledError())

    def _convert(self, plan: Plan, context: JobContext) -> Outcome | None:
        """Fill in the payload; the outcome when that cannot be done."""
        try:
            context.payload = plan.spec.convert(context.job.payload_json)
        except InvalidPayload as error:
            return Dead(reason=DeadReason.INVALID_PAYLOAD, error=encodable(str(error))[:MAX_ERROR])
        except BaseException as error:  # noqa: BLE001 - the payload's class is the handler's own code
            return self._raised(plan, context, error)
        return None

    def _returned(self, plan: Plan, context: JobContext, result: object) -> Outcome:
        if result is None:
            return _COMPLETED
        try:
            return Completed(result_json=encode_result(result))
        except BaseException as error:  # noqa: BLE001 - reading a result may run the handler's own code
            return self._failed(plan, context, error)

    def _raised(self, plan: Plan, context: JobContext, error: BaseException) -> Outcome:
        match context.stop_reason:
            case "shutdown":
                return Returned()
            case "cancel":
                return Cancelled()
            case "timeout":
                message = f"timed out after {format_duration(plan.timeout_of(context.job))}"
                return self._retry_or_die(plan, context, f"TimeoutError: {message}", _trace(error), None)
            case None:
                return self._asked(plan, context, error)
            case _:
                assert_never(context.stop_reason)

    def _asked(self, plan: Plan, context: JobContext, error: BaseException) -> Outcome:
        match error:
            # By attribute: a subclass may have forgotten to call our __init__.
            case Snooze(delay=timedelta() as delay):
                return Snoozed(delay=plain(delay))
            case Discard():
                return Dead(reason=DeadReason.DISCARDED, error=_text(error), traceback=_trace(error))
            case Retry(delay=timedelta() as delay):
                return self._retry_or_die(plan, context, _text(error), _trace(error), delay)
            case Retry():
                # What the handler asks for counts for more than discard_on=(Exception,).
                return self._retry_or_die(plan, context, _text(error), _trace(error), None)
            case _:
                return self._failed(plan, context, error)

    def _failed(self, plan: Plan, context: JobContext, error: BaseException) -> Outcome:
        text, trace = _text(error), _trace(error)
        if plan.spec.options.discard_on and isinstance(error, plan.spec.options.discard_on):
            return Dead(reason=DeadReason.DISCARDED, error=text, traceback=trace)
        return self._retry_or_die(plan, context, text, trace, None)

    def _retry_or_die(self, plan: Plan, context: JobContext, text: str, trace: str | None, delay: timedelta | None) -> Outcome:
        job = context.job
        if job.retry_count >= context.max_retries:
            return Dead(reason=DeadReason.RETRIES_EXHAUSTED, error=text, traceback=trace)
        if delay is None:
            delay = plan.retry.delay(job.retry_count, job.retry_delay)
        return Retrying(delay=plain(delay), error=text, traceback=trace)


_COMPLETED: Final = Completed()


def _current_task() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop runs in this thread
        return None


def _text(error: BaseException) -> str:
    try:
        message = str(error)
    except BaseException as broken:  # noqa: BLE001 - an exception class of the handler's own
        message = f"(its message cannot be read: {type(broken).__name__})"
    name = type(error).__qualname__
    return encodable(f"{name}: {message}" if message else name)[:MAX_ERROR]


def _trace(error: BaseException) -> str | None:
    """The traceback from the handler inwards: our own frames tell its author nothing."""
    frame = error.__traceback__
    while frame is not None and frame.tb_frame.f_code.co_filename in _OUR_FRAMES:
        frame = frame.tb_next
    try:
        return encodable("".join(traceback.format_exception(type(error), error, frame)))[-MAX_TRACEBACK:]
    except BaseException:  # noqa: BLE001 - as above
        return None
