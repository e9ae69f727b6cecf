"""Where servers of tests listen."""

from __future__ import annotations

import secrets
import socket

__all__ = ["free_port"]


def free_port() -> int:
    """A free port that no outgoing connection is ever given, so that a server finds it free again when it is restarted."""
    while True:
        port = 15_000 + secrets.randbelow(17_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
