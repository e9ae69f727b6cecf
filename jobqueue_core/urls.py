"""Urls of brokers and storages: their scheme, what may be printed of them, and where a SQLite file lies."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

__all__ = ["absolute_sqlite_url", "redact", "scheme_of"]

_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*)://")
# Greedy up to the last "@": a password may hold "@", "/" or "?", and hiding too much is better than too little.
_USERINFO: Final = re.compile(r"^([^@]*?://)?.*@", re.DOTALL)
_QUERY_SECRET: Final = re.compile(r"((?:^|[?&;\s])[a-z_]*(?:pass|password|passwd|pwd|secret|token|auth|key)=)[^&;\s]*", re.IGNORECASE)
_QUERY_VALUE: Final = re.compile(r"([?&;])([^=&;?\s]+)=[^&;\s]*")
_HARMLESS: Final = frozenset(
    ("application_name", "connect_timeout", "db", "ssl_cert_reqs", "ssl_check_hostname", "ssl_min_version", "sslmode", "target_session_attrs", "tls")
)
"""Query parameters whose values may be shown: of any other, a mistyped ``pasword`` say, nobody knows what is in it."""
_SQLITE: Final = "sqlite:///"


def scheme_of(url: str) -> str | None:
    """The scheme of *url*, as ``redis+sentinel``; None when it has none."""
    match = _SCHEME.match(url)
    return match[1] if match else None


def redact(text: str) -> str:
    """*text* without what may be a secret in a url, a mistyped one too: all before an ``@``, and query parameters but for some harmless ones."""
    hidden = _USERINFO.sub(lambda match: f"{match[1] or ''}***@", text)
    return _QUERY_SECRET.sub(r"\1***", _QUERY_VALUE.sub(_hide_unless_harmless, hidden))


def _hide_unless_harmless(match: re.Match[str]) -> str:
    return match[0] if match[2].lower() in _HARMLESS else f"{match[1]}{match[2]}=***"


def absolute_sqlite_url(url: str, folder: Path) -> str:
    """*url* with its path made absolute: three slashes mean relative to *folder*, four mean absolute already.

    Raises:
        ValueError: It names no file.
    """
    path = url.removeprefix(_SQLITE)
    if path == url or not path or path.endswith("/") or "\0" in path:
        msg = 'must name a file, as "sqlite:///jobqueue.db" or, with an absolute path, "sqlite:////srv/jobqueue.db"'
        raise ValueError(msg)
    return _SQLITE + os.path.abspath(folder / path)  # noqa: PTH100 - resolve() would follow links, and the file is named as it was given
