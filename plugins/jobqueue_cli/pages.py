"""Walk a list page by page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs

if TYPE_CHECKING:
    from jobqueue_cli.session import Cli

__all__ = ["Page", "collect"]

_LARGEST: Final = 500


@attrs.frozen(kw_only=True)
class Page:
    """Some objects, and the cursor that continues after them; None at the end."""

    objects: list[Mapping[str, Any]]
    next: str | None


def collect(cli: Cli, page: Callable[[str | None, int], Page], limit: int) -> list[Mapping[str, Any]]:
    """The first *limit* objects of a list whose pages *page* gives, by (cursor, most objects); a page may be short and have a next one."""
    found: list[Mapping[str, Any]] = []
    cursor: str | None = None
    while True:
        step = page(cursor, min(_LARGEST, limit - len(found)))
        found += step.objects
        cursor = step.next
        if cursor is None:
            return found
        if len(found) >= limit:
            cli.hint(f"there may be more than these {limit}: see --limit")
            return found
