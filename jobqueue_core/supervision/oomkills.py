"""Whether the kernel has killed for want of memory: the count that it keeps for our cgroup, read before and after a death (FAULTS W10)."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Final

__all__ = ["OomKills", "killed_by"]

_MEMBERSHIP: Final = Path("/proc/self/cgroup")
_CGROUPS: Final = Path("/sys/fs/cgroup")
_WINDOW: Final = 10.0
"""A death is explained by a kill that was counted within the last one or two of these, in seconds."""


class OomKills:
    """The ``oom_kill`` count of the cgroup that this process and its children are in (v2: memory.events, v1: memory.oom_control).

    The kernel raises it before it sends SIGKILL. Other processes are in the cgroup too: so each kill explains one death, and none that comes
    much later. Any thread may ask.

    Args:
        membership: Says in which cgroup we are.
        cgroups: Where cgroups are mounted.
    """

    def __init__(self, membership: Path = _MEMBERSHIP, cgroups: Path = _CGROUPS) -> None:
        self._file = next((file for file in _candidates(membership, cgroups) if _count(file) is not None), None)
        self._lock = threading.Lock()
        self._explained = 0
        self._looked_at = monotonic()
        self._before = self._latest = self._unexplained() or 0

    @property
    def next_look(self) -> float | None:
        """When to :meth:`look` again, by the monotonic clock; None: never, the kernel counts nothing for us."""
        return None if self._file is None else self._looked_at + _WINDOW

    def look(self) -> None:
        """Note the count, if it is time: what was counted long ago explains no death of today."""
        with self._lock:
            if self.next_look is None or monotonic() < self.next_look:
                return
            self._looked_at = monotonic()
            self._before, self._latest = self._latest, self._unexplained() or self._latest

    def explain(self) -> bool | None:
        """Whether a process that has just died of SIGKILL was killed for want of memory; None when nobody can tell."""
        with self._lock:
            now = self._unexplained()
            if now is None:
                return None
            if now <= self._before:
                return False
            self._explained += 1
            self._latest = min(self._latest, now - 1)
            return True

    def _unexplained(self) -> int | None:
        count = None if self._file is None else _count(self._file)
        return None if count is None else count - self._explained


def _candidates(membership: Path, cgroups: Path) -> Iterator[Path]:
    """Where the count may be. In a container the path is often the host's, and what is mounted is our cgroup itself."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            places, name = [cgroups, cgroups / "unified"], "memory.events"
        elif "memory" in controllers.split(","):
            places, name = [cgroups / "memory", cgroups / controllers], "memory.oom_control"
        else:
            continue
        for place in places:
            yield place / path.lstrip("/") / name
            yield place / name


def _count(file: Path) -> int | None:
    try:
        facts = dict(line.split(maxsplit=1) for line in file.read_text().splitlines())
        return int(facts["oom_kill"])
    except (OSError, ValueError, KeyError):  # no such file, or a kernel that does not count
        return None


def killed_by(number: int, *, core_dumped: bool = False, out_of_memory: bool | None = None) -> str:
    """The death by a signal, for people.

    Args:
        number: The signal's.
        core_dumped: There is a core to look into.
        out_of_memory: What :meth:`OomKills.explain` has said of it.
    """
    name = signal.Signals(number).name if number in list(signal.Signals) else f"signal {number}"
    if number == signal.SIGKILL:
        why = {True: "out of memory", False: "by somebody, not for want of memory", None: "perhaps out of memory"}[out_of_memory]
        return f"killed by {name}: {why}"
    return f"killed by {name}{' (core dumped)' if core_dumped else ''}"
