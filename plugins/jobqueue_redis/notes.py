"""What scripts notice by the way: damage that somebody else has done, and that was mended."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

__all__ = ["log_notes"]

_log = logging.getLogger("jobqueue.redis")
_TEXTS: Final = {
    b"group": "the consumer group of %s was gone (destroyed, or its stream deleted) and was made anew; what was leased from it may run twice%s",
    b"refused": "%s cannot be read, and is left alone: %s",
    b"vanished": "a leased entry of %s was deleted by somebody else: %s; run: jobqueue doctor",
}


def log_notes(notes: Sequence[Sequence[bytes]]) -> None:
    """Log what scripts have noticed."""
    for kind, code, text in notes:
        _log.error(_TEXTS[kind], code.decode("utf-8", "replace"), text.decode("utf-8", "replace"))
