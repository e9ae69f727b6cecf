"""The tables ``[api]`` and ``[[api.keys]]`` of the config file."""

from __future__ import annotations

import ipaddress
from typing import Final

import attrs

from jobqueue_core.errors import InvalidJob
from jobqueue_core.keys import ApiKey
from jobqueue_core.options import OptionError, Rule, Size, between, matching, option

__all__ = ["ApiSection", "is_loopback"]

_LOOPBACK_NAMES: Final = frozenset({"localhost", "localhost.localdomain", "ip6-localhost"})


def is_loopback(host: str) -> bool:
    """Whether *host* can be reached from this machine only."""
    if host.lower() in _LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _are_networks(values: tuple[str, ...], key: str) -> None:
    for index, value in enumerate(values):
        try:
            ipaddress.ip_network(value)
        except ValueError as error:
            raise InvalidJob(f"{key}[{index}]", f"must be an address or a network such as 10.0.0.0/8: {error}") from error


def _are_origins(values: tuple[str, ...]) -> bool:
    return all(value == "*" or _is_origin(value) for value in values)


def _is_origin(value: str) -> bool:
    scheme, separator, rest = value.partition("://")
    return bool(separator) and scheme in ("http", "https") and bool(rest) and not set(rest) & set("/?#@ ")


@attrs.frozen(kw_only=True)
class ApiSection:
    """The REST API: where it listens, who may use it, and how much it takes."""

    host: str = option(
        "127.0.0.1",
        rule=matching(r"[A-Za-z0-9_.:\-\[\]%]{1,255}", "a host name or an address"),
        help="The address to listen on. Other machines reach only an address of this one's network, or `0.0.0.0` or `::` for all: that takes keys.",
    )
    port: int = option(8080, rule=between(0, 65_535), env="API_PORT", help="The port to listen on; 0: any that is free.")
    workers: int = option(1, rule=between(1, 256), help="How many processes serve.")
    threads: int = option(8, rule=between(2, 1_000), help="How many requests each serves at once; half of them may be event streams and waits.")
    max_body: Size = option(
        Size(16 << 20), rule=Rule("1KiB to 1GiB", lambda size: 1 << 10 <= size <= 1 << 30), help="The largest body of a request; beyond: 413."
    )
    allow_anonymous: bool = option(default=False, help="Serve other machines without keys. Whoever reaches the port may then do everything.")
    trusted_proxies: tuple[str, ...] = option(
        (), check=_are_networks, help="Addresses and networks whose `X-Forwarded-For`, `-Proto` and `-Host` are believed."
    )
    cors_origins: tuple[str, ...] = option(
        (),
        rule=Rule('each "*" or an origin such as "https://ops.example.com"', _are_origins),
        help="Origins whose pages may use the API from a browser.",
    )
    path_prefix: str = option(
        "", rule=matching(r"(?:/[A-Za-z0-9_.~-]+)*", 'empty, or a path such as "/jobs"'), help="The path under which everything is mounted."
    )
    keys: tuple[ApiKey, ...] = option((), help="The keys; without any, nobody needs one.")

    def __attrs_post_init__(self) -> None:
        if not self.keys and not self.allow_anonymous and not is_loopback(self.host):
            problem = f"{self.host} can be reached from other machines: add [[api.keys]], or say allow_anonymous = true"
            raise OptionError("host", problem)
