"""The lock of the worker's books: it excludes, and it is never left behind."""

from __future__ import annotations

import threading
import time

import pytest

from jobqueue_core.worker.lock import BriefLock


def test_one_thread_at_a_time_is_inside() -> None:
    lock, inside, most = BriefLock(), 0, 0
    start = threading.Barrier(8)

    def work() -> None:
        nonlocal inside, most
        start.wait()
        for _ in range(200):
            with lock:
                inside += 1
                most = max(most, inside)
                time.sleep(0)  # others run, and must wait
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, inside) == (1, 0)


def test_a_section_that_raises_leaves_the_lock_free() -> None:
    lock = BriefLock()
    with pytest.raises(LookupError), lock:
        raise LookupError
    with lock:
        pass
