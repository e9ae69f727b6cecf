"""What a handler process executes: handlers, one at a time, as its worker says.

It ends when the worker closes the connection, in order. When the worker dies the kernel ends it at once, with all that handlers have started in it:
its job will be run again elsewhere. SIGTERM and SIGINT mean nothing to it: only the worker tells it what to do.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import operator
import os
import pickle
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from jobqueue_core import logs
from jobqueue_core.errors import HandlerError
from jobqueue_core.handlers import Registry
from jobqueue_core.supervision import breakage
from jobqueue_core.supervision.signalpipe import default_signals_in_copies
from jobqueue_core.worker.isolation.host import HandlerHost
from jobqueue_core.worker.isolation.lifeline import tie
from jobqueue_core.worker.isolation.messages import Channel, HandlerAddress, Ready, Setup, Unusable
from jobqueue_core.worker.plan import Plan

__all__ = ["main"]

_log = logging.getLogger("jobqueue.worker")
_LAST: Final = 2.0
"""Seconds in which this process ends once it has nothing more to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run handlers until the worker closes the connection; returns the exit status.

    Args:
        arguments: The descriptors of the connection and of the lifeline.
    """
    number, lifeline = map(int, sys.argv[1:] if arguments is None else arguments)
    # A function that does nothing serves as well as SIG_IGN, and is not inherited by what handlers start.
    for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(one, lambda *_facts: None)
    default_signals_in_copies()
    tie(lifeline)
    end = socket.socket(fileno=number)
    os.set_inheritable(end.fileno(), False)  # noqa: FBT003 - its parameter has no name
    channel = Channel(end)
    first = channel.receive_bytes()
    if first is None:
        return 0
    path, pickled = msgspec.msgpack.decode(first, type=tuple[list[str], bytes])
    sys.path[:] = path
    try:
        setup: Setup = pickle.loads(pickled)  # noqa: S301 - from the worker that has started this process
        _configure_log(setup)
        host = HandlerHost(_plans(setup), channel, worker_id=setup.worker_id)
        host.enter()
    except Exception as error:  # noqa: BLE001 - handler packages and lifespans are a third party's code
        why = f"a handler process cannot run handlers: {breakage.describe(error)}"
        breakage.trim(error)
        with contextlib.suppress(OSError):  # the worker has no more use for it
            channel.send(Unusable(why, "".join(traceback.format_exception(error))))
        return 0
    with contextlib.suppress(OSError):
        channel.send(Ready())
    status = _serve(host)
    # Threads that handlers have started, and what they have registered to be done at the end, have a moment.
    last = threading.Timer(_LAST, os._exit, args=(status,))
    last.daemon = True
    last.start()
    return status


def _serve(host: HandlerHost) -> int:
    try:
        host.serve()
    except Exception as error:  # noqa: BLE001 - as above
        reason = breakage.describe(error)
        breakage.trim(error)
        _log.error("a handler process could not end in order", exc_info=error, extra={"fields": {"pid": os.getpid(), "reason": reason}})
        return 1
    return 0


def _configure_log(setup: Setup) -> None:
    if setup.log is not None:
        logs.configure(setup.log)
    else:
        logging.getLogger().setLevel(setup.log_level)


def _plans(setup: Setup) -> list[Plan]:
    middleware = list(setup.middleware())
    registry = Registry()
    for address in setup.handlers:
        registry.add(_found(address))
    wanted = {address.type for address in setup.handlers}
    for address in setup.handlers:
        if registry.get(address.type) is None:
            msg = f"module {address.module} has no handler for {address.type!r} any more: it has changed since the worker started"
            raise HandlerError(msg)
    return [Plan(spec, middleware=middleware, defaults=setup.defaults) for spec in registry if spec.type in wanted]


def _found(address: HandlerAddress) -> Any:
    module = importlib.import_module(address.module)
    return module if address.function is None else operator.attrgetter(address.function)(module)


if __name__ == "__main__":
    sys.exit(main())
