"""Urls of Redis: where it is, who we are there, and how the connection is secured. Nothing in a url reaches the driver but what is listed here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import attrs

from jobqueue_core.errors import ConfigError
from jobqueue_core.urls import redact

__all__ = ["SCHEMES", "Address", "Login", "read_address", "url_problems"]

Kind = Literal["single", "unix", "sentinel", "cluster"]

SCHEMES: Final[Mapping[str, Kind]] = {
    "redis": "single",
    "rediss": "single",
    "unix": "unix",
    "redis+sentinel": "sentinel",
    "redis+cluster": "cluster",
}
_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379
_ENCODE: Final = 'in a user name or password, "@", "/", "?", "#" and "%" must be percent-encoded'
_FLAGS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@attrs.frozen
class Login:
    """Who we are; without a password, nobody. Never shown."""

    username: str | None = attrs.field(default=None, repr=False)
    password: str | None = attrs.field(default=None, repr=False)


@attrs.frozen(kw_only=True)
class Address:
    """What a url says."""

    kind: Kind
    hosts: tuple[tuple[str, int], ...] = ()
    """Host and port: of the server, of the sentinels, or of some nodes of the cluster."""
    path: str = ""
    """The socket, for ``unix``."""
    master: str = ""
    """What the sentinels call the server."""
    db: int = 0
    login: Login = Login()
    sentinel_login: Login = Login()
    tls: Mapping[str, Any] | None = attrs.field(default=None, repr=False)
    """Options of the driver for TLS; None without TLS."""

    def describe(self) -> str:
        """Where it is, without secrets."""
        hosts = ",".join(place(*host) for host in self.hosts)
        match self.kind:
            case "unix":
                return f"unix://{self.path}" + (f"?db={self.db}" if self.db else "")
            case "single":
                return f"{'redis' if self.tls is None else 'rediss'}://{hosts}/{self.db}"
            case "sentinel":
                return f"redis+sentinel://{hosts}/{self.master}/{self.db}"
            case "cluster":
                return f"redis+cluster://{hosts}"


def place(host: str, port: int) -> str:
    """A host and its port as urls write them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def read_address(url: str) -> Address:
    """What *url* says.

    Raises:
        ConfigError: With everything that is wrong with it, and no secret.
    """
    reader = _Reader(url)
    address = reader.read()
    if reader.problems or address is None:
        raise ConfigError([f"broker.url = {redact(url)!r}: {problem}" for problem in reader.problems])
    return address


def url_problems(url: str) -> Sequence[str]:
    """What is wrong with *url*; no secret."""
    reader = _Reader(url)
    reader.read()
    return reader.problems


# Options -------------------------------------------------------------------------------------------------------------------------------


def _text(value: str) -> str:
    if not value:
        msg = "must not be empty"
        raise ValueError(msg)
    return value


def _flag(value: str) -> bool:
    if value.lower() not in _FLAGS:
        msg = "must be true or false"
        raise ValueError(msg)
    return _FLAGS[value.lower()]


def _database(value: str) -> int:
    if not value.isascii() or not value.isdecimal() or len(value) > 6:
        msg = "must be the number of a database, as 0"
        raise ValueError(msg)
    return int(value)


def _file(value: str) -> str:
    if not Path(_text(value)).is_file():
        msg = "names no file"
        raise ValueError(msg)
    return value


def _folder(value: str) -> str:
    if not Path(_text(value)).is_dir():
        msg = "names no folder"
        raise ValueError(msg)
    return value


def _requirement(value: str) -> str:
    if value not in ("none", "optional", "required"):
        msg = "must be none, optional or required"
        raise ValueError(msg)
    return value


def _tls_version(value: str) -> int:
    import ssl

    versions = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
    if value not in versions:
        msg = "must be 1.2 or 1.3"
        raise ValueError(msg)
    return versions[value]


_LOGIN: Final[Mapping[str, Callable[[str], object]]] = {"username": _text, "password": _text}
_TLS: Final[Mapping[str, Callable[[str], object]]] = {
    "ssl_ca_certs": _file,
    "ssl_ca_path": _folder,
    "ssl_certfile": _file,
    "ssl_keyfile": _file,
    "ssl_password": _text,
    "ssl_cert_reqs": _requirement,
    "ssl_check_hostname": _flag,
    "ssl_min_version": _tls_version,
    "ssl_ciphers": _text,
}
_DB: Final[Mapping[str, Callable[[str], object]]] = {"db": _database}
_SWITCH: Final[Mapping[str, Callable[[str], object]]] = {"tls": _flag}
_OPTIONS: Final[Mapping[str, Mapping[str, Callable[[str], object]]]] = {
    "redis": {**_DB, **_LOGIN},
    "rediss": {**_DB, **_LOGIN, **_TLS},
    "unix": {**_DB, **_LOGIN},
    "redis+sentinel": {**_DB, **_LOGIN, "sentinel_username": _text, "sentinel_password": _text, **_SWITCH, **_TLS},
    "redis+cluster": {**_LOGIN, **_SWITCH, **_TLS},
}


# Reading -------------------------------------------------------------------------------------------------------------------------------


