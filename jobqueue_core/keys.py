"""API keys: who may do what over HTTP, with REST and MCP alike.

A key is a secret that its holder sends with each request. Here only its SHA-256 digest is kept; what is sent is compared with all of them in
constant time.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import attrs

from jobqueue_core.errors import ConfigError
from jobqueue_core.options import OptionError, matching, option

__all__ = ["ANONYMOUS", "ApiKey", "KeyRing", "Principal", "Role"]


class Role(enum.StrEnum):
    """What the holder of a key may do; each may also do what those before it may."""

    READ = "read"
    """Look at everything."""
    WRITE = "write"
    """Create and cancel jobs, retry dead letters, run a schedule."""
    ADMIN = "admin"
    """Pause, resume and purge queues, delete dead letters, edit schedules."""

    def allows(self, needed: Role) -> bool:
        """Whether who has this role may do what needs *needed*."""
        return _RANKS[self] >= _RANKS[needed]


_RANKS: Final = {role: rank for rank, role in enumerate(Role)}


@attrs.frozen(kw_only=True)
class Principal:
    """Who sends a request."""

    name: str
    role: Role


ANONYMOUS: Final = Principal(name="anonymous", role=Role.ADMIN)
"""Everybody, where no keys are configured."""


@attrs.frozen(kw_only=True)
class ApiKey:
    """One table ``[[api.keys]]``."""

    name: str = option(
        unique=True,
        rule=matching(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,62}", "1 to 63 letters, digits, '_', '.', '@' or '-', beginning with a letter or digit"),
        help="Who holds it, for the log.",
    )
    role: Literal["read", "write", "admin"] = option(help="What its holder may do: look; also create, cancel and retry jobs; everything.")
    key: str | None = option(
        None, secret=True, rule=matching(r"[\x21-\x7e]+", "printable ASCII without spaces"), help="The key itself; or `key_file`, or `sha256`."
    )
    key_file: str | None = option(None, help="A file that holds it, relative to the config file's folder.")
    sha256: str | None = option(
        None, rule=matching(r"[0-9a-fA-F]{64}", "64 hexadecimal digits"), help="Its SHA-256 digest: then the key itself stands nowhere."
    )

    def __attrs_post_init__(self) -> None:
        given = sum(one is not None for one in (self.key, self.key_file, self.sha256))
        if given != 1:
            raise OptionError("key", f"give one of key, key_file and sha256, not {given or 'none'} of them")

    def digest(self, folder: Path) -> bytes:
        """The SHA-256 digest of the key.

        Raises:
            ConfigError: The file cannot be read, or holds no key.
        """
        if self.sha256 is not None:
            return bytes.fromhex(self.sha256)
        return _digest(self.key if self.key is not None else self._read(folder))

    def _read(self, folder: Path) -> str:
        path = folder / str(self.key_file)
        try:
            text = path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeError) as error:
            raise ConfigError([f"api.keys {self.name!r}: the key_file {path} cannot be read: {error}"]) from error
        if not text or not text.isprintable() or " " in text:
            raise ConfigError([f"api.keys {self.name!r}: the key_file {path} holds no key: one line of printable ASCII without spaces"])
        return text


class KeyRing:
    """The keys of an installation.

    Args:
        keys: What the config file says.
        folder: What the paths of key files are relative to.

    Raises:
        ConfigError: A key file cannot be read, or two keys are the same; with every problem.
    """

    def __init__(self, keys: Sequence[ApiKey], folder: Path) -> None:
        self._principals: dict[bytes, Principal] = {}
        problems: list[str] = []
        for key in keys:
            try:
                digest = key.digest(folder)
            except ConfigError as error:
                problems += error.problems
                continue
            other = self._principals.setdefault(digest, Principal(name=key.name, role=Role(key.role)))
            if other.name != key.name:
                problems.append(f"api.keys {key.name!r} and {other.name!r} have the same key")
        if problems:
            raise ConfigError(problems)

    def __len__(self) -> int:
        return len(self._principals)

    def holder(self, secret: str) -> Principal | None:
        """Whose key *secret* is; None when it is nobody's. Takes as long whether or not it is one."""
        sent = _digest(secret)
        found: Principal | None = None
        for digest, principal in self._principals.items():
            if hmac.compare_digest(digest, sent):
                found = principal
        return found


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode(errors="surrogateescape")).digest()
