"""What Redis and the network report, in the framework's words: a driver's exception never leaves this package."""

from __future__ import annotations

import re
import ssl
from typing import Final

import redis

from jobqueue_core.errors import BrokerUnavailable, IncompatibleData, JobQueueError, QueueFull

__all__ = ["Disturbed", "Passing", "code_of", "is_passing", "translate"]

_CODE: Final = re.compile(r"(?:^|-)(OOM|MISCONF|READONLY|LOADING|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|BUSY|NOREPLICAS|DENIED|WRONGTYPE|UNBLOCKED)\b")
"""Of an error inside a script, Redis 6.2 gives the code in the middle of the text: "ERR Error running script ...: -OOM command not allowed"."""
_PASSING: Final = frozenset({"READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "NOREPLICAS", "ASK", "MOVED", "UNBLOCKED"})
_REFUSED: Final = frozenset({"NOAUTH", "WRONGPASS", "NOPERM", "DENIED"})
_ENQUEUES: Final = frozenset({"enqueue", "requeue"})


_NO_DISK: Final = "it cannot write to its disk and therefore takes nothing; free disk space, then look at its log"
_NOT_IN_SCRIPTS: Final = "can't run this command"
"""What a script is told when our user may not do one of its commands."""


class Passing(redis.ConnectionError):
    """Something that may be over in a moment, found by us: a replica where a master should be, a cluster without a slot's owner."""


class Disturbed(redis.RedisError):
    """The server was restarted, replaced, or had its clock set since the caller looked: what it concluded from the time holds no more."""


def code_of(error: redis.RedisError) -> str:
    """The word that says what kind of error it is, as ``READONLY``; empty when there is none."""
    text = str(error)
    match = _CODE.search(text)
    status: str | None = error.status_code
    if status and status != "ERR":
        return status
    if isinstance(error, redis.AuthenticationError):
        return "WRONGPASS"
    return match[1] if match else ""


def is_passing(error: redis.RedisError) -> bool:
    """True when asking again may help: the connection is lost, or the server is not ready. What is wrong with ourselves does not pass."""
    if isinstance(error, (redis.ConnectionError, redis.TimeoutError)):
        return not isinstance(error, redis.AuthenticationError) and not _is_untrusted(error)
    return code_of(error) in _PASSING


def translate(error: redis.RedisError, *, where: str, what: str, maybe_accepted: bool) -> JobQueueError:
    """The error to raise instead.

    Args:
        error: What the driver said.
        where: The server, as ``Broker.describe`` names it.
        what: The script or command.
        maybe_accepted: True when something was sent that nobody answered.
    """
    text = " ".join(str(error).split())
    code = code_of(error)
    if code == "OOM":
        remedy = "raise maxmemory, or shorten [job] result_ttl, for which finished jobs are kept"
        return QueueFull(f"{where}: its memory is full: nothing was stored; {remedy} ({text})")
    if code == "MISCONF" and what in _ENQUEUES:
        return QueueFull(f"{where}: nothing was stored: {_NO_DISK} ({text})")
    problem = _problem(error, code, text, what)
    if problem is None:
        return IncompatibleData(f"{where}: {_misfit(error, code, text, what)} ({text})")
    return BrokerUnavailable(f"{where}: {problem} ({text})", maybe_accepted=maybe_accepted and not isinstance(error, Disturbed))


def _problem(error: redis.RedisError, code: str, text: str, what: str) -> str | None:  # noqa: PLR0911 - a sentence a case
    """Why the server cannot be used now, or by us; None when it never can be."""
    match error:
        case Disturbed():
            return f"was restarted or replaced, or its clock was set: {what} waits"
        case redis.TimeoutError():
            return f"no answer in time to {what}"
        case _ if code == "MISCONF":
            return _NO_DISK
        case _ if code in _REFUSED:
            return _refusal(code, what)
        case _ if _NOT_IN_SCRIPTS in text:
            return _refusal("NOPERM", what)
        case redis.ConnectionError():
            return "cannot be reached" + (": check the certificates that broker.url names" if _is_untrusted(error) else "")
        case _ if code in _PASSING:
            return f"not ready to {what}" if text.startswith(code) else f"not ready to {what}: {code}"
        case _:
            return None


def _misfit(error: redis.RedisError, code: str, text: str, what: str) -> str:
    """Why what answers there is not what we need."""
    match error:
        case redis.InvalidResponse():
            return "what answers there is no Redis"
        case _ if code == "WRONGTYPE":
            return f"{what}: a key is not what this release makes of it: does another program use this database?"
        case _ if "DB index" in text:
            return "has no such database: name another in broker.url"
        case _:
            return f"refused {what}: is it Redis 6.2 or later, or Valkey?"


def _refusal(code: str, what: str) -> str:
    if code == "NOPERM":
        return f"our user may not do {what}: grant it what docs/redis.md lists"
    if code == "DENIED":
        return "refuses connections from other hosts (protected mode): give it a password, and broker.url too"
    return "refuses our user name or password: check those in broker.url, and whether the user is enabled (ACL LIST)"


def _is_untrusted(error: BaseException) -> bool:
    """True when TLS was refused for what will not change by itself: a certificate, a key, a protocol."""
    causes = (error.__cause__, error.__context__)
    return any(isinstance(cause, ssl.SSLError) and not isinstance(cause, (ssl.SSLEOFError, ssl.SSLZeroReturnError)) for cause in causes)
