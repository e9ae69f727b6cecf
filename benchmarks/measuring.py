"""Clocks and figures."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterable, Sequence

import attrs

__all__ = ["Span", "Stopwatch", "per_job", "percentile", "spread"]

_MICRO = 1e6


def thread_seconds() -> dict[str, float]:
    """CPU seconds so far of each thread of this process, by name; handler threads together."""
    seconds: dict[str, float] = {}
    for thread in threading.enumerate():
        if thread.ident is None:
            continue
        name = thread.name.removeprefix("jobqueue-")
        name = "handlers" if name.startswith("handler") else name
        try:
            spent = time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
        except OSError:  # it has ended meanwhile
            continue
        seconds[name] = seconds.get(name, 0.0) + spent
    return seconds


@attrs.define
class Span:
    """What passed between two moments, in seconds."""

    wall: float
    cpu: float
    server_cpu: float
    threads: dict[str, float]


class Stopwatch:
    """Measures one span: wall clock, CPU by thread, and the server's CPU where somebody can read it."""

    def __init__(self, server_cpu: Callable[[], float] | None = None) -> None:
        self._server_cpu = server_cpu or (lambda: 0.0)
        self._begun = (0.0, 0.0, 0.0)
        self._threads: dict[str, float] = {}

    def start(self) -> None:
        """Begin."""
        server = self._server_cpu()
        self._threads = thread_seconds()
        self._begun = (time.perf_counter(), time.process_time(), server)

    def stop(self) -> Span:
        """End."""
        wall, cpu, server = self._begun
        ended, spent = time.perf_counter(), time.process_time()
        threads = {name: seconds - self._threads.get(name, 0.0) for name, seconds in thread_seconds().items()}
        return Span(ended - wall, spent - cpu, self._server_cpu() - server, threads)


def per_job(span: Span, jobs: int) -> dict[str, float]:
    """A span's figures, in jobs a second and microseconds a job."""
    figures = {"jobs/s": jobs / span.wall, "process µs": span.cpu / jobs * _MICRO}
    if span.server_cpu:
        figures["server µs"] = span.server_cpu / jobs * _MICRO
    return figures


def percentile(samples: Iterable[float], share: float) -> float:
    """The value that *share* of the samples do not exceed; 0 without samples."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def spread(values: Sequence[float]) -> str:
    """Median (smallest-largest)."""
    middle = statistics.median(values)
    digits = 0 if middle >= 100 else 1 if middle >= 10 else 2
    if len(values) == 1:
        return f"{middle:,.{digits}f}"
    return f"{middle:,.{digits}f} ({min(values):,.{digits}f}-{max(values):,.{digits}f})"
