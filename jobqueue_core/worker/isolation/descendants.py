"""Which processes a process has started, and these in turn."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

__all__ = ["descendants"]


def descendants(ancestor: int) -> list[int]:
    """The children of process *ancestor* and theirs, nearest first; none where the system does not tell.

    One whose parent has ended is not found: it has another parent then.
    """
    children: defaultdict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The command's name, in brackets, may hold anything; after it come the state and the parent.
            parent = int(entry.read_bytes().rpartition(b")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            continue
        children[parent].append(int(entry.parent.name))
    found = list(children[ancestor])
    for pid in found:
        found += children[pid]
    return found
