"""The messages of PostgreSQL's protocol, version 3, as far as one who stands between client and server must know them."""

from __future__ import annotations

import struct
from asyncio import StreamReader
from typing import Final

import attrs

__all__ = ["CANCEL", "GSS", "LOGIN_OK", "PROTOCOL", "READY", "TLS", "Message", "error", "read_message", "read_startup", "startup"]

PROTOCOL: Final = 196_608
"""3.0."""
CANCEL: Final = 80_877_102
TLS: Final = 80_877_103
GSS: Final = 80_877_104


@attrs.frozen
class Message:
    """One message of a client or a server, but for the very first."""

    kind: bytes
    body: bytes = b""

    def __bytes__(self) -> bytes:
        return self.kind + struct.pack("!i", len(self.body) + 4) + self.body


LOGIN_OK: Final = Message(b"R", struct.pack("!i", 0))
READY: Final = Message(b"Z", b"I")


def error(text: str, *, code: str = "08P01") -> Message:
    """What a pooler says before it closes a connection."""
    fields = (b"SFATAL", b"VFATAL", f"C{code}".encode(), f"M{text}".encode())
    return Message(b"E", b"\0".join(fields) + b"\0\0")


async def read_message(reader: StreamReader) -> Message:
    """Read the next one.

    Raises:
        EOFError: There is none.
    """
    kind = await reader.readexactly(1)
    (length,) = struct.unpack("!i", await reader.readexactly(4))
    return Message(kind, await reader.readexactly(length - 4))


async def read_startup(reader: StreamReader) -> tuple[int, bytes]:
    """Read what a client begins with: what it wants, and the rest.

    Raises:
        EOFError: There is nothing.
    """
    length, code = struct.unpack("!ii", await reader.readexactly(8))
    return code, await reader.readexactly(length - 8)


def startup(code: int, body: bytes) -> bytes:
    """What a client begins with."""
    return struct.pack("!ii", len(body) + 8, code) + body
