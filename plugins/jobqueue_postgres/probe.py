"""A quick look, before roles start, whether the database can be used."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from .connections import Connections

__all__ = ["probe"]

_CONNECT_WITHIN: Final = "connect_timeout=3"
_ANSWER_WITHIN: Final = timedelta(seconds=1)


def probe(url: str, *, namespace: str, pooled: bool) -> None:
    """Connect once, which looks at the schema; roles wait for it, so it has less patience than others.

    Raises:
        IncompatibleData: The schema is too old or too new.
        StorageUnavailable: The server does not answer.
    """
    if "connect_timeout=" not in url:
        url += f"{'&' if '?' in url else '?'}{_CONNECT_WITHIN}"
    connections = Connections(url, namespace=namespace, pooled=pooled, timeout=_ANSWER_WITHIN)
    try:
        with connections.transaction():
            pass
    finally:
        connections.close()
