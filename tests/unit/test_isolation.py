"""Handlers in processes of their own: they do all that others do, may be killed at any time, and harm nobody when they die."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import isolated_handlers
import pytest

from jobqueue_core import HandlerError, Job, JobQueueError, JobState, handler
from jobqueue_core.attempt import ExecutionState
from jobqueue_core.context import JobContext
from jobqueue_core.middleware import Next
from jobqueue_core.testing import Harness


def until(true: Callable[[], object], *, within: float = 10) -> None:
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def result_of(job: Job) -> Any:
    assert job.state is JobState.COMPLETED, job.last_error
    return job.result


def states(harness: Harness, job: Job) -> list[ExecutionState]:
    return [one.state for one in harness.operations.job_executions(job.id)]


@handler("iso.here")
def here(payload: object) -> int:
    return os.getpid()


@pytest.fixture(scope="module")
def harness() -> Iterator[Harness]:
    with Harness([isolated_handlers, here]) as harness:
        yield harness


# As elsewhere --------------------------------------------------------------------------------------------------------------------------


def test_it_does_what_handlers_do_in_another_process(harness: Harness) -> None:
    job = harness.run("iso.add", {"a": 1, "b": 2})
    done = result_of(job)
    assert done["sum"] == 3
    assert done["pid"] == done["resources"] != os.getpid()
    assert done["main"], "what must be done in a main thread can be"
    assert (done["attempt"], done["run"], done["worker"], done["retries"]) == (1, 1, job.worker_id, 3)
    assert job.progress is not None
    assert (job.progress.fraction, job.progress.message) == (0.5, "halfway")
    assert [line.message for line in harness.operations.job_logs(job.id)] == [f"adding in {done['pid']}"]


def test_its_process_is_kept_for_the_next(harness: Harness) -> None:
    pids = {result_of(harness.run(name, {"a": 1, "b": 1}))["pid"] for name in ("iso.add", "iso.plus", "iso.add")}
    assert len(pids) == 1


def test_an_async_def_may_have_a_process_too(harness: Harness) -> None:
    done = result_of(harness.run("iso.async", 0.01))
    assert done["pid"] == done["resources"] != os.getpid()


def test_they_run_side_by_side_each_in_its_own_process(harness: Harness) -> None:
    jobs = [harness.enqueue("iso.async", 0.3) for _ in range(3)]
    assert len({result_of(harness.queue.wait(job.id, timeout="10s"))["pid"] for job in jobs}) == 3


def test_a_payload_that_does_not_fit_is_dead_at_once(harness: Harness) -> None:
    job = harness.run("iso.add", {"a": 1})
    assert (job.state, job.dead_reason, job.run) == (JobState.DEAD, "invalid_payload", 1)
    assert "missing required field `b`" in (job.last_error or "")


@pytest.mark.parametrize(
    ("how", "state", "error"),
    [
        ("value", JobState.DEAD, "ValueError: no"),
        ("key", JobState.DEAD, "KeyError: 'no'"),
        ("exit", JobState.DEAD, "SystemExit: 3"),
        ("interrupt", JobState.DEAD, "KeyboardInterrupt"),
        ("base", JobState.DEAD, "BaseException: base"),
        ("discard", JobState.DEAD, "Discard: enough"),
        ("retry", JobState.RETRYING, "Retry: again"),
        ("snooze", JobState.SCHEDULED, None),
    ],
)
def test_what_it_raises_counts_as_elsewhere(harness: Harness, how: str, state: JobState, error: str | None) -> None:
    enqueued = harness.enqueue("iso.raise", how)

    def job() -> Job:
        found = harness.queue.get(enqueued.id)
        assert found is not None
        return found

    until(lambda: job().state is state)
    assert (job().last_error, job().crashes) == (error, 0)
    if state is JobState.DEAD:
        letter = harness.operations.dead_letter(enqueued.id)
        assert "isolated_handlers.py" in (letter.traceback or "")
        assert "/jobqueue_core/" not in (letter.traceback or ""), "our own frames tell its author nothing"


def test_a_result_that_cannot_be_stored_is_a_failure(harness: Harness) -> None:
    job = harness.run("iso.result")
    assert job.state is JobState.DEAD
    assert "result" in (job.last_error or "")


def test_middleware_is_wrapped_round_it_where_it_runs() -> None:
    with Harness([isolated_handlers], middleware=[isolated_handlers.doubled]) as harness:
        done = result_of(harness.run("iso.add", {"a": 1, "b": 2}))
    assert done["inner"]["pid"] == done["middleware_in"]


def test_middleware_that_cannot_be_sent_there_is_refused_when_the_worker_is_made() -> None:
    async def local(ctx: JobContext, call_next: Next) -> object:
        return await call_next(ctx)

    with pytest.raises(HandlerError, match=r"iso\.add.*cannot be sent to their processes.*local"):
        Harness([isolated_handlers], middleware=[local])


def test_lifespans_are_left_when_the_worker_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISOLATED_LEFT", str(tmp_path / "left"))
    with Harness([isolated_handlers]) as harness:
        pid = result_of(harness.run("iso.add", {"a": 1, "b": 2}))["pid"]
    assert (tmp_path / "left").read_text() == str(pid)
    assert not lives(pid)


def test_a_lifespan_that_cannot_be_entered_there_keeps_the_worker_from_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_isolated.py").write_text(
        "import os\nfrom jobqueue_core import handler, lifespan\n"
        "@lifespan\nasync def resources():\n    raise ConnectionError('no database')\n    yield\n"
        "@handler('broken', isolation='process')\ndef broken(payload): ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import broken_isolated  # type: ignore[import-not-found]  # written above

    assert isinstance(broken_isolated, ModuleType)
    with pytest.raises(JobQueueError, match=r"no database"), Harness([broken_isolated]) as harness:
        until(lambda: not harness._thread.is_alive())


# Ending it -----------------------------------------------------------------------------------------------------------------------------


def test_what_heeds_nothing_is_killed_after_its_grace_with_all_that_it_has_started(harness: Harness, tmp_path: Path) -> None:
    job = harness.run("iso.stubborn", str(tmp_path / "pids"))
    assert (job.state, job.last_error, job.crashes) == (JobState.DEAD, "TimeoutError: timed out after 300ms", 0)
    own, started = (int(pid) for pid in (tmp_path / "pids").read_text().split())
    until(lambda: not lives(own) and not lives(started))


def test_what_heeds_ctx_cancelled_ends_by_itself_and_is_timed_out_or_done_as_it_says(harness: Harness) -> None:
    assert result_of(harness.run("iso.heed")) == "ended as asked"


def test_an_async_def_is_cancelled_and_may_clean_up(harness: Harness, tmp_path: Path) -> None:
    job = harness.run("iso.cancelled", str(tmp_path / "note"), timeout="200ms")
    assert (job.state, job.last_error) == (JobState.DEAD, "TimeoutError: timed out after 200ms")
    assert (tmp_path / "note").read_text() == "cancelled"


def test_a_cancel_ends_it(harness: Harness, tmp_path: Path) -> None:
    job = harness.enqueue("iso.until", str(tmp_path / "never"))
    until(lambda: harness.operations.job_logs(job.id))
    running = harness.queue.get(job.id)
    assert running is not None
    assert running.progress is not None
    assert running.progress.message == "waiting"
    assert harness.queue.cancel(job.id).cancel_requested
    assert harness.queue.wait(job.id, timeout="10s").state is JobState.CANCELLED
    assert states(harness, job) == [ExecutionState.CANCELLED]


@pytest.mark.parametrize("how", ["at once", "by and by"])
def test_more_memory_than_it_may_take_is_a_failure(harness: Harness, how: str) -> None:
    job = harness.run("iso.memory", how)
    assert (job.state, job.dead_reason, job.crashes) == (JobState.DEAD, "retries_exhausted", 0)
    # Whoever sees it first: the kernel, or the worker.
    assert (job.last_error or "").startswith(("MemoryError", "MemoryExceeded: its process took"))


def test_what_a_run_leaves_behind_does_not_count_against_the_next() -> None:
    with Harness([isolated_handlers]) as harness:
        assert len({result_of(harness.run("iso.leak", 90)) for _ in range(3)}) == 3


def test_signals_mean_nothing_to_it_and_are_not_ignored_by_what_it_starts(harness: Harness) -> None:
    assert result_of(harness.run("iso.signals")) == "SIG_DFL"


# Its death -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("segfault", "handler process killed by SIGSEGV"),
        ("exit", "handler process exited with status 3"),
        ("kill", "handler process killed by SIGKILL"),
        ("fork", "handler process exited with status 4"),
    ],
)
def test_its_death_is_a_crash_of_its_job_alone(harness: Harness, how: str, error: str) -> None:
    neighbours = [harness.enqueue("iso.async", 1), harness.enqueue("iso.here")]
    job = harness.run("iso.die", how)
    assert (job.state, job.dead_reason, job.crashes, job.retry_count) == (JobState.DEAD, "worker_lost", 3, 0)
    assert (job.last_error or "").startswith(error)
    assert states(harness, job) == [ExecutionState.LOST] * 3
    for one in neighbours:
        neighbour = harness.queue.wait(one.id, timeout="10s")
        assert (neighbour.state, neighbour.run, neighbour.crashes) == (JobState.COMPLETED, 1, 0)


def test_one_that_is_killed_while_idle_is_replaced(harness: Harness) -> None:
    before = result_of(harness.run("iso.add", {"a": 1, "b": 2}))["pid"]
    os.kill(before, signal.SIGKILL)
    until(lambda: not lives(before))
    job = harness.run("iso.add", {"a": 1, "b": 2})
    assert result_of(job)["pid"] != before
    assert (job.run, job.crashes) == (1, 0)


def test_a_stop_is_heard_while_a_process_is_being_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_isolated.py").write_text(
        "import time\nfrom pathlib import Path\nfrom jobqueue_core import handler, lifespan\n"
        f"@lifespan\nasync def resources():\n    Path({str(tmp_path / 'began')!r}).touch()\n    time.sleep(30)\n    yield\n"
        "@handler('slow', isolation='process')\ndef slow(payload): ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import slow_isolated  # type: ignore[import-not-found]  # written above

    with Harness([slow_isolated]) as harness:
        until((tmp_path / "began").exists)
        began = time.monotonic()
    assert time.monotonic() - began < 5
    assert not harness._thread.is_alive()


# What handlers do to their processes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["return", "raise", "exit"])
def test_a_copy_that_a_handler_has_forked_speaks_for_no_other_job(how: str) -> None:
    with Harness([isolated_handlers], concurrency=1) as harness:
        assert result_of(harness.run("iso.fork", how)) == "of the original"
        for number in range(3):
            assert result_of(harness.run("iso.echo", number)) == number


def test_a_copy_that_a_plain_handler_has_forked_does_not_go_on_as_a_worker(tmp_path: Path) -> None:
    @handler("fork.here")
    def fork_here(payload: object) -> int:
        pid = os.fork()
        if pid == 0:
            return 0
        (tmp_path / "copy").write_text(str(pid))
        os.waitpid(pid, 0)
        return pid

    with Harness([fork_here, here]) as harness:
        copy = result_of(harness.run("fork.here"))
        assert not lives(copy)
        assert result_of(harness.run("iso.here")) == os.getpid()


def test_what_it_has_forked_can_be_terminated(harness: Harness) -> None:
    assert result_of(harness.run("iso.terminate")) == -signal.SIGTERM


def test_a_frozen_process_delays_nobody_and_is_killed_at_the_end_of_its_time() -> None:
    with Harness([isolated_handlers, here], concurrency=2) as harness:
        frozen = result_of(harness.run("iso.add", {"a": 1, "b": 2}))["pid"]
        os.kill(frozen, signal.SIGSTOP)
        # More than a connection holds, so that the worker cannot hand it over.
        stuck = harness.enqueue("iso.echo", "x" * 900_000)
        until(lambda: harness.operations.job(stuck.id).state is JobState.PROCESSING)
        assert result_of(harness.run("iso.here")) == os.getpid()
        job = harness.queue.wait(stuck.id, timeout="10s")
        assert (job.state, job.last_error, job.crashes) == (JobState.DEAD, "TimeoutError: timed out after 400ms", 0)
        assert not lives(frozen)
        assert harness.operations.workers()


def test_a_process_with_a_thread_that_does_not_end_ends_all_the_same() -> None:
    with Harness([isolated_handlers]) as harness:
        pid = result_of(harness.run("iso.thread"))
        began = time.monotonic()
    assert time.monotonic() - began < 8
    assert not lives(pid)


def test_what_has_a_session_of_its_own_is_killed_with_it(harness: Harness, tmp_path: Path) -> None:
    assert harness.run("iso.session", str(tmp_path / "pid")).state is JobState.DEAD
    until(lambda: not lives(int((tmp_path / "pid").read_text())))


def test_a_process_that_talks_nonsense_is_killed_and_its_job_crashed(harness: Harness) -> None:
    job = harness.run("iso.write")
    assert (job.state, job.dead_reason, job.crashes) == (JobState.DEAD, "worker_lost", 3)
    assert result_of(harness.run("iso.async", 0.01))


def test_a_timeout_of_a_hundred_years_is_no_problem(harness: Harness) -> None:
    assert result_of(harness.run("iso.add", {"a": 1, "b": 2}, timeout="36500d"))["sum"] == 3


def test_a_handler_of_the_worker_that_waits_for_any_child_harms_no_process_of_another(harness: Harness) -> None:
    @handler("reap")
    def reap(payload: object) -> list[int]:
        reaped = []
        deadline = time.monotonic() + 5
        while not reaped and time.monotonic() < deadline:
            try:
                pid, _status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid:
                reaped.append(pid)
            time.sleep(0.001)
        return reaped

    with Harness([isolated_handlers, reap]) as other:
        victim = result_of(other.run("iso.add", {"a": 1, "b": 2}))["pid"]
        reaping = other.enqueue("reap")
        until(lambda: other.operations.job(reaping.id).state is JobState.PROCESSING)
        os.kill(victim, signal.SIGKILL)
        other.queue.wait(reaping.id, timeout="10s")
        job = other.run("iso.add", {"a": 1, "b": 2})
        assert (job.state, job.run, job.crashes) == (JobState.COMPLETED, 1, 0)


def test_a_job_whose_process_cannot_start_is_put_off_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "from jobqueue_core import handler\n@handler('changed', isolation='process')\ndef changed(payload): ...\n"
    (tmp_path / "changing_isolated.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    import changing_isolated  # type: ignore[import-not-found]  # written above

    with Harness([changing_isolated, isolated_handlers]) as harness:
        warm = result_of(harness.run("iso.add", {"a": 1, "b": 2}))["pid"]
        (tmp_path / "changing_isolated.py").write_text("# another release, which has it no more\n")
        os.kill(warm, signal.SIGKILL)
        until(lambda: not lives(warm))
        enqueued = harness.enqueue("changed")
        until(lambda: harness.operations.job(enqueued.id).state is JobState.SCHEDULED)
        job = harness.operations.job(enqueued.id)
        assert (job.crashes, job.retry_count) == (0, 0)
        assert "module changing_isolated has no handler for 'changed' any more" in (job.last_error or "")
        (tmp_path / "changing_isolated.py").write_text(source)
        assert harness.queue.wait(enqueued.id, timeout="20s").state is JobState.COMPLETED
