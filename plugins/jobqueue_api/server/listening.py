"""The address at which the API listens."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import socket
import struct
import sys
from typing import Final

__all__ = ["ask_to_come_later", "listen", "shown"]

_BACKLOG: Final = 2048
_NOT_HERE: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
"""What a machine says that has no IPv6, or not this address."""
_SO_ATTACH_FILTER: Final = 26
_DROP_SYN: Final = b"".join(
    struct.pack("=HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load the flags of the TCP header
        (0x54, 0, 0, 0x12),  # SYN and ACK of them
        (0x15, 0, 1, 0x02),  # SYN alone?
        (0x06, 0, 0, 0),  # drop it
        (0x06, 0, 0, 0xFFFFFFFF),  # else take all
    )
)
"""A program of the classic Berkeley packet filter (Linux, Documentation/networking/filter.rst)."""


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


def ask_to_come_later(listener: socket.socket) -> None:
    """Let no client connect any more, who will try again within a second, while those that have connected can still be accepted.

    Without it, who connects between the last accept and the close is told that it is connected, and then reset. It holds for all processes that
    share the socket. Only Linux can do this; elsewhere nothing happens.
    """
    if sys.platform == "linux":
        program = ctypes.create_string_buffer(_DROP_SYN)
        # What is not Linux but looks like it may not know filters.
        with contextlib.suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_DROP_SYN) // 8, ctypes.addressof(program)))


def shown(listener: socket.socket) -> str:
    """Where it listens, as a url."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
