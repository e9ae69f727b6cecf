"""What the url of a database may say: checked without connecting, and without the driver, which takes long to import."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Final
from urllib.parse import unquote, urlsplit

from jobqueue_core.urls import redact

__all__ = ["described", "url_problems"]

_SSLMODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_NUMBERS: Final = frozenset(
    ("connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout", "sslcompression", "sslsni")
)
_CHOICES: Final = {
    "sslmode": _SSLMODES,
    "channel_binding": ("disable", "prefer", "require"),
    "gssencmode": ("disable", "prefer", "require"),
    "sslnegotiation": ("postgres", "direct"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
    "load_balance_hosts": ("disable", "random"),
}
_OTHERS: Final = (
    "application_name",
    "client_encoding",
    "dbname",
    "fallback_application_name",
    "gsslib",
    "gssdelegation",
    "host",
    "hostaddr",
    "krbsrvname",
    "max_protocol_version",
    "min_protocol_version",
    "options",
    "passfile",
    "password",
    "port",
    "require_auth",
    "requirepeer",
    "requiressl",
    "service",
    "servicefile",
    "sslcert",
    "sslcertmode",
    "sslcrl",
    "sslcrldir",
    "sslkey",
    "sslpassword",
    "sslrootcert",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "user",
)
_OPTIONS: Final = frozenset({*_NUMBERS, *_CHOICES, *_OTHERS})
"""The parameters of libpq 18."""
_BAD_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})|%00")


def url_problems(url: str) -> Sequence[str]:
    """What is wrong with *url*, in sentences without its secrets; empty when nothing is."""
    return list(_problems(url))


def _problems(url: str) -> Iterator[str]:
    if "\0" in url or any(letter.isspace() for letter in url):
        yield "must not hold blanks or NUL: percent-encode them"
        return
    if _BAD_PERCENT.search(url):
        yield "has a '%' that begins no percent-encoded byte: write '%25' for it"
    if "#" in url:
        yield "has a '#', which begins nothing in such a url: write '%23' for it"
        return
    try:
        parts = urlsplit(url)
    except ValueError:
        yield "has a host that cannot be read: an IPv6 address stands in brackets"
        return
    if "@" in parts.path:
        yield "has an '@' behind its host: a user name or password with ':', '@', '/' or '?' in it is percent-encoded"
    yield from _host_problems(parts.netloc.rpartition("@")[2])
    yield from _option_problems(parts.query)


def _host_problems(hosts: str) -> Iterator[str]:
    for one in hosts.split(","):
        host, colon, port = one.rpartition(":") if not one.endswith("]") else (one, "", "")
        if colon and port and not (port.isascii() and port.isdecimal() and 0 < int(port) < 65_536):
            yield "has a port that is no number from 1 to 65535: a user name or password with ':', '@', '/' or '?' in it is percent-encoded"
        if ":" in host and not host.startswith("["):
            yield "has a host with ':' in it: an IPv6 address stands in brackets"


def _option_problems(query: str) -> Iterator[str]:
    for pair in query.split("&") if query else []:
        name, equals, value = pair.partition("=")
        name, value = unquote(name), unquote(value)
        if not equals:
            yield f"has the option {name!r:.40} without a value"
        elif name not in _OPTIONS:
            near = difflib.get_close_matches(name, _OPTIONS, n=1)
            yield f"has an unknown option {name!r:.40}" + (f": did you mean {near[0]!r}?" if near else "")
        elif name in _NUMBERS and not (value.isascii() and value.isdecimal()):
            yield f"has {name} = {value!r:.40}: it is a whole number"
        elif name in _CHOICES and value not in _CHOICES[name]:
            yield f"has {name} = {value!r:.40}: it is {', '.join(_CHOICES[name][:-1])} or {_CHOICES[name][-1]}"


def described(url: str) -> str:
    """Host and database of *url*, without secrets, for messages."""
    return redact(url.partition("?")[0]).replace("***@", "")
