"""The gate: what happens to every request before and after it is served. Who is it, may they come in, and one line in the log."""

from __future__ import annotations

import base64
import binascii
import os
import re
import time
from typing import TYPE_CHECKING, Any, Final

from jobqueue_api.section import ApiSection, is_loopback
from jobqueue_core.keys import ANONYMOUS, KeyRing, Principal

from .forwarding import Forwarding, Origin
from .problems import Refusal

if TYPE_CHECKING:
    import falcon

    from jobqueue_api.backend import Backend

    from .accesslog import AccessLog

__all__ = ["Gate"]

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_.:/+=@-]{1,128}", re.ASCII)
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_CHALLENGE: Final = 'Bearer realm="jobqueue"'
_BROWSERS_CHALLENGE: Final = 'Basic realm="jobqueue: any name, and the key as password", charset="UTF-8"'


class Gate:
    """Falcon middleware: request ids, keys, origins, and the access log.

    Args:
        section: ``[api]``.
        keys: Who may come in; none: everybody is anonymous.
        open_paths: What needs no key.
        backend: The queue, for whoever is let in.
        access_log: Where each request makes a line.
    """

    def __init__(self, section: ApiSection, keys: KeyRing, *, open_paths: frozenset[str], backend: Backend, access_log: AccessLog) -> None:
        self._section = section
        self._keys = keys
        self._open = open_paths
        self._backend = backend
        self._access_log = access_log
        self._forwarding = Forwarding(section.trusted_proxies)
        self._local: set[str] = set()
        self._only_loopback = not keys and not section.allow_anonymous

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        """Let the request in, or refuse it."""
        context = req.context
        context.began = time.perf_counter()
        given = req.get_header("X-Request-ID") or ""
        context.request_id = given if _REQUEST_ID.fullmatch(given) else os.urandom(16).hex()
        context.principal = ANONYMOUS
        context.backend = self._backend
        context.max_body = self._section.max_body
        context.origin = origin = self._forwarding.origin(req)
        if not origin.is_sane or not _names_host(req):
            raise Refusal(400, "bad_host", "the Host header is not the name or the address of a host, or not the one that the request is for")
        if self._only_loopback and req.remote_addr and not is_loopback(req.remote_addr.removeprefix("::ffff:")):
            # Under a server of its user's own nobody has looked where it listens. (An empty address is a socket of the file system.)
            raise Refusal(403, "foreign_client", "without keys only this machine is served: add [[api.keys]], or say allow_anonymous = true")
        if self._only_loopback and not (self._is_local(req.netloc) and self._is_local(origin.host)):
            # Without keys the browser of whoever works on this machine is the only guard: a page may have had its name point here.
            raise Refusal(403, "foreign_host", f"{origin.host} is not a name of this machine, and no keys are configured")
        if self._is_preflight(req):
            return
        if req.path not in self._open:
            context.principal = self._holder(req)
        if req.method not in _SAFE:
            self._check_origin(req, origin)

    def _is_preflight(self, req: falcon.Request) -> bool:
        """Whether this is what a browser asks, before it sends a key, for a page that may use the API."""
        if req.method != "OPTIONS" or not req.get_header("Access-Control-Request-Method"):
            return False
        return "*" in self._section.cors_origins or req.get_header("Origin") in self._section.cors_origins

    def _is_local(self, host: str) -> bool:
        """Whether *host* names this machine; which few names are asked for over and over."""
        if host not in self._local:
            name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
            if not is_loopback(name):
                return False
            if len(self._local) < 100:
                self._local.add(host)
        return True

    def _holder(self, req: falcon.Request) -> Principal:
        if not self._keys:
            return ANONYMOUS
        secret = _secret(req)
        found = None if secret is None else self._keys.holder(secret)
        if found is None:
            problem = "this needs a key: send it as Authorization: Bearer KEY" if secret is None else "nobody has this key"
            raise Refusal(401, "unauthorized", problem, headers={"WWW-Authenticate": _challenge(req)})
        if req.method not in _SAFE and (req.auth or "").lower().startswith("basic "):
            # Browsers send such a password by themselves, also when a page of another site makes them.
            raise Refusal(403, "forbidden", "by Basic one can only read: send the key as Authorization: Bearer KEY")
        return found

    def _check_origin(self, req: falcon.Request, origin: Origin) -> None:
        """Refuse what a page of another site has its visitor's browser send."""
        sender = req.get_header("Origin")
        allowed = self._section.cors_origins
        if sender is None or sender == origin.base or sender in allowed or "*" in allowed:
            return
        raise Refusal(403, "foreign_origin", f"pages of {sender[:100]} may not do this: [api] cors_origins does not name them")

    def process_response(self, req: falcon.Request, resp: falcon.Response, _resource: object, _succeeded: object) -> None:
        """Name the request in the answer, and log it."""
        context = req.context
        resp.set_header("X-Request-ID", context.request_id)
        resp.set_header("X-Content-Type-Options", "nosniff")
        if resp.get_header("Cache-Control") is None:
            resp.set_header("Cache-Control", "no-store")
        self._access_log.add(_facts(req, resp))


def _names_host(req: falcon.Request) -> bool:
    """Whether the request says for whom it is, and only once (RFC 9112, 3.2): one of HTTP/1.0 need not."""
    host = req.env.get("HTTP_HOST")
    target = str(req.env.get("RAW_URI", ""))
    if target.startswith(("http://", "https://")):
        return target.partition("://")[2].partition("/")[0].partition("?")[0] == host
    return bool(host) or req.env.get("SERVER_PROTOCOL") == "HTTP/1.0"


def _challenge(req: falcon.Request) -> str:
    """How to bring a key: a browser that opens a page is asked to ask for it. It knows no Bearer, and reads only the first challenge of a header.

    What its pages send is not: it would ask again and again for what does not help, as Basic can only read.
    """
    opens_page = req.method == "GET" and "text/html" in (req.get_header("Accept") or "")
    return _BROWSERS_CHALLENGE if opens_page else _CHALLENGE


def _secret(req: falcon.Request) -> str | None:
    """The key that a request brings: by ``Bearer``; or as the password of ``Basic``, with which a browser can read."""
    scheme, _, value = (req.auth or "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip() or None
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2] or None
        except (binascii.Error, UnicodeError):
            return None
    return None


def _facts(req: falcon.Request, resp: falcon.Response) -> dict[str, Any]:
    context = req.context
    return {
        "request_id": context.request_id,
        "method": req.method,
        "path": req.path,
        "status": resp.status_code,
        "duration_ms": round((time.perf_counter() - context.began) * 1000, 3),
        "actor": context.principal.name,
        "client": context.origin.client,
    }