class _Reader:
    """Reads one url and notes what is wrong with it."""

    def __init__(self, url: str) -> None:
        self.problems: list[str] = []
        self._url = url

    def read(self) -> Address | None:
        scheme, _, rest = self._url.partition("://")
        kind = SCHEMES.get(scheme)
        if kind is None:
            self.problems.append(f"must begin with {', '.join(f'{one}://' for one in SCHEMES)}")
            return None
        try:
            parts = urlsplit(f"//{rest}")
        except ValueError:
            parts = SplitResult("", "", "@", "", "")
        # What follows an unencoded "/", "?" or "#" of a password is taken for path, query or fragment, and may hold a part of it: say nothing more.
        if "@" in parts.path + parts.query or parts.fragment or rest.endswith("#"):
            self.problems.append(_ENCODE)
            return None
        options = self._options(scheme, parts.query)
        login, _, hosts = parts.netloc.rpartition("@")
        tls = {name: value for name, value in options.items() if name in _TLS}
        is_secure = scheme == "rediss" or options.get("tls") is True
        if tls and not is_secure:
            self.problems.append(f"{', '.join(sorted(tls))}: only with tls=true")
        master, db = self._path(kind, parts.path, options)
        return Address(
            kind=kind,
            hosts=tuple(self._hosts(kind, hosts)),
            path=unquote(parts.path) if kind == "unix" else "",
            master=master,
            db=db,
            login=self._login(login, options),
            sentinel_login=Login(_named(options, "sentinel_username"), _named(options, "sentinel_password")),
            tls=tls if is_secure else None,
        )

    def _options(self, scheme: str, query: str) -> dict[str, Any]:
        allowed = _OPTIONS[scheme]
        found: dict[str, Any] = {}
        try:
            pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=50)
        except ValueError:
            self.problems.append("what follows the question mark must be options such as db=0, joined by &")
            return found
        for name, value in pairs:
            if name not in allowed:
                hint = "; TLS is rediss://" if scheme == "redis" and (name in _TLS or name == "tls") else ""
                self.problems.append(f"unknown option {name[:40]!r}; allowed for {scheme}://: {', '.join(sorted(allowed))}{hint}")
            elif name in found:
                self.problems.append(f"option {name!r} is given twice")
            else:
                try:
                    found[name] = allowed[name](value)
                except ValueError as error:
                    self.problems.append(f"option {name!r} {error}")
        return found

    def _login(self, text: str, options: Mapping[str, Any]) -> Login:
        username, _, password = text.partition(":")
        given = {"username": unquote(username), "password": unquote(password)}
        for name in ("username", "password"):
            if given[name] and name in options:
                self.problems.append(f"gives a {name} twice: before the @ and as an option")
        login = Login(given["username"] or _named(options, "username"), given["password"] or _named(options, "password"))
        if login.username and not login.password:
            self.problems.append(f"gives a user name without a password, as user:password@host ({_ENCODE})")
        return login

    def _hosts(self, kind: Kind, text: str) -> Iterator[tuple[str, int]]:
        if kind == "unix":
            if text:
                self.problems.append("a socket has no host: three slashes, as unix:///run/redis/redis.sock")
            return
        default = _SENTINEL_PORT if kind == "sentinel" else _PORT
        entries = text.split(",") if kind in ("sentinel", "cluster") else [text]
        for entry in entries:
            if kind == "single" and not entry:
                yield "localhost", default
                continue
            try:
                parts = urlsplit(f"//{entry}")
                host, port = parts.hostname, parts.port
            except ValueError:
                host, port = None, None
            if not host or port == 0 or "," in entry or entry.endswith(":"):
                self.problems.append(f"must name a host, as {'h1:26379,h2:26379' if kind == 'sentinel' else 'host:6379'} ({_ENCODE})")
                return
            yield unquote(host), port or default

    def _path(self, kind: Kind, path: str, options: Mapping[str, Any]) -> tuple[str, int]:
        """The name of the master and the number of the database."""
        words = path.strip("/").split("/") if path.strip("/") else []
        db: int = options.get("db", 0)
        match kind:
            case "unix":
                if not words or path.endswith("/"):
                    self.problems.append("must name a socket, as unix:///run/redis/redis.sock")
                return "", db
            case "cluster":
                if words and words != ["0"]:
                    self.problems.append("a cluster has one database only: nothing follows the hosts")
                return "", 0
            case "sentinel":
                if not words:
                    self.problems.append("must name the master after the hosts, as redis+sentinel://h1:26379,h2:26379/mymaster")
                    return "", db
                return unquote(words[0]), self._db(words[1:], options)
            case "single":
                return "", self._db(words, options)

    def _db(self, words: Sequence[str], options: Mapping[str, Any]) -> int:
        """The number of the database, which the path or an option may give."""
        if not words:
            return int(options.get("db", 0))
        if "db" in options:
            self.problems.append("gives a database twice: in the path and as an option")
        try:
            return _database("/".join(words))
        except ValueError as error:
            self.problems.append(f"the path {error}")
            return 0


def _named(options: Mapping[str, Any], name: str) -> str | None:
    value: str | None = options.get(name)
    return value
