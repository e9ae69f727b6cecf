"""A site that is sent what has broken others: it holds some of everything, and what it refuses must leave all of it as it was.

A module names the fixtures that it uses: ``site = pytest.fixture(keep_unchanged)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest
from api_asking import prompt_site
from api_site import ApiSite

__all__ = ["LARGEST", "TEXTS", "keep_unchanged", "open_filled"]

LARGEST: Final = 2 << 20
"""Bytes that a body may have."""
TEXTS: Final = {
    "quote": "'",
    "or": "' OR '1'='1",
    "drop": "x'; DROP TABLE jobs; --",
    "union": "' UNION SELECT name, sql, 1, 2 FROM sqlite_master --",
    "double quote": '" OR ""="',
    "sleep": "1; SELECT pg_sleep(10)--",
    "like": "%",
    "underscores": "____",
    "glob": "*",
    "backslash": "\\",
    "regex": "(a+)+$" + "a" * 40,
    "nul": "a\x00b",
    "line": "a\r\nb",
    "format": "%s%n{0}${x}",
    "half a character": "\ud800",
    "far out": "\U0010ffff",
    "path": "../../etc/passwd",
    "long": "a" * 5000,
    "empty": "",
    "space": " ",
    "brackets": "[]",
    "none": "null",
    "lua": "') redis.call('FLUSHALL') --",
    "redis": "\r\nFLUSHALL\r\n",
}
"""What has broken others."""


def open_filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiSite]:
    """The fixture ``filled``: jobs that wait in the queue ``kept``, dead ones, ones that only history knows, and the schedule ``nightly``."""
    with prompt_site(tmp_path_factory.mktemp("api"), max_body=LARGEST) as site:
        site.schedule()
        for number in range(3):
            site.queued(queue="kept")
            site.dead(error=f"OSError: {number}")
            site.archived()
        yield site


def keep_unchanged(filled: ApiSite) -> Iterator[ApiSite]:
    """The fixture ``site``: the same, for tests in which nothing is made, buried or taken away."""
    before = _counted(filled)
    yield filled
    assert _counted(filled) == before


def _counted(site: ApiSite) -> tuple[int, int | None, int]:
    stats = site.queue.operations.stats()
    return stats["totals"]["enqueued"], stats["dead_letter_count"], len(site.queue.schedules.all())
