"""Links from one page of a list to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

if TYPE_CHECKING:
    from .operation import Call

__all__ = ["next_link"]


def next_link(call: Call[Any, Any], cursor: str | None) -> dict[str, str]:
    """The header that leads to the page after this one; none when this is the last.

    Args:
        call: The request for this page: the next one has the same parameters, but for where it begins.
        cursor: Where that is.
    """
    if cursor is None:
        return {}
    request = call.request
    kept = {name: value for name, value in request.params.items() if name not in ("cursor", "offset")}
    url = f"{request.context.origin.base}{request.root_path}{request.path}?{urlencode({**kept, 'cursor': cursor})}"
    return {"Link": f'<{url}>; rel="next"'}
