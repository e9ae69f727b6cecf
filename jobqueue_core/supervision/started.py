"""The table of started jobs: shared memory in which a worker says which handlers are running, and which outlives it (DESIGN R4).

After a SIGKILL the supervisor reads there whose handlers were running (a crash is counted) and, by its absence, what was only buffered
(returned uncounted). There is one writer, which may die between any two instructions, and one reader, which reads after that death.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from typing import Final, Self

__all__ = ["StartedTable", "capacity_for"]

_WORDS: Final = 2 + 1022
"""A length of two bytes, and a text."""
_SAID_BEFORE: Final = 8
_SAID: Final = _SAID_BEFORE + _WORDS
_HEADER: Final = _SAID + _WORDS
_ID: Final = 36
_SLOT: Final = 1 + _ID
_FULL: Final = 1


def capacity_for(concurrency: int) -> int:
    """How many slots a worker needs: its handlers, as many again for those it has written off, and some to spare."""
    return concurrency * 2 + 64


class StartedTable:
    """Slots of one job id each, a mark that the process has ended in order, and its last words. Use :meth:`create` or :meth:`attach`."""

    def __init__(self, memory: mmap.mmap, fd: int = -1) -> None:
        self._memory = memory
        self.fd = fd
        """What a child inherits to attach to the table; -1 for one that has attached."""
        self.capacity = (len(memory) - _HEADER) // _SLOT
        """How many slots there are."""

    @classmethod
    def create(cls, capacity: int, *, before: str = "") -> Self:
        """An empty table of *capacity* slots, in memory that has no name and vanishes with its last user.

        Args:
            capacity: How many slots.
            before: The last words of the process that was here before.
        """
        fd = _unnamed_file()
        size = _HEADER + capacity * _SLOT
        os.ftruncate(fd, size)
        table = cls(mmap.mmap(fd, size), fd)
        table._write(_SAID_BEFORE, before)
        return table

    @classmethod
    def attach(cls, fd: int) -> Self:
        """The table behind the inherited *fd*, which is closed: what this process starts does not inherit it."""
        memory = mmap.mmap(fd, os.fstat(fd).st_size)
        os.close(fd)
        return cls(memory)

    def set(self, slot: int, job_id: str) -> None:
        """Say that the handler of *job_id* has started, in a *slot* that is clear.

        Args:
            slot: From 0, below :attr:`capacity`.
            job_id: In its canonical form of 36 characters.
        """
        at = _HEADER + slot * _SLOT
        # The flag comes last: a slot half written when the process is killed does not count.
        self._memory[at + 1 : at + _SLOT] = job_id.encode()
        self._memory[at] = _FULL

    def clear(self, slot: int) -> None:
        """Say that the handler in *slot* has ended."""
        self._memory[_HEADER + slot * _SLOT] = 0

    def started(self) -> frozenset[str]:
        """The ids of jobs whose handlers are running."""
        slots = range(_HEADER, _HEADER + self.capacity * _SLOT, _SLOT)
        return frozenset(self._memory[at + 1 : at + _SLOT].decode("ascii", "replace") for at in slots if self._memory[at] == _FULL)

    def finish(self) -> None:
        """Say that this process ends in order: whatever exit status a handler's ``os._exit`` fakes, it cannot fake this."""
        self._memory[0] = _FULL

    @property
    def finished(self) -> bool:
        """Whether :meth:`finish` was called."""
        return self._memory[0] == _FULL

    def say(self, words: str) -> None:
        """Say why this process is about to end, when not in order."""
        self._write(_SAID, words)

    @property
    def words(self) -> str:
        """What the process had to :meth:`say`; empty when it said nothing."""
        return self._read(_SAID)

    @property
    def words_before(self) -> str:
        """The last words of the process that was here before."""
        return self._read(_SAID_BEFORE)

    def _write(self, at: int, words: str) -> None:
        text = words.encode(errors="replace")[: _WORDS - 2]
        # The length comes last, as the flag of a slot does.
        self._memory[at + 2 : at + 2 + len(text)] = text
        self._memory[at : at + 2] = len(text).to_bytes(2, "big")

    def _read(self, at: int) -> str:
        length = int.from_bytes(self._memory[at : at + 2], "big")
        return self._memory[at + 2 : at + 2 + length].decode(errors="ignore")

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _unnamed_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("jobqueue-started", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
