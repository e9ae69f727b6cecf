"""The address at which the API listens."""

from __future__ import annotations

import errno
import socket
from typing import Final

__all__ = ["listen", "shown"]

_BACKLOG: Final = 2048
_NOT_HERE: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
"""What a machine says that has no IPv6, or not this address."""


def listen(host: str, port: int) -> list[socket.socket]:
    """Listen on *host*: on one socket for each of the addresses that a name has.

    Args:
        host: A name or an address; one of IPv6 may stand in brackets.
        port: 0 for any that is free; then all sockets have the same one.

    Raises:
        OSError: It has no address, or one that is not of this machine, in use or forbidden.
    """
    found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    addresses = list(dict.fromkeys((family, address) for family, _type, _proto, _name, address in found))
    listeners: list[socket.socket] = []
    try:
        for family, address in addresses:
            try:
                listeners.append(_listen(family, address, listeners))
            except OSError as error:
                if error.errno not in _NOT_HERE or (not listeners and (family, address) == addresses[-1]):
                    raise
    except OSError:
        for one in listeners:
            one.close()
        raise
    return listeners


def _listen(family: socket.AddressFamily, address: tuple[object, ...], others: list[socket.socket]) -> socket.socket:
    host, port, *rest = address
    if others:
        port = others[0].getsockname()[1]
    both = host == "::" and not others and socket.has_dualstack_ipv6()
    listener = socket.create_server((host, port, *rest), family=family, backlog=_BACKLOG, dualstack_ipv6=both)
    listener.setblocking(False)  # noqa: FBT003 - its parameter has no name
    # Answers leave when they are written; what is accepted inherits this.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def shown(listener: socket.socket) -> str:
    """Where it listens, as a url."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
