"""What the command line asks for."""

from __future__ import annotations

from typing import Self

import attrs

__all__ = ["Load", "Options"]


@attrs.frozen
class Load:
    """What a worker is given to do."""

    handler: str
    concurrency: int
    busy: bool
    """Beside a thread of the same process that computes all the time."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """A load as the command line names it: ``async:10``, ``async+busy:10``."""
        name, _, concurrency = text.partition(":")
        handler, _, company = name.partition("+")
        if handler not in {"async", "thread", "sleep"} or company not in {"", "busy"} or not concurrency.isdecimal():
            msg = f"{text!r} is no load: async, thread or sleep, +busy or not, and the concurrency, as in async+busy:10"
            raise ValueError(msg)
        return cls(handler, int(concurrency), busy=bool(company))

    def __str__(self) -> str:
        return f"{self.handler}, concurrency {self.concurrency}" + (", beside a busy thread" if self.busy else "")


@attrs.frozen(kw_only=True)
class Options:
    """Options of all benchmarks."""

    broker: str
    url: str | None
    jobs: int
    repeats: int
    loads: tuple[Load, ...]
    thread_figures: bool
    executions: int
    """Of the history that is queried."""
