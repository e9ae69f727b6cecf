"""Checks: what ``jobqueue doctor`` looks at."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import attrs

if TYPE_CHECKING:
    from jobqueue_core.app import App  # noqa: TC004 - nothing resolves this annotation, and the import would go round in a circle

__all__ = ["Check", "Finding"]


@attrs.frozen(kw_only=True)
class Finding:
    """What a check found. *remedy* says what to do about it; *fixed* that it has been done."""

    level: Literal["ok", "warning", "error"]
    text: str
    remedy: str | None = None
    fixed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The finding as ``--json`` shows it."""
        return attrs.asdict(self)


@attrs.frozen(kw_only=True)
class Check:
    """One thing to look at. *run* gets the app and whether it may repair what is safe to repair; it raises nothing it can report."""

    name: str
    run: Callable[[App, bool], list[Finding]]
