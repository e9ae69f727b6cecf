"""A process and its children, where these are not in one process group: PostgreSQL gives each of its own one."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

__all__ = ["freeze", "kill_tree", "thaw"]

_PATIENCE: Final = 20.0
_PROC: Final = Path("/proc")


def freeze(pid: int) -> list[int]:
    """SIGSTOP a process, then its children; says which these are. From then on it starts none."""
    _send(pid, signal.SIGSTOP)
    # It may be starting one just now: it is in the list as soon as the process has stopped.
    _wait(lambda found: found.get(pid, (0, "Z"))[1][0] in "TtZ", f"process {pid} does not stop")
    children = [child for child, (parent, _) in _processes().items() if parent == pid]
    for child in children:
        _send(child, signal.SIGSTOP)
    return children


def thaw(pid: int) -> None:
    """Let go on what :func:`freeze` has stopped."""
    for child, (parent, _) in _processes().items():
        if parent == pid:
            _send(child, signal.SIGCONT)
    _send(pid, signal.SIGCONT)


def kill_tree(pid: int) -> None:
    """SIGKILL a process and its children; returns when the children are gone. The process itself is for its parent to wait for."""
    children = freeze(pid)
    for one in (pid, *children):
        _send(one, signal.SIGKILL)
    _wait(lambda found: all(found.get(child, (0, "Z"))[1].startswith("Z") for child in children), f"children of {pid} do not end: {children}")


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _wait(condition: Callable[[dict[int, tuple[int, str]]], bool], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    pause = threading.Event()
    while not condition(_processes()):
        assert time.monotonic() < deadline, what
        pause.wait(0.002)


def _processes() -> dict[int, tuple[int, str]]:
    """Of each process its parent and its state (``T`` stopped, ``Z`` ended but not waited for)."""
    if (_PROC / "self/stat").exists():
        found = {}
        for entry in os.scandir(_PROC):
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):
                    # The name before it, in parentheses, may hold anything.
                    state, parent, *_ = Path(entry.path, "stat").read_text(errors="replace").rpartition(")")[2].split()
                    found[int(entry.name)] = (int(parent), state)
        return found
    lines = subprocess.run(["ps", "-axo", "pid=,ppid=,stat="], capture_output=True, text=True, check=True).stdout.splitlines()
    return {int(pid): (int(parent), state) for pid, parent, state in map(str.split, lines)}
