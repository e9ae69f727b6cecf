"""What the url of a database may say: checked without connecting, and without the driver, which takes long to import."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final
from urllib.parse import unquote

from jobqueue_core.errors import ConfigError
from jobqueue_core.urls import redact

__all__ = ["described", "parameters", "url_problems"]

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
    "ssl": ("true",),
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
    "oauth_client_id",
    "oauth_client_secret",
    "oauth_issuer",
    "oauth_scope",
    "options",
    "passfile",
    "password",
    "port",
    "require_auth",
    "requirepeer",
    "scram_client_key",
    "scram_server_key",
    "service",
    "sslcert",
    "sslcertmode",
    "sslcrl",
    "sslcrldir",
    "sslkey",
    "sslkeylogfile",
    "sslpassword",
    "sslrootcert",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "user",
)
_OPTIONS: Final = frozenset({*_NUMBERS, *_CHOICES, *_OTHERS})
"""The parameters of libpq 18, but for ``replication``: such a connection takes no statements."""
_ENCODE: Final = "a user name or password with ':', '@', '/', '?', '#', '[' or '%' in it is percent-encoded"
# Not urlsplit: newer ones refuse an IPv6 address that is not the first of several hosts.
_PARTS: Final = re.compile(r"[a-z]+://(?P<hosts>[^/?#]*)(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?(?:#.*)?", re.DOTALL)
_BAD_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})|%00")
_HOST: Final = re.compile(r"(?:[^:\[\]]*|\[[0-9A-Za-z:.%_~-]+\])(?::(?P<port>[^:]*))?")
_WHOLE: Final = re.compile(r"-?[0-9]{1,9}")


def url_problems(url: str) -> Sequence[str]:
    """What is wrong with *url*, in sentences without its secrets; empty when nothing is."""
    return list(_problems(url))


def _problems(url: str) -> Iterator[str]:
    if "\0" in url or any(letter.isspace() for letter in url):
        yield "must not hold blanks or NUL: percent-encode them"
        return
    if _BAD_PERCENT.search(url):
        yield "has a '%' that begins no percent-encoded byte: write '%25' for it"
        return
    try:
        unquote(url, errors="strict").encode()
    except UnicodeError:
        yield "has bytes that are no UTF-8"
        return
    parts = _PARTS.fullmatch(url)
    if parts is None or parts["hosts"].count("[") != parts["hosts"].count("]"):
        yield f"has a bracket that opens or closes no IPv6 address; {_ENCODE}"
        return
    # What follows an unencoded "/", "?" or "#" of a password is taken for something else, and may hold a part of it: say nothing more.
    if "@" in parts["path"] + (parts["query"] or "") or parts["hosts"].count("@") > 1 or "#" in url:
        yield f"has an '@' or '#' where none can be: {_ENCODE}"
        return
    yield from _host_problems(parts["hosts"].rpartition("@")[2])
    yield from _option_problems(parts["query"] or "")


def _host_problems(hosts: str) -> Iterator[str]:
    for one in hosts.split(","):
        match = _HOST.fullmatch(one)
        if match is None:
            yield f"has a host that cannot be read: an IPv6 address stands in brackets; {_ENCODE}"
        elif match["port"] and not _is_port(match["port"]):
            yield f"has a port that is no number from 1 to 65535; {_ENCODE}"


def _option_problems(query: str) -> Iterator[str]:
    for pair in query.split("&") if query else []:
        name, _, value = (unquote(part) for part in pair.partition("="))
        if not name or pair.count("=") != 1:
            yield "has an option that is not written as name=value, with '%3D' for a '=' in it; options are joined by '&'"
        elif name not in _OPTIONS:
            near = difflib.get_close_matches(name, _OPTIONS, n=1)
            yield f"has an unknown option {name!r:.40}" + (f": did you mean {near[0]!r}?" if near else "")
        elif name in _NUMBERS and value and not _WHOLE.fullmatch(value):
            yield f"has {name} = {value!r:.40}: it is a whole number"
        elif name == "port" and not all(_is_port(one) for one in value.split(",") if one):
            yield f"has port = {value!r:.40}: it is a number from 1 to 65535"
        elif name in _CHOICES and value not in _CHOICES[name]:
            yield f"has {name} = {value!r:.40}: it is {' or '.join(_CHOICES[name])}"


def _is_port(text: str) -> bool:
    return _WHOLE.fullmatch(text) is not None and 0 < int(text) < 65_536


def described(url: str) -> str:
    """Host and database of *url*, without secrets, for messages."""
    # Hidden first: in a password that should have been encoded "?" begins no options.
    return redact(url).partition("?")[0].replace("***@", "")


def parameters(url: str) -> dict[str, Any]:
    """*url* as parameters of the driver. Texts travel as UTF-8, whatever it says.

    Raises:
        ConfigError: It cannot be read; without what is in it.
    """
    import psycopg

    try:
        return psycopg.conninfo.conninfo_to_dict(url) | {"client_encoding": "UTF8"}
    except psycopg.Error:
        raise ConfigError(["the url of a PostgreSQL server cannot be read: postgresql://user:password@host:port/database?option=value"]) from None
