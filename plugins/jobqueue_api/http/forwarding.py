"""Who a request comes from and what it was sent to, where proxies stand in between."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    import falcon

__all__ = ["Forwarding", "Origin"]

_HOST: Final = re.compile(r"(?:[A-Za-z0-9_.\-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?", re.ASCII)


@attrs.frozen(kw_only=True)
class Origin:
    """Where a request comes from, and what it was sent to."""

    client: str
    """The address of who sent it."""
    scheme: str
    host: str
    """As the client names this server: with the port, unless it is the scheme's own."""

    @property
    def base(self) -> str:
        """What links begin with."""
        return f"{self.scheme}://{self.host}"

    @property
    def is_sane(self) -> bool:
        """Whether the host can be one: it comes from the client, and goes into links."""
        return _HOST.fullmatch(self.host) is not None


class Forwarding:
    """Believes ``X-Forwarded-For``, ``-Proto`` and ``-Host`` of trusted proxies, and of nobody else.

    Args:
        trusted: Addresses and networks of proxies.
    """

    def __init__(self, trusted: Sequence[str]) -> None:
        self._trusted = tuple(ipaddress.ip_network(one) for one in trusted)

    def origin(self, req: falcon.Request) -> Origin:
        """Where *req* comes from."""
        peer = req.remote_addr or "unknown"
        if not self._is_trusted(peer):
            return Origin(client=peer, scheme=req.scheme, host=req.netloc)
        scheme = _last(req.get_header("X-Forwarded-Proto")) or req.scheme
        host = _last(req.get_header("X-Forwarded-Host")) or req.netloc
        return Origin(
            client=self._client(req.get_header("X-Forwarded-For"), peer),
            scheme=scheme if scheme in ("http", "https") else req.scheme,
            host=host if _HOST.fullmatch(host) else req.netloc,
        )

    def _client(self, chain: str | None, peer: str) -> str:
        """The last address in the chain that no trusted proxy has: what stands before it anybody may have written."""
        for address in reversed([one.strip() for one in (chain or "").split(",")]):
            try:
                ipaddress.ip_address(address)
            except ValueError:
                return peer
            peer = address
            if not self._is_trusted(address):
                return address
        return peer

    def _is_trusted(self, address: str) -> bool:
        if not self._trusted:
            return False
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        return any(parsed in network for network in self._trusted)


def _last(header: str | None) -> str | None:
    """What the nearest proxy has said."""
    return None if header is None else header.rpartition(",")[2].strip()
