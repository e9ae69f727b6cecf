"""A cgroup with little memory, for tests of what the kernel does when there is no more: made where that is allowed (as root, as a rule)."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__ = ["small_cgroup"]


@contextlib.contextmanager
def small_cgroup(size: int) -> Iterator[Path]:
    """A cgroup below our own for processes that may take *size* bytes of memory together; the test is skipped where none can be made."""
    own, limit = _own()
    cgroup = own / f"jobqueue-test-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        cgroup.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    try:
        try:
            (cgroup / limit).write_text(str(size))
            with contextlib.suppress(OSError):  # where there is no swap there is no limit for it
                (cgroup / "memory.swap.max").write_text("0")
        except OSError as error:
            pytest.skip(f"no cgroup can be limited here: {error}")
        yield cgroup
    finally:
        _remove(cgroup)


def _remove(cgroup: Path) -> None:
    """Remove it, and what a test that has failed has left running in it."""
    deadline = time.monotonic() + 10
    while pids := (cgroup / "cgroup.procs").read_text().split():
        assert time.monotonic() < deadline, f"processes {pids} do not end"
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        time.sleep(0.01)
    cgroup.rmdir()


def _own() -> tuple[Path, str]:
    """Our memory cgroup, and the name of the file with its limit."""
    membership = Path("/proc/self/cgroup")
    for line in membership.read_text().splitlines() if membership.exists() else []:
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            return Path("/sys/fs/cgroup/memory" + path), "memory.limit_in_bytes"
        if not controllers and Path("/sys/fs/cgroup/cgroup.controllers").exists():
            return Path("/sys/fs/cgroup" + path), "memory.max"
    pytest.skip("there are no memory cgroups here")
