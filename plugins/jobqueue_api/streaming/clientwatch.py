"""Whether a client has gone, as far as can be told without sending it anything."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import falcon

__all__ = ["ClientWatch"]


class ClientWatch:
    """Looks at the connection of a request that has been received whole.

    A page that is left or loaded again closes its connection; without a look at it that would be known only after some pings, and the stream hold its
    thread till then.

    Args:
        request: The request. Where its server does not show the connection, or it is encrypted by the server itself, nothing can be told.
    """

    def __init__(self, request: falcon.Request) -> None:
        found = request.env.get("gunicorn.socket")
        self._sock = found if isinstance(found, socket.socket) and not isinstance(found, ssl.SSLSocket) else None

    @property
    def is_gone(self) -> bool:
        """Whether the client has closed the connection."""
        if self._sock is None:
            return False
        try:
            return not self._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True
