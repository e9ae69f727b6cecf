"""How late the event loop is."""

from __future__ import annotations

import asyncio
from time import perf_counter

__all__ = ["INTERVAL", "Probe"]

INTERVAL = 0.002


class Probe:
    """A timer of 2 ms in the worker's event loop, and how much later than asked it fired each time."""

    def __init__(self) -> None:
        self.samples: list[float] = []

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            asked = perf_counter()
            await asyncio.sleep(INTERVAL)
            self.samples.append(perf_counter() - asked - INTERVAL)
